"""How far two folders of segmentations agree: Dice of every case and label, and whether type and geometry are equal.

python docs/benchmarks/agreement.py EXPECTED PREDICTED [MINIMUM_VOXELS]

Labels of at most MINIMUM_VOXELS (100) voxels in EXPECTED are left out.
"""

import sys
from pathlib import Path

import numpy as np
import SimpleITK

from nnunetv2_hlfd.utilities.dice import dice


def main(expected: Path, predicted: Path, minimum: int) -> None:
    """Print the worst and the mean."""
    values = []
    for file in sorted(expected.glob("*.nii.gz")):
        one, other = (SimpleITK.ReadImage(str(folder / file.name)) for folder in (expected, predicted))
        assert _header(one) == _header(other), f"{file.name}: another type or geometry"
        reference, prediction = (SimpleITK.GetArrayViewFromImage(image) for image in (one, other))
        for label in np.unique(reference[reference > 0]):
            if (reference == label).sum() > minimum:
                values.append((dice(prediction == label, reference == label), file.name, int(label)))
    worst, mean = min(values), np.mean([value for value, _, _ in values])
    print(f"{len(values)} cases and labels: worst Dice {worst[0]:.5f} ({worst[1]}, label {worst[2]}), mean {mean:.5f}")


def _header(image: SimpleITK.Image) -> tuple[object, ...]:
    return (image.GetPixelID(), image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 100)
