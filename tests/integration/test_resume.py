"""Killed, resumed and finished trainings: the real nnU-Net command in a process of its own."""

import functools
import os
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from helpers import assert_same, command, load, make_trainer
from killed_training import SLOW_SAVE_SECONDS, train
from processes import Process

COMPARED = ("network_weights", "optimizer_state")


@pytest.mark.faults("killed processes")
@pytest.mark.parametrize(
    ("epochs", "kills", "kills_after_checkpoint", "kills_in_save"),
    [pytest.param(6, 3, 2, 1, id="short"), pytest.param(40, 20, 15, 5, id="series", marks=pytest.mark.slow)],
)
def test_killed_and_resumed_run_equals_the_uninterrupted_one(
    nnunet, variant, teacher_2d, tmp_path, epochs, kills, kills_after_checkpoint, kills_in_save
):
    """SIGKILL at random moments and in the middle of saves, `--c` after each: bit for bit the uninterrupted run.

    `kills_in_save` of them come while a checkpoint's temporary file is there; the child then sleeps between writing
    and renaming, so that the kill falls in between.
    """
    settings = {"num_epochs": epochs, "num_iterations_per_epoch": 1}
    plain = variant(f"whole{epochs}", base="nnUNetPlans_short", **settings)
    make_trainer(nnunet, "nnUNetTrainerHLFD", plain).run_training()
    plans = variant(f"killed{epochs}", base="nnUNetPlans_short", **settings)
    results = nnunet / "results/Dataset901_Phantom"
    whole, killed = (results / f"nnUNetTrainerHLFD__{name}__2d/fold_0" for name in (plain, plans))
    teacher = results / "nnUNetTrainerTeacher__nnUNetPlans_short__2d"
    generator = random.Random(0)
    resumed_at = []
    kinds = ["save"] * kills_in_save + ["anywhere"] * (kills - kills_in_save - 1)
    generator.shuffle(kinds)
    kinds.insert(0, "anywhere")  # right after the first checkpoint: from then on the run is continued
    for number, kind in enumerate(kinds):
        continues = any(killed.glob("checkpoint_*.pth"))
        before = _epoch(killed)
        with _start(plans, teacher, continues, slow_save=kind == "save", folder=tmp_path / str(number)) as child:
            if kind == "save":
                _wait_for(lambda: any(killed.glob(".partial*/checkpoint*")), child)
            else:
                _wait_for(lambda: _epoch(killed) > before, child)  # noqa: B023
                time.sleep(generator.uniform(0, 0.3))
            child.kill()
        if continues:
            resumed_at.append(before)
        for whole_file in killed.glob("checkpoint_*.pth"):
            load(whole_file)  # no kill leaves a damaged file
    assert len(resumed_at) >= kills_after_checkpoint
    assert min(resumed_at) > 0
    assert not (killed / "checkpoint_final.pth").exists(), "the run ended before the last kill: more epochs are needed"
    with _start(plans, teacher, continues=True, slow_save=False, folder=tmp_path / "last") as child:
        assert child.wait() == 0, child.stderr[-2000:]
    for name in ("checkpoint_final.pth", "checkpoint_best.pth"):
        expected, got = load(whole / name), load(killed / name)
        for key in COMPARED:
            assert_same(got[key], expected[key])
        assert_same(got["hlfd"]["adapters"], expected["hlfd"]["adapters"])
        assert got["current_epoch"] == expected["current_epoch"]
        assert got["_best_ema"] == expected["_best_ema"]
    assert (killed / "distillation_log.csv").read_text() == (whole / "distillation_log.csv").read_text()


def _start(plans: str, teacher: Path, continues: bool, *, slow_save: bool, folder: Path) -> Process:
    """nnU-Net's training without the final validation, in a process of its own."""
    call = functools.partial(train, "nnUNetTrainerHLFD", plans, continues=continues, slow_save=slow_save)
    return Process(call, (), {**os.environ, "nnUNet_hlfd_teacher": str(teacher)}, folder)


def _epoch(folder: Path) -> int:
    """The epoch at which `--c` would go on."""
    files = [folder / f"checkpoint_{name}.pth" for name in ("final", "latest", "best")]
    return next((load(file)["current_epoch"] for file in files if file.is_file()), 0)


