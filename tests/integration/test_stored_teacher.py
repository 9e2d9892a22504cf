"""Stored maps from `nnUNetv2_hlfd teach` to the student: what is made, what is learned from it, what is refused."""

import json
import os
import shutil
import signal
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch
from helpers import assert_same, load, make_trainer, run_epoch, started
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from phantom_data import DATASET, REGIONS_DATASET
from processes import Process, run_script

from nnunetv2_hlfd.benchmark.training_step import STUDENT, TEACHER, benchmark_training
from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.losses.divergence import probabilities
from nnunetv2_hlfd.teacher.checkpoint import LEAK_WARNING
from nnunetv2_hlfd.teacher.stored.dataset import maps_file, open_maps
from nnunetv2_hlfd.teacher.stored.encoding import decode
from nnunetv2_hlfd.teacher.stored.folder import MAPS_JSON, MapsFolder
from nnunetv2_hlfd.training.throwaway import real_batches

VARIABLE = "nnUNet_hlfd_teacher"
KD = "nnUNetTrainerKD"


def teach(plans, *more, dataset=DATASET, configuration="2d"):
    return main(["teach", dataset, configuration, "0", "-p", plans, "-device", "cpu", *more])


def maps_folders(nnunet, dataset=DATASET):
    return sorted((nnunet / "preprocessed" / dataset).glob("*_teacher_*"))


def image_of(trainer, case):
    """A preprocessed image as nnU-Net's validation predicts it."""
    dataset = trainer.dataset_class(
        trainer.preprocessed_dataset_folder, [case], trainer.folder_with_segs_from_previous_stage
    )
    image, _, previous, _ = dataset.load_case(case)
    if previous is None:
        return torch.from_numpy(image[:])
    labels = trainer.label_manager.foreground_labels
    return torch.from_numpy(np.vstack([image[:], convert_labelmap_to_one_hot(previous[:], labels, np.float32)]))


@torch.no_grad()
def predicted(trainer, network, case):
    """A teacher's logits of a training case, which is one patch (or has one patch in each slice)."""
    image, patch = image_of(trainer, case), trainer.configuration_manager.patch_size
    assert list(image.shape[-len(patch) :]) == list(patch)
    network.decoder.deep_supervision = False
    if len(patch) == 2:
        return network(image.moveaxis(1, 0)).moveaxis(0, 1)
    return network(image[None])[0]


def assert_predicted(trainer, network, maps):
    """The stored maps are the probabilities that the teacher predicts, up to the codes."""
    regions = trainer.label_manager.has_regions
    for case in trainer.do_split()[0][:2]:
        codes = torch.from_numpy(open_maps(maps_file(maps, case))[:])[None].float()
        logits = predicted(trainer, network, case)[None]
        for temperature in (1.0, 4.0):
            found, expected = (probabilities(each, temperature, regions) for each in (decode(codes, regions), logits))
            assert (found - expected).abs().max() < 0.025


@pytest.fixture(scope="module")
def plans(variant, teacher_2d):
    return variant("stored", base="nnUNetPlans_short", teacher_maps="stored")


