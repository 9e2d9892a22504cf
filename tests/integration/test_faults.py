"""What goes wrong on real machines: full disks, damaged files, teachers that moved, workers that die."""

import functools
import os
import re
import resource
import shutil
import sys
from pathlib import Path

import pytest
from helpers import load, make_trainer
from killed_training import train
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from processes import Process

from nnunetv2_hlfd.utilities.errors import UserError


@pytest.mark.faults("full, limited and read-only disks")
@pytest.mark.skipif(sys.platform == "win32", reason="RLIMIT_FSIZE is POSIX")
def test_a_full_disk_stops_the_run_with_the_previous_checkpoint_whole_and_the_run_goes_on_afterwards(nnunet, variant):
    """A real EFBIG from the system in the middle of writing a checkpoint of 7 MB, after 2 MB."""
    plans = variant("full", student="resnet18", num_epochs=3)
    plain = recursive_find_trainer_class_by_name("nnUNetTrainerStudent")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Full(plain):
        def on_epoch_start(self):
            super().on_epoch_start()
            if self.current_epoch == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 2**20, limits[1]))

    Full.__name__ = plain.__name__
    trainer = make_trainer(nnunet, "nnUNetTrainerStudent", plans, trainer_class=Full)
    folder = Path(trainer.output_folder)
    try:
        with pytest.raises(
            UserError, match=r"Could not write .*/checkpoint_\w+\.pth: .*previous file, if any, is intact"
        ):
            trainer.run_training()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert load(folder / "checkpoint_latest.pth")["current_epoch"] == 1
    assert load(folder / "checkpoint_best.pth")["current_epoch"] == 1
    assert not list(folder.glob(".partial*"))
    again = make_trainer(nnunet, "nnUNetTrainerStudent", plans, continue_training=True)
    maybe_load_checkpoint(again, True, False)
    assert again.current_epoch == 1
    again.run_training()
    assert load(folder / "checkpoint_final.pth")["current_epoch"] == 3


def continued(nnunet, plans, trainer="nnUNetTrainerStudent"):
    """What `nnUNetv2_train ... --c` does before it trains."""
    again = make_trainer(nnunet, trainer, plans, continue_training=True)
    maybe_load_checkpoint(again, True, False)
    return again


@pytest.mark.faults("truncated and damaged files")
def test_a_truncated_latest_checkpoint_is_named_with_the_whole_one_and_the_run_goes_on_from_that(nnunet, variant):
    plans = variant("truncated", num_epochs=2)
    trainer = make_trainer(nnunet, "nnUNetTrainerStudent", plans)
    trainer.run_training()
    folder = Path(trainer.output_folder)
    latest = folder / "checkpoint_latest.pth"  # nnU-Net removes it at the end of a training
    (folder / "checkpoint_final.pth").rename(latest)
    epoch = load(folder / "checkpoint_best.pth")["current_epoch"]
    latest.write_bytes(latest.read_bytes()[: latest.stat().st_size // 2])
    with pytest.raises(ValueError, match="damaged") as caught:
        continued(nnunet, plans)
    message = str(caught.value)
    assert message.startswith(f"{latest} is damaged or no torch checkpoint")
    assert f"Whole beside it: checkpoint_best.pth (after epoch {epoch})." in message
    assert "Delete or move checkpoint_latest.pth away and run the same command with --c again" in message
    latest.unlink()
    again = continued(nnunet, plans)
    assert again.current_epoch == epoch
    again.run_training()
    assert load(folder / "checkpoint_final.pth")["current_epoch"] == 2
    for name in ("final", "best"):
        file = folder / f"checkpoint_{name}.pth"
        file.write_bytes(file.read_bytes()[:1000])
    latest.unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"No other checkpoint of this run is whole: start it again without --c\."):
        continued(nnunet, plans)


@pytest.mark.faults("errors in the middle of the work")
def test_a_run_whose_teacher_is_gone_says_which_it_was(nnunet, variant, teacher_2d, tmp_path, monkeypatch):
    """test_resume.py has the teacher that changed."""
    teacher = shutil.copytree(teacher_2d.parent, tmp_path / "teacher")
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher))
    plans = variant("gone")
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", plans)
    trainer.on_train_start()
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    shutil.rmtree(teacher)
    again = continued(nnunet, plans, "nnUNetTrainerHLFD")
    with pytest.raises(ValueError, match=r"No teacher found\. Looked at:") as caught:
        again.on_train_start()
    assert f"This run was started with {teacher}/fold_0/checkpoint_final.pth" in str(caught.value)


@pytest.mark.faults("killed processes")
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_data_loading_worker_ends_the_run_with_an_error_and_the_run_goes_on_afterwards(
    nnunet, variant, tmp_path
):
    """Two worker processes, one killed in the second epoch as the kernel does when memory runs out."""
    plans = variant("worker", num_epochs=4, num_iterations_per_epoch=30)

    def run(name, **options):
        call = functools.partial(train, "nnUNetTrainerStudent", plans, **options)
        with Process(call, (), {**os.environ, "nnUNet_n_proc_DA": "2"}, tmp_path / name) as process:
            return process.wait(), process.stdout, process.stderr

    code, *printed = run("killed", continues=False, kills_worker=True)
    assert code != 0
    assert re.search(r"background workers? (are|is) no longer alive", "".join(printed))
    folder = nnunet / "results/Dataset901_Phantom" / f"nnUNetTrainerStudent__{plans}__2d" / "fold_0"
    assert not (folder / "checkpoint_final.pth").exists()
    assert load(folder / "checkpoint_latest.pth")["current_epoch"] == 1
    code, output, error = run("finished", continues=True)
    assert code == 0, error[-3000:]
    assert "starts at 1" in output
    assert load(folder / "checkpoint_final.pth")["current_epoch"] == 4