def _wait_for(condition, child: Process) -> None:
    for _ in range(3000):
        if condition():
            return
        assert child.poll() is None, child.stderr[-3000:]
        time.sleep(SLOW_SAVE_SECONDS / 10)  # polling must not starve the child
    raise AssertionError(child.stderr[-3000:])


@pytest.fixture(scope="module")
def finished(nnunet, variant, train, teacher_2d):
    """A finished HLFD run with validation, whose teacher is then moved away: (fold folder, plans name)."""
    plans = variant("finished", base="nnUNetPlans_short")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
        return train("nnUNetTrainerHLFD", plans=plans), plans


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["--val"], marks=pytest.mark.slow, id="--val"),
        pytest.param(["--val", "--val_best"], marks=pytest.mark.slow, id="--val --val_best"),
        pytest.param(["--c"], id="--c"),
    ],
)
def test_finished_run_validates_and_continues_from_a_fresh_shell_without_its_teacher(finished, flags, tmp_path):
    folder, plans = finished
    expected = load(folder / "checkpoint_final.pth")
    (folder / "validation/summary.json").unlink(missing_ok=True)
    assert "nnUNet_hlfd_teacher" not in os.environ
    missing = folder.parent.parent / "nnUNetTrainerTeacher__nnUNetPlans_short__2d"
    hidden = missing.rename(tmp_path / "hidden")
    try:
        run = ("Dataset901_Phantom", "2d", 0, "-tr", "nnUNetTrainerHLFD", "-p", plans, "-device", "cpu")
        printed = command("nnUNetv2_train", *run, *flags)
    finally:
        shutil.move(hidden, missing)
    assert "Mean Validation Dice" in printed
    assert (folder / "validation/summary.json").is_file()
    got = load(folder / "checkpoint_final.pth")
    assert_same(got["network_weights"], expected["network_weights"])
    assert got["hlfd"]["teacher"] == expected["hlfd"]["teacher"]
    assert got["hlfd"]["teacher"]


def test_latest_holds_the_best_value_of_its_own_epoch(nnunet, variant, teacher_2d):
    trainer = make_trainer(nnunet, "nnUNetTrainerStudent", variant("latest", num_epochs=3))
    saved = []
    write = trainer.save_checkpoint
    trainer.save_checkpoint = lambda file: (saved.append((Path(file).name, trainer._best_ema)), write(file))
    trainer.run_training()
    assert saved[:2] == [
        ("checkpoint_best.pth", trainer.logger.get_value("ema_fg_dice", 0)),
        ("checkpoint_latest.pth", trainer.logger.get_value("ema_fg_dice", 0)),
    ]


def test_continue_without_a_checkpoint_is_an_error(nnunet, variant):
    trainer = make_trainer(nnunet, "nnUNetTrainerStudent", variant("nothing"), continue_training=True)
    with pytest.raises(ValueError, match=r"--c was given, but there is no checkpoint to continue from.*without --c"):
        trainer.run_training()


def test_resume_adopts_recorded_settings_and_student_and_refuses_other_ones_by_name(nnunet, variant, teacher_2d):
    plans = variant("adopt", beta=0.5, student="resnet18_w4")
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", plans)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
        trainer.run_training()
    checkpoint = Path(trainer.output_folder) / "checkpoint_final.pth"
    silent = make_trainer(nnunet, "nnUNetTrainerHLFD", "nnUNetPlans", continue_training=True)
    silent.load_checkpoint(str(checkpoint))
    assert silent.settings.beta == 0.5
    assert silent.seed == 1
    assert silent.num_epochs == 2
    assert [each.channels for each in silent.distiller.method.methods["HLFD"].student_stages] == [4, 16, 16, 32]
    other = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("adopt", beta=0.7), continue_training=True)
    with pytest.raises(ValueError, match=r"Cannot continue .* with other settings \(.*beta: 0.7 here, 0.5 there"):
        other.load_checkpoint(str(checkpoint))
    student = make_trainer(nnunet, "nnUNetTrainerStudent", plans, continue_training=True)
    with pytest.raises(ValueError, match="was not written by nnUNetTrainerStudent but by nnUNetTrainerHLFD"):
        student.load_checkpoint(str(checkpoint))


