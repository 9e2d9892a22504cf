"""LiTS (Bilic et al., MedIA 2023), as the challenge or the Medical Segmentation Decathlon (Task03_Liver) has it.

Both number their training scans alike.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from nnunetv2_hlfd.datasets.challenge import Challenge, SourceCase

_LITS = re.compile(r"(?P<test>test-)?(?P<role>volume|segmentation)-(?P<number>\d+)\.nii(\.gz)?")
_DECATHLON = re.compile(r"liver_(?P<number>\d+)\.nii\.gz")


def find_cases(source: Path) -> list[SourceCase]:
    """Find the cases of `volume-0.nii` and `segmentation-0.nii` in any subfolders, or of a decathlon's folders."""
    files: dict[str, dict[str, list[Path]]] = defaultdict(lambda: {"image": [], "label": []})
    found = _decathlon(source) if (source / "imagesTr").is_dir() else _lits(source)
    for name, role, file in found:
        files[name][role].append(file)
    return [_case(name, files[name]["image"], files[name]["label"]) for name in sorted(files)]


def _lits(source: Path) -> Iterable[tuple[str, str, Path]]:
    for file in sorted(source.rglob("*.nii*")):
        match = _LITS.fullmatch(file.name)
        if match and file.is_file():
            name = f"{'test' if match['test'] else 'liver'}_{int(match['number']):03d}"
            yield name, "image" if match["role"] == "volume" else "label", file


def _decathlon(source: Path) -> Iterable[tuple[str, str, Path]]:
    for folder, role in (("imagesTr", "image"), ("labelsTr", "label"), ("imagesTs", "image")):
        for file in sorted((source / folder).glob("*.nii.gz")):
            if match := _DECATHLON.fullmatch(file.name):
                yield f"liver_{int(match['number']):03d}", role, file


def _case(name: str, images: list[Path], labels: list[Path]) -> SourceCase:
    problem = "; ".join(
        f"{len(files)} {role}: {' and '.join(f'{file.parent.name}/{file.name}' for file in files)}"
        for role, files in (("images", images), ("labels", labels))
        if len(files) > 1
    )
    return SourceCase(
        name=name, image=images[0] if images else None, label=labels[0] if labels else None, problem=problem
    )


LITS = Challenge(
    name="lits",
    dataset="Dataset017_LiTS",
    organ="liver",
    find_cases=find_cases,
    layout="volume-0.nii and segmentation-0.nii (or .nii.gz) in the folder or its subfolders, or imagesTr and labelsTr "
    "with liver_0.nii.gz",
    reference="https://competitions.codalab.org/competitions/17094, doi 10.1016/j.media.2022.102680",
)