@pytest.fixture(scope="module")
def maps(nnunet, plans):
    """The folder of the 2d teacher's maps, made by the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(VARIABLE, raising=False)
        before = set(nnunet.rglob("*"))
        with pytest.raises(
            ValueError, match=rf"No stored maps of the teacher in .*: nnUNetv2_hlfd teach {DATASET} 2d 0 -p"
        ):
            make_trainer(nnunet, KD, plans).check_start()
        assert teach(plans, "--dry_run") == 0
        assert set(nnunet.rglob("*")) == before
        assert teach(plans) == 0
    [folder] = set(maps_folders(nnunet)) - before
    assert {file for file in set(nnunet.rglob("*")) - before if folder not in file.parents} == {folder}
    return folder


@pytest.fixture
def altered(maps, tmp_path):
    """The same folder; what a test does to it is undone."""
    shutil.copytree(maps, tmp_path / "maps")
    yield maps
    shutil.rmtree(maps)
    shutil.copytree(tmp_path / "maps", maps)


# What is made


def test_the_maps_are_what_prediction_makes_of_the_training_cases(nnunet, plans, maps, teacher_2d, capsys):
    trainer = make_trainer(nnunet, KD, plans)
    trainer.check_start()
    cases = trainer.do_split()[0]
    assert sorted(file.name for file in maps.iterdir()) == sorted([*(f"{case}.b2nd" for case in cases), MAPS_JSON])
    assert_predicted(trainer, trainer.load_teacher().networks[0].network, maps)
    capsys.readouterr()
    assert teach(plans) == 0
    assert f"{len(cases)} training cases have their maps in {maps}\n" in capsys.readouterr().out


def test_the_amount_of_work_is_said_before_it_is_done(plans, altered, capsys):
    [gone, *_] = altered.glob("*.b2nd")
    gone.unlink()
    assert teach(plans, "--dry_run") == 0
    assert not gone.exists()
    printed = capsys.readouterr().out
    assert "1 cases, about " in printed
    assert " minutes, at most " in printed
    assert teach(plans) == 0
    assert gone.exists()


KILL = """
import os, signal, sys
from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.teacher.stored import folder
write, calls = folder.write_json, []
def die(*arguments):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)  # the maps of the second case are there, maps.json does not know
    write(*arguments)