def test_resume_with_another_teacher_is_refused(nnunet, variant, teacher_2d, tmp_path):
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("swap"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
        trainer.on_train_start()
        trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
        copy = shutil.copytree(teacher_2d.parent, tmp_path / "teacher")
        other = load(copy / "fold_0/checkpoint_final.pth")
        other["network_weights"]["decoder.seg_layers.2.bias"] += 1
        torch.save(other, copy / "fold_0/checkpoint_final.pth")
        patch.setenv("nnUNet_hlfd_teacher", str(copy))
        again = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("swap"), continue_training=True)
        again.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
        with pytest.raises(ValueError, match=r"started with another teacher.*SHA-256.*start again without --c"):
            again.on_train_start()


@pytest.fixture
def saved_run(nnunet, variant):
    """checkpoint_latest.pth of the student alone, a function that alters it, and a trainer that continues it."""
    plans = variant("altered")
    trainer = make_trainer(nnunet, "nnUNetTrainerStudent", plans)
    trainer.initialize()
    file = Path(trainer.output_folder) / "checkpoint_altered.pth"

    def altered(change):
        trainer.save_checkpoint(str(file))
        content = load(file)
        change(content)
        torch.save(content, file)
        return str(file)

    return altered, make_trainer(nnunet, "nnUNetTrainerStudent", plans, continue_training=True)


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize("key", ["network_class_name", "nonlin"])
def test_a_checkpoint_whose_plans_would_run_code_is_refused_before_they_do(saved_run, tmp_path, key):
    altered, trainer = saved_run
    marker = tmp_path / "marker"

    def attack(content):
        block = content["init_args"]["plans"]["configurations"]["2d"]["architecture"]
        (block if key == "network_class_name" else block["arch_kwargs"])[key] = "os.system"
        block["arch_kwargs"]["nonlin_kwargs"] = {"command": f"touch {marker}"}

    with pytest.raises(ValueError, match=r"asks to import 'os\.system'"):
        trainer.load_checkpoint(altered(attack))
    assert not marker.exists()


@pytest.mark.faults("hostile files")
def test_a_checkpoint_whose_plans_ask_for_another_network_than_its_weights_builds_none(saved_run):
    altered, trainer = saved_run

    def enlarge(content):
        block = content["init_args"]["plans"]["configurations"]["2d"]["architecture"]
        block["arch_kwargs"]["features_per_stage"] = [8192] * 4  # 20 GB

    with pytest.raises(ValueError, match=r"checkpoint_altered\.pth is damaged: RuntimeError: Error\(s\) in loading"):
        trainer.load_checkpoint(altered(enlarge))
    assert trainer.network is None


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize("key", ["optimizer_state", "current_epoch", "logging", "_best_ema"])
def test_a_checkpoint_that_lacks_something_is_damaged(saved_run, key):
    altered, trainer = saved_run
    with pytest.raises(ValueError, match=rf"checkpoint_altered\.pth is damaged: KeyError: '{key}'"):
        trainer.load_checkpoint(altered(lambda content: content.pop(key)))


def test_resuming_leaves_the_parameters_that_the_optimizer_holds(saved_run):
    """torch keeps `assign` in the weights' metadata: loading once with it replaced the parameters the second time."""
    altered, trainer = saved_run

    def note_assign(content):
        for each in content["network_weights"]._metadata.values():
            each["assign_to_params_buffers"] = True

    trainer.load_checkpoint(altered(note_assign))
    held = {id(each) for group in trainer.optimizer.param_groups for each in group["params"]}
    assert {id(each) for each in trainer.network.parameters()} == held


def test_starting_over_a_run_with_other_settings_is_refused(nnunet, variant, teacher_2d):
    make_trainer(nnunet, "nnUNetTrainerStudent", variant("taken")).run_training()
    trainer = make_trainer(nnunet, "nnUNetTrainerStudent", variant("taken", initial_lr=0.5))
    with pytest.raises(ValueError, match=r"initial_lr: 0.5 here, None there.*plan -name.*--overwrite"):
        trainer.run_training()
