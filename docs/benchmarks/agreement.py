"""How far two folders of segmentations agree: Dice of every case and label, and whether type and geometry are equal.

python docs/benchmarks/agreement.py EXPECTED PREDICTED [MINIMUM_VOXELS]

Labels of at most MINIMUM_VOXELS (100) voxels in EXPECTED are left out.
"""

import sys
from pathlib import Path

import numpy as np
import SimpleITK


def main(expected: Path, predicted: Path, minimum: int) -> None:
    """Print the worst and the mean."""
    values = []
    for file in sorted(expected.glob("*.nii.gz")):
        one, other = (SimpleITK.ReadImage(str(folder / file.name)) for folder in (expected, predicted))
        same = [getattr(one, each)() == getattr(other, each)()
                for each in ("GetPixelID", "GetSize", "GetSpacing", "GetOrigin", "GetDirection")]  # fmt: skip
        assert all(same), f"{file.name}: another type or geometry"
        ours, theirs = (SimpleITK.GetArrayViewFromImage(each) for each in (one, other))
        for label in np.unique(ours[ours > 0]):
            size = (ours == label).sum()
            if size > minimum:
                overlap = ((ours == label) & (theirs == label)).sum()
                values.append((2 * overlap / (size + (theirs == label).sum()), file.name, int(label)))
    worst = min(values)
    print(f"{len(values)} cases and labels: worst Dice {worst[0]:.5f} ({worst[1]}, label {worst[2]}), mean "
          f"{np.mean([each[0] for each in values]):.5f}")  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 100)
