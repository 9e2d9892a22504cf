"""Tiny data sets laid out exactly as KiTS19, LiTS and Task03_Liver are downloaded, written by nibabel."""

from pathlib import Path

import nibabel
import numpy as np

SHAPE = (6, 20, 24)  # slices, rows, columns
SPACING = (5.0, 0.75, 0.75)


def scene(seed, shape=SHAPE):
    """HU and labels, axes (z, y, x), that no two orientations of the axes give alike."""
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1024, 1500, shape).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[1:-1, 3:9, 5:14] = 1
    labels[2:4, 4:7, 6:9] = 2
    return hu, labels


def save(array, affine, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), file)


def kits19_affine(spacing=SPACING):
    """That of case_00000: the first axis runs along the patient, downwards, the last one from side to side."""
    z, y, x = spacing
    return np.array([[0, 0, -x, 0], [0, -y, 0, 0], [-z, 0, 0, 0], [0, 0, 0, 1.0]])


def lits_affine(spacing=SPACING):
    z, y, x = spacing
    return np.array([[-x, 0, 0, 171.5], [0, y, 0, -179.25], [0, 0, z, -368.0], [0, 0, 0, 1.0]])


def write_kits19(folder: Path, cases, unlabelled=(), shape=SHAPE) -> Path:
    """`data/case_00000/{imaging,segmentation}.nii.gz`: float32 and uint8 arrays with the axes (z, y, x)."""
    for case in [*cases, *unlabelled]:
        hu, labels = scene(case, shape)
        save(hu, kits19_affine(), folder / f"data/case_{case:05d}/imaging.nii.gz")
        if case in cases:
            save(labels, kits19_affine(), folder / f"data/case_{case:05d}/segmentation.nii.gz")
    (folder / "data/kits.json").write_text("[]")
    return folder


def write_lits(folder: Path, cases, unlabelled=(), ending=".nii") -> Path:
    """`Training Batch 1/volume-0.nii` and `segmentation-0.nii`, `test-volume-0.nii`: arrays with the axes (x, y, z)."""
    for number, case in enumerate(cases):
        hu, labels = scene(case)
        batch = folder / f"Training Batch {1 + number % 2}"
        save(hu.astype(np.int16).T, lits_affine(), batch / f"volume-{case}{ending}")
        save(labels.T, lits_affine(), batch / f"segmentation-{case}{ending}")
    for case in unlabelled:
        save(
            scene(case)[0].astype(np.int16).T,
            lits_affine(),
            folder / f"LITS-Challenge-Test-Data/test-volume-{case}.nii",
        )
    return folder


def write_decathlon(folder: Path, cases, unlabelled=()) -> Path:
    """Task03_Liver, with the files that macOS leaves in its archive."""
    for case in [*cases, *unlabelled]:
        hu, labels = scene(case)
        part = "Tr" if case in cases else "Ts"
        save(hu.T, lits_affine(), folder / f"images{part}/liver_{case}.nii.gz")
        (folder / f"images{part}/._liver_{case}.nii.gz").write_bytes(b"\0\5\x16\7")
        if case in cases:
            save(labels.astype(np.float32).T, lits_affine(), folder / f"labelsTr/liver_{case}.nii.gz")
    (folder / "dataset.json").write_text("{}")
    return folder