folder.write_json = die
main(sys.argv[1:])
"""


@pytest.mark.faults("killed processes")
def test_after_a_kill_the_same_command_goes_on(plans, tmp_path, altered):
    whole = {file.name: file.read_bytes() for file in altered.iterdir()}
    shutil.rmtree(altered)
    arguments = ["teach", DATASET, "2d", "0", "-p", plans, "-device", "cpu"]
    script = tmp_path / "kill.py"
    script.write_text(KILL)
    with Process(run_script, (script, arguments), os.environ, tmp_path / "printed") as process:
        assert process.wait() == -signal.SIGKILL, process.stderr
    assert len(MapsFolder.read(altered).cases) == 1
    first = next(iter(MapsFolder.read(altered).cases))
    untouched = maps_file(altered, first).stat().st_mtime_ns
    assert teach(plans) == 0
    assert maps_file(altered, first).stat().st_mtime_ns == untouched
    assert MapsFolder.read(altered).cases.keys() == json.loads(whole[MAPS_JSON])["cases"].keys()
    for name in whole.keys() - {MAPS_JSON}:
        found, expected = open_maps(altered / name)[:], blosc2.ndarray_from_cframe(whole[name])[:]
        np.testing.assert_array_equal(found, expected)


def _untrained_teacher(nnunet, dataset, configuration, plans):
    """A model folder whose network has the weights that it starts with."""
    trainer = make_trainer(nnunet, "nnUNetTrainerTeacher", plans, dataset=dataset, configuration=configuration)
    trainer.on_train_start()
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    return Path(trainer.output_folder_base)


def _previous_stage(nnunet, dataset):
    """A 3d_lowres model that has predicted the true labels of all cases."""
    name = "nnUNetTrainerMade__nnUNetPlans__3d_lowres"
    folder = nnunet / "results" / dataset / name / "predicted_next_stage/3d_cascade_fullres"
    folder.mkdir(parents=True, exist_ok=True)
    for file in (nnunet / "preprocessed" / dataset / "nnUNetPlans_3d_fullres").glob("*_seg.b2nd"):
        labels = blosc2.open(str(file))[:][0].clip(0, 2).astype(np.uint8)
        target = folder / file.name.replace("_seg", "")
        target.unlink(missing_ok=True)
        blosc2.asarray(labels, urlpath=str(target))
    return name


@pytest.mark.parametrize(
    ("dataset", "configuration"),
    [(DATASET, "3d_fullres"), (REGIONS_DATASET, "2d"), (REGIONS_DATASET, "3d_cascade_fullres")],
    ids=["3d", "regions with ignore label", "cascade"],
)
def test_maps_of_every_kind_of_data_are_learned_from(nnunet, variant, monkeypatch, dataset, configuration):
    stage = {"previous_stage": _previous_stage(nnunet, dataset)} if "cascade" in configuration else {}
    teacher = _untrained_teacher(nnunet, dataset, configuration, variant("untrained", dataset=dataset, **stage))
    monkeypatch.setenv(VARIABLE, str(teacher))
    plans = variant(
        "untrained.stored", dataset=dataset, base="nnUNetPlans_untrained", teacher_maps="stored", teacher_fold=0
    )
    before = maps_folders(nnunet, dataset)
    assert teach(plans, dataset=dataset, configuration=configuration) == 0
    [maps] = set(maps_folders(nnunet, dataset)) - set(before)
    trainer = make_trainer(nnunet, KD, plans, dataset=dataset, configuration=configuration)
    trainer.on_train_start()
    assert_predicted(trainer, trainer.load_teacher().networks[0].network, maps)
    run_epoch(trainer)
    assert trainer.distiller.log.rows[0]["kd"] > 0


def test_crossfit_takes_each_map_from_the_fold_that_held_the_case_out(
    nnunet, variant, teacher_2d, tmp_path, monkeypatch, capsys
):
    model = tmp_path / teacher_2d.parent.name
    folds = json.loads((nnunet / f"preprocessed/{DATASET}/splits_final.json").read_text())
    ignored = shutil.ignore_patterns("*.nii.gz", "*.npz", "checkpoint_best.pth", "checkpoint_latest.pth")
    for number, fold in enumerate(folds):
        shutil.copytree(teacher_2d, model / f"fold_{number}", ignore=ignored)
        results = {"metric_per_case": [{"prediction_file": f"{case}.nii.gz"} for case in fold["val"]]}
        (model / f"fold_{number}/validation/summary.json").write_text(json.dumps(results))
    for name in ("plans.json", "dataset.json"):
        shutil.copy(teacher_2d.parent / name, model)
    monkeypatch.setenv(VARIABLE, str(model))
    plans = variant("crossfit", base="nnUNetPlans_short", teacher_maps="crossfit")
    before = maps_folders(nnunet)
    assert teach(plans) == 0
    [maps] = set(maps_folders(nnunet)) - set(before)
    made_by = {case: entry["networks"] for case, entry in MapsFolder.read(maps).cases.items()}
    assert made_by == {case: [number] for number, fold in enumerate(folds) for case in fold["val"] if number}
    trainer = make_trainer(nnunet, KD, plans)
    trainer.check_start()
    assert LEAK_WARNING in trainer.describe()
    suspected = [origin["may_have_seen_validation_cases"] for origin in trainer.distiller.origin]
    assert suspected == [False, True, True, True, True]
    shutil.rmtree(model / "fold_3/validation")
    capsys.readouterr()
    assert teach(plans) == 2
    assert f"No validation of the teacher in {model} has {folds[3]['val'][0]}" in capsys.readouterr().err


# What is learned


def test_with_factor_zero_the_student_is_the_student_alone_bit_for_bit(nnunet, variant, plans, maps):
    zero = variant("stored.zero", base="nnUNetPlans_short", teacher_maps="stored", weights={"KD": 0})
    trainers = [make_trainer(nnunet, name, zero) for name in (KD, "nnUNetTrainerStudent")]
    for trainer in trainers:
        trainer.run_training()
    distilled, alone = (load(Path(trainer.output_folder) / "checkpoint_final.pth") for trainer in trainers)
    assert_same(distilled["network_weights"], alone["network_weights"])
    assert_same(distilled["optimizer_state"]["state"], alone["optimizer_state"]["state"])
    assert min(row["kd"] for row in trainers[0].distiller.log.rows) > 0


@pytest.fixture(scope="module")
def whole_run(nnunet, variant, plans, maps):
    """Fold folder of a student that was trained on stored maps without interruption, every second step without."""
    trainer = make_trainer(
        nnunet, KD, variant("stored.whole", base="nnUNetPlans_short", teacher_maps="stored", teach_every=2)
    )
    trainer.run_training()
    return Path(trainer.output_folder)


def _interrupted(nnunet, plans):
    """The checkpoint of a training that ends after one of two epochs."""
    trainer = make_trainer(nnunet, KD, plans)
    trainer.on_train_start()
    run_epoch(trainer)
    return str(Path(trainer.output_folder) / "checkpoint_latest.pth")


def test_a_continued_run_equals_the_uninterrupted_one(nnunet, variant, plans, whole_run):
    parts = variant("stored.parts", base="nnUNetPlans_short", teacher_maps="stored", teach_every=2)
    checkpoint = _interrupted(nnunet, parts)
    trainer = make_trainer(nnunet, KD, parts, continue_training=True)
    trainer.load_checkpoint(checkpoint)
    trainer.run_training()
    expected, got = (load(folder / "checkpoint_final.pth") for folder in (whole_run, Path(trainer.output_folder)))
    for key in ("network_weights", "optimizer_state"):
        assert_same(got[key], expected[key])
    assert got["hlfd"]["teacher"] == expected["hlfd"]["teacher"]


def test_the_record_names_the_teacher_its_size_and_the_maps(nnunet, variant, maps, whole_run):
    live = make_trainer(nnunet, KD, variant("live", base="nnUNetPlans_short"))
    live.check_start()
    recorded, expected = json.loads((whole_run / "distillation.json").read_text())["teacher"], live._record()["teacher"]
    [origin], [expected_origin] = recorded["networks"], expected["networks"]
    assert origin.pop("maps") == str(maps)
    assert len(origin.pop("maps_sha256")) == 64
    assert origin == json.loads(json.dumps(expected_origin))
    assert {key: recorded[key] for key in ("parameters", "macs")} == {
        key: expected[key] for key in ("parameters", "macs")
    }


def test_validation_and_export_need_no_maps(nnunet, train, plans, altered, whole_run, tmp_path):
    shutil.rmtree(altered)
    shutil.rmtree(whole_run / "validation", ignore_errors=True)
    name = whole_run.parent.name.split("__")[1]
    train(KD, plans=name, only_run_validation=True)
    assert (whole_run / "validation/summary.json").is_file()
    assert main(["export", "-m", str(whole_run.parent), "-o", str(tmp_path)]) == 0
    altered.mkdir()


@pytest.mark.parametrize(
    ("name", "term"), [(KD, "kd"), ("nnUNetTrainerSoftLabel", "soft_label"), ("nnUNetTrainerIMF", "imf_merged")]
)
def test_stored_and_live_teacher_teach_the_same(nnunet, variant, plans, maps, name, term):
    """On whole slices, which are one tile of the teacher and are not augmented; the methods of the final map."""
    stored = make_trainer(nnunet, name, plans)
    live = make_trainer(nnunet, name, variant("live", base="nnUNetPlans_short"))
    for trainer in (stored, live):
        trainer.check_start()
    case = stored.do_split()[0][0]
    image = image_of(live, case).moveaxis(1, 0)
    patch = live.configuration_manager.patch_size
    assert list(image.shape[2:]) == list(patch)
    codes = torch.from_numpy(open_maps(maps_file(maps, case))[:]).float().moveaxis(1, 0)
    target = torch.zeros(len(image), 1, *patch)
    terms = []
    for trainer, batch in ((stored, torch.cat([image, codes], dim=1)), (live, image)):
        data, shown = trainer.distiller.split(batch)
        assert torch.equal(data, image)
        with torch.no_grad():
            outputs = live.distiller.run_student(live.network, data)
            terms.append(trainer.distiller.terms(outputs, trainer.distiller.ask_teacher(shown), target)[term].item())
    assert terms[0] == pytest.approx(terms[1], abs=0.02, rel=0.02)


def test_cases_that_an_older_nnunet_has_stored_as_npz_are_taught_too(nnunet, plans, maps):
    """Bit for bit as those that are stored as b2nd."""
    folder = nnunet / "preprocessed" / DATASET
    content = json.loads((folder / f"{plans}.json").read_text())
    data = folder / content["configurations"]["2d"]["data_identifier"]
    content["configurations"]["2d"]["data_identifier"] = "older_2d"
    content["plans_name"] = f"{plans}.older"
    (folder / f"{plans}.older.json").write_text(json.dumps(content))
    (folder / "older_2d").mkdir()
    for case in nnUNetDatasetBlosc2.get_identifiers(str(data)):
        image, segmentation, _, properties = nnUNetDatasetBlosc2(str(data)).load_case(case)
        nnUNetDatasetNumpy.save_case(image[:], segmentation[:], properties, str(folder / "older_2d" / case))
    assert teach(f"{plans}.older") == 0
    [older] = folder.glob("older_2d_teacher_*")
    batches = []
    for name in (f"{plans}.older", plans):
        trainer = started(make_trainer(nnunet, KD, name))
        batches.append(next(trainer.dataloader_train))
        for case in trainer.do_split()[0]:
            np.testing.assert_array_equal(*(open_maps(maps_file(each, case))[:] for each in (older, maps)))
    assert_same(*([batch["data"], batch["target"]] for batch in batches))


@pytest.mark.parametrize("processes", ["0", "2"])
def test_batches_carry_the_maps_of_their_patches_from_any_number_of_processes(
    nnunet, plans, maps, monkeypatch, processes
):
    monkeypatch.setenv("nnUNet_n_proc_DA", processes)
    trainer = make_trainer(nnunet, KD, plans)
    trainer.check_start()
    for batch in real_batches(trainer, 3):
        data, shown = trainer.distiller.split(batch["data"])
        assert (data.shape[1], shown.shape[1]) == (1, 3)
        assert 0 < shown.max() <= 255.001
        assert trainer.distiller.ask_teacher(shown).probabilities(0, 1.0, regions=False).isfinite().all()
    assert str(trainer.distiller.stored) == f"StoredTeacher({maps.name})"


def test_weights_can_be_inherited_from_the_teacher_whose_maps_are_stored(nnunet, variant, plans, maps):
    inheriting = variant(
        "stored.inherits", base="nnUNetPlans_short", teacher_maps="stored", student="unet_w2", initial_weights="teacher"
    )
    trainer = make_trainer(nnunet, KD, inheriting)
    trainer.check_start()
    assert trainer.inherited["initial_weights"]["sha256"] == trainer.distiller.origin[0]["sha256"]
    assert trainer.distiller.stored


def test_the_benchmark_has_a_row_for_a_step_on_stored_maps(plans, maps, teacher_2d):
    rows = benchmark_training(DATASET, "2d", "0", plans, [KD], "cpu", None)
    assert [row.name for row in rows] == [STUDENT, TEACHER, f"{KD}, stored maps"]
    assert sum(rows[-1].parts.values()) == pytest.approx(100)


# What is refused


def test_methods_that_need_more_than_the_final_map_ask_for_it(nnunet, variant, plans, maps):
    with pytest.raises(
        ValueError, match=r"No stored maps with all that nnUNetTrainerHLFD needs .* --needs_of nnUNetTr"
    ):
        make_trainer(nnunet, "nnUNetTrainerHLFD", plans).check_start()
    combined = variant("stored.combined", base="nnUNetPlans_short", teacher_maps="stored", weights={"AT": 1})
    with pytest.raises(ValueError, match=r"No stored maps with all that nnUNetTrainerKD needs .* --needs_of nnU"):
        make_trainer(nnunet, KD, combined).check_start()


def test_maps_of_data_that_were_preprocessed_anew_are_refused(nnunet, plans, altered):
    content = json.loads((altered / MAPS_JSON).read_text())
    case = sorted(content["cases"])[0]
    content["cases"][case]["data"]["bytes"] += 1
    (altered / MAPS_JSON).write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=rf"The maps of {case} in .* from other preprocessed data .*nnUNetv2_hlfd teach"
    ):
        make_trainer(nnunet, KD, plans).check_start()


def test_other_maps_than_those_that_a_run_was_started_with_are_refused(nnunet, variant, plans, altered):
    other = variant("stored.other", base="nnUNetPlans_short", teacher_maps="stored")
    checkpoint = _interrupted(nnunet, other)
    trainer = make_trainer(nnunet, KD, other, continue_training=True)
    trainer.load_checkpoint(checkpoint)
    folder = MapsFolder.read(altered)
    case = trainer.do_split()[0][0]
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, [case])
    folder.add(case, open_maps(maps_file(altered, case))[:] ^ 1, dataset, patch_size=(48, 48), networks=[0])
    with pytest.raises(
        ValueError, match=r"This run was started with another teacher: expected .*, stored maps \w{12}\)"
    ):
        trainer.check_start()


def test_a_step_size_that_is_none_is_refused(plans, capsys):
    assert teach(plans, "-step_size", "0") == 2
    assert "Expected a -step_size above 0, at most 1, got 0.0." in capsys.readouterr().err
