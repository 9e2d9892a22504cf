"""What stored maps add to nnU-Net's augmentation, which cuts and warps them with the image.

python docs/benchmarks/augmentation_cost.py DATASET CONFIGURATION FOLD PLANS OUTPUT.csv TRAINER...

PLANS say `teacher_maps stored`. Batches of the student alone and of every trainer are augmented in one process, in
turns. OUTPUT gets the seconds of a batch (median) and their ratio to the student alone within a round (median).
"""

import contextlib
import os
import sys
from pathlib import Path

import pandas as pd

from nnunetv2_hlfd.training.throwaway import throwaway_trainer
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search
from nnunetv2_hlfd.utilities.timing import seconds_of

ALONE = "nnUNetTrainerStudent"
WARM_UP, ROUNDS = 3, 30


def main(dataset: str, configuration: str, fold: str, plans: str, output: Path, trainers: list[str]) -> None:
    """Measure and write."""
    os.environ["nnUNet_n_proc_DA"] = "0"  # in this process
    extend_trainer_search()
    with contextlib.ExitStack() as stack:
        loaders = {}
        for name in (ALONE, *trainers):
            trainer = stack.enter_context(throwaway_trainer(dataset, configuration, fold, name, plans, "cpu"))
            trainer.check_start()
            loaders[name] = trainer.get_dataloaders()[0]
        rounds = [
            {name: seconds_of(lambda loader=loader: next(loader)) for name, loader in loaders.items()}
            for _ in range(WARM_UP + ROUNDS)
        ][WARM_UP:]
    seconds = pd.DataFrame(rounds)
    table = pd.DataFrame({"seconds": seconds.median(), "to_student": seconds.div(seconds[ALONE], axis=0).median()})
    table.to_csv(output, index_label="trainer", float_format="%.4f")
    print(table)


if __name__ == "__main__":
    main(*sys.argv[1:5], Path(sys.argv[5]), sys.argv[6:])
