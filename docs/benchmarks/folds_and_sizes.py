"""What a study's page says beside the report: Dice of every fold, and differences by fold and by size of the lesion.

python docs/benchmarks/folds_and_sizes.py FOLDER

FOLDER holds cases.csv of one label and one seed an arm, with the arms `teacher` and `alone`.
"""

import sys
from pathlib import Path

import pandas as pd

from nnunetv2_hlfd.report.bootstrap import Bootstrap
from nnunetv2_hlfd.report.formatting import format_interval

_QUARTERS = 4


def main(folder: Path) -> None:
    """Print the tables."""
    cases = pd.read_csv(folder / "cases.csv")
    dice = cases.pivot_table(index=["fold", "case"], columns="arm", values="dice")
    voxels = cases[cases["arm"] == "alone"].set_index(["fold", "case"])["n_ref"]
    gain = dice.drop(columns="alone").sub(dice["alone"], axis=0)
    later = gain[gain.index.get_level_values("fold") > 0]
    quarters = gain.groupby(pd.qcut(voxels, _QUARTERS), observed=True)
    print(f"Dice\n{dice.groupby('fold').mean().round(3)}")
    print("\nFolds but 0, minus alone")
    for arm in later:
        print(f"{arm}: {format_interval(Bootstrap(len(later)).mean(later[arm].to_numpy()))}")
    print("\nAll folds, minus teacher")
    for arm in dice.drop(columns="teacher"):
        difference = (dice[arm] - dice["teacher"]).to_numpy()
        print(f"{arm}: {format_interval(Bootstrap(len(dice)).mean(difference))}")
    print(f"\nMinus alone, by voxels of the label\n{quarters.mean().round(3).assign(cases=quarters.size())}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
