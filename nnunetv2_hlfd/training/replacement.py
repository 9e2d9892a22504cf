"""What nnU-Net writes at the start of a training, whole or not at all, and never over a run that is still needed."""

import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_hlfd.models.fold import BEST, FINAL, LATEST, FoldFolder
from nnunetv2_hlfd.utilities.atomic import publish
from nnunetv2_hlfd.utilities.lock import LOCK_FILE, locked

_CURVES = "wandb"  # of the new run already: nnU-Net replaces them where a trainer is made


class Replacement:
    """A hidden folder in which a trainer starts.

    nnU-Net writes plans.json, dataset.json and more in place before it trains: a kill in between leaves half of them.
    Where the fold holds an earlier run, they would describe checkpoints that they do not fit. That run therefore stays
    as it is until the new one has its first checkpoint.

    Args:
        trainer: of the new run, with its final folders.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer: nnUNetTrainer = trainer
        self.model, self.fold = Path(trainer.output_folder_base), Path(trainer.output_folder)
        self.new, self.old = (self.model / f".{age}_{self.fold.name}" for age in ("new", "old"))
        self.started = self.new / self.fold.name
        self.is_active = False

    def begin(self, *, anew: bool) -> None:
        """Send the trainer into a hidden folder, before nnU-Net writes anything.

        Every process of a training calls this; the first makes the folder.

        Args:
            anew: whether the run is not continued.
        """
        self.is_active = anew and _has_checkpoint(self.fold)
        fold = self.started if self.is_active else self.fold
        self.trainer.output_folder_base, self.trainer.output_folder = str(self.new), str(fold)
        if self.trainer.local_rank == 0:
            self._remove()
            self.new.mkdir()
            if self.is_active:
                fold.mkdir()
                self._move_log(fold)
        self._wait_for_others()

    def go_on(self) -> None:
        """Publish what nnU-Net has written beside the folds, and work in the final folders, if no run is replaced."""
        self._wait_for_others()  # each writes these files
        if not self.is_active:
            self._send_back()
            if self.trainer.local_rank == 0:
                self._publish_descriptions()
                self._remove()

    def complete(self) -> None:
        """Let the new run take the place of the earlier one, once it has written a checkpoint."""
        if not self.is_active:
            return
        self.is_active = False
        self._send_back()
        if self.trainer.local_rank == 0:
            self.fold.rename(self.old)
            self._take_place()

    def recover(self) -> None:
        """Finish what an earlier process did not survive: the moment in which the runs change places."""
        if self.trainer.local_rank == 0 and self._is_half_done():
            with locked(self.model, f"a start in {self.fold.name}", name=f".{self.fold.name}{LOCK_FILE}"):
                if self._is_half_done():
                    for made in list(self.fold.iterdir()):  # by nnU-Net's constructor, just now
                        shutil.rmtree(self.started / made.name, ignore_errors=True)
                        made.rename(self.started / made.name)
                    self.fold.rmdir()
                    self._take_place()
        self._wait_for_others()

    def _take_place(self) -> None:
        if (self.old / _CURVES).is_dir() and not (self.started / _CURVES).exists():
            (self.old / _CURVES).rename(self.started / _CURVES)
        self._publish_descriptions()
        self.started.rename(self.fold)
        self.trainer.log_file = str(self.fold / Path(self.trainer.log_file).name)
        self._remove()

    def give_up(self) -> None:
        """Leave the earlier run where it is, if the new one has ended without a checkpoint."""
        self._send_back()
        if self.trainer.local_rank == 0:
            if self.is_active:
                self._move_log(self.fold)  # it says why
            self._remove()
        self.is_active = False

    def _wait_for_others(self) -> None:
        if self.trainer.is_ddp:
            dist.barrier()

    def _send_back(self) -> None:
        self.trainer.output_folder_base, self.trainer.output_folder = str(self.model), str(self.fold)

    def _publish_descriptions(self) -> None:
        for file in [path for path in self.new.iterdir() if path.is_file()]:
            publish(file, self.model / file.name)

    def _move_log(self, folder: Path) -> None:
        log = Path(self.trainer.log_file)
        self.trainer.log_file = str(shutil.move(log, folder / log.name))

    def _is_half_done(self) -> bool:
        return self.old.is_dir() and _has_checkpoint(self.started) and not _has_checkpoint(self.fold)

    def _remove(self) -> None:
        if self._is_half_done():
            return  # both runs are in these folders
        for folder in (self.new, self.old):
            shutil.rmtree(folder, ignore_errors=True)


def _has_checkpoint(fold: Path) -> bool:
    return FoldFolder(fold).first_file(FINAL, BEST, LATEST) is not None
