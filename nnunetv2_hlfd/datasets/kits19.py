"""KiTS19 (Heller et al., arXiv 1904.00445) as its repository and download script lay it out."""

import re
from pathlib import Path

from nnunetv2_hlfd.datasets.challenge import Challenge, SourceCase


def find_cases(source: Path) -> list[SourceCase]:
    """Find the cases of `[data/]case_00000/{imaging,segmentation}.nii.gz`.

    The arrays' first axis is the slice axis (z, y, x), and the affine says so: nothing has to be turned.
    """
    data = source / "data" if (source / "data").is_dir() else source
    folders = sorted(path for path in data.glob("case_*") if re.fullmatch(r"case_\d{5}", path.name) and path.is_dir())
    return [_case(folder) for folder in folders]


def _case(folder: Path) -> SourceCase:
    image, label = folder / "imaging.nii.gz", folder / "segmentation.nii.gz"
    return SourceCase(
        name=folder.name, image=image if image.is_file() else None, label=label if label.is_file() else None
    )


KITS19 = Challenge(
    name="kits19",
    dataset="Dataset019_KiTS19",
    organ="kidney",
    find_cases=find_cases,
    layout="case_00000/imaging.nii.gz and segmentation.nii.gz in the folder or its subfolder data",
    reference="https://kits19.grand-challenge.org, arXiv 1904.00445",
)
