"""A finished model while its fold is tried out or trained anew: it stays as it is until there is something better."""

import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
from helpers import load, make_trainer
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from processes import Process

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.models.checkpoints import sha256
from nnunetv2_hlfd.training.replacement import Replacement
from nnunetv2_hlfd.utilities.errors import UserError

DATASET = "Dataset901_Phantom"
STUDENT = "nnUNetTrainerStudent"


def files(folder):
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def model(nnunet, train, variant):
    """A finished model, and plans of its name with another setting since."""
    fold = train(STUDENT, plans=variant("anew", beta=0.9))
    variant("anew", beta=1.8)
    yield fold.parent
    shutil.rmtree(fold.parent)


def command(*more):
    return ["train", DATASET, "2d", "0", "-tr", STUDENT, "-p", "nnUNetPlans_anew", "-device", "cpu", *more]


@pytest.mark.faults("killed processes")
def test_a_dry_run_touches_no_file_of_a_finished_model_even_for_a_moment(model, tmp_path):
    """The second is killed as soon as it has temporary files; the third removes them."""
    before, temporary = files(model), Path(tempfile.gettempdir())
    left = set()
    for kill in (False, True, False):
        with Process(main, (command("--dry_run", "--overwrite"),), os.environ, tmp_path / f"{kill}") as process:
            while process.poll() is None:
                assert files(model) == before
                logs = temporary.glob(".partial-*/Dataset*/*/fold_0/training_log*")
                if kill and (left := {log for log in logs if f"-{process.pid}-" in str(log)}):
                    process.kill()
                time.sleep(0.001)
            assert kill or "Dry run: nothing was trained or written." in process.stdout, process.stderr
        assert files(model) == before
        assert {log for log in left if log.is_file()} == (left if kill else set())
    assert left


def trainer_that(nnunet, plans, hook, error):
    """A student trainer that ends in one of nnU-Net's hooks."""
    plain = recursive_find_trainer_class_by_name(STUDENT)

    def end(self, *arguments):
        getattr(plain, hook)(self, *arguments)
        raise error

    ending = type(STUDENT, (plain,), {hook: end, "defaults": plain.defaults, "__init__": plain.__init__})
    return make_trainer(nnunet, STUDENT, plans, trainer_class=ending)


@pytest.mark.faults("errors in the middle of the work")
@pytest.mark.parametrize("hook", ["check_start", "on_validation_epoch_end"])
def test_a_run_that_ends_without_a_checkpoint_leaves_the_earlier_one(model, nnunet, monkeypatch, hook):
    before = files(model)
    monkeypatch.setenv("nnUNet_hlfd_overwrite", "1")
    trainer = trainer_that(nnunet, "nnUNetPlans_anew", hook, UserError("ended"))
    with pytest.raises(UserError, match="ended"):
        trainer.run_training()
    after = files(model)
    log = after.pop(str(Path(trainer.log_file).relative_to(model)), None)
    assert after == before
    assert (log is None) == (hook == "check_start"), "a refused run leaves nothing; one that has begun leaves its log"


@pytest.mark.faults("killed processes")
def test_a_killed_start_leaves_the_earlier_run_and_the_next_one_replaces_it(model, tmp_path):
    """Killed when nnU-Net has written its description of the new run."""
    before = files(model)
    with Process(main, (command("--overwrite"),), os.environ, tmp_path / "killed") as process:
        while not list(model.glob(".new_fold_0/fold_0/debug.json")):
            assert process.poll() is None, process.stderr
        process.kill()
    after = files(model)
    assert {name: after[name] for name in before} == before
    assert main(command("--overwrite")) == 0
    assert json.loads((model / "plans.json").read_text())["hlfd"]["settings"]["beta"] == 1.8
    content = load(model / "fold_0/checkpoint_final.pth")
    assert content["hlfd"]["given"]["beta"] == 1.8
    assert sha256(model / "fold_0/checkpoint_best.pth") != before["fold_0/checkpoint_best.pth"]
    assert len(list((model / "fold_0").glob("training_log*"))) == 1
    assert {path.name for path in model.iterdir()} == {
        "fold_0",
        "plans.json",
        "dataset.json",
        "dataset_fingerprint.json",
    }


@pytest.mark.faults("errors in the middle of the work")
def test_at_any_moment_there_is_a_checkpoint_that_fits_its_plans(model, nnunet, monkeypatch):
    """The first checkpoint brings the plans along, and takes the results of the earlier run away."""
    monkeypatch.setenv("nnUNet_hlfd_overwrite", "1")
    trainer = trainer_that(nnunet, "nnUNetPlans_anew", "on_epoch_end", UserError("ended"))
    with pytest.raises(UserError, match="ended"):
        trainer.run_training()
    assert json.loads((model / "plans.json").read_text())["hlfd"]["settings"]["beta"] == 1.8
    assert load(model / "fold_0/checkpoint_best.pth")["hlfd"]["given"]["beta"] == 1.8
    assert not (model / "fold_0/checkpoint_final.pth").exists()
    assert not (model / "fold_0/validation").exists()
    assert not list(model.glob(".*"))


def train_until(step, how):
    """Train anew until the runs change places, and end there."""
    os.environ["nnUNet_hlfd_overwrite"] = "1"

    def end(*_):
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.EIO, "the disk fails")

    setattr(Replacement, step, end)
    sys.exit(main(command()))


@pytest.mark.faults("killed processes")
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("continues", [True, False])
@pytest.mark.parametrize(("step", "how"), [("_publish_descriptions", "kill"), ("_take_place", "error")])
def test_a_run_that_is_ended_while_it_takes_the_place_of_the_earlier_one_is_there_at_the_next_start(
    model, nnunet, tmp_path, step, how, continues
):
    before = files(model)
    with Process(train_until, (step, how), os.environ, tmp_path / "ended") as process:
        assert process.wait() != 0
    kept = files(model / ".old_fold_0")
    assert kept == {name.removeprefix("fold_0/"): sha for name, sha in before.items() if name.startswith("fold_0/")}
    trainer = make_trainer(nnunet, STUDENT, "nnUNetPlans_anew", continue_training=continues)
    assert load(model / "fold_0/checkpoint_best.pth")["hlfd"]["given"]["beta"] == 1.8
    assert json.loads((model / "plans.json").read_text())["hlfd"]["settings"]["beta"] == 1.8
    assert not list(model.glob(".*"))
    assert Path(trainer.log_file).is_file()
    if continues:
        maybe_load_checkpoint(trainer, True, False)
        assert trainer.resumed
