"""A model of three channels that finds blobs in any kind of file, and the files of its cases."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imageio.v3
import nibabel
import numpy as np
import SimpleITK
import tifffile
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from numpy.typing import NDArray

from nnunetv2_hlfd.models.checkpoints import write_checkpoint

Channels = NDArray[Any]  # (3, z, y, x), between 0 and 255
LABELS = {"background": 0, "bright": 1, "dark": 2}


def make_scene(shape: Sequence[int], seed: int) -> tuple[Channels, NDArray[np.uint8]]:
    """A bright and a dark blob in noise, in three channels of 8 bits, and their labels (z, y, x)."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, extent) for extent in shape[1:]), indexing="ij")
    labels = np.zeros(shape, np.uint8)
    for label in (1, 2):
        center = [rng.uniform(-0.2, 0.2), rng.uniform(0.35, 0.5) * (-1) ** label]
        labels[:, sum((axis - at) ** 2 for axis, at in zip(grid, center, strict=True)) < 0.3**2] = label
    gray = 120 + rng.normal(0, 4, shape) + np.choose(labels, (0, 90, -90))
    return np.clip([gray, 0.7 * gray, 255 - gray], 0, 255).astype(np.uint8), labels


def write_model(folder: Path, plans: dict[str, Any], **changes: Any) -> Path:
    """Model folder of a 2d network; it has learned to find the blobs of `make_scene`.

    Args:
        folder: of the data set.
        plans: of nnU-Net, whose 2d network is taken.
        changes: of the plans, such as image_reader_writer.
    """
    configuration = {
        **plans["configurations"]["2d"],
        "normalization_schemes": ["RGBTo01Normalization"] * 3,
        "use_mask_for_norm": [False] * 3,
        "spacing": [1.0, 1.0],
        "patch_size": [48, 64],
    }
    numbers = dict.fromkeys(("mean", "std", "median", "min", "max", "percentile_00_5", "percentile_99_5"), 1.0)
    intensities = {str(channel): numbers for channel in range(3)}
    plans = {
        **plans,
        "dataset_name": folder.name,
        "configurations": {"2d": configuration},
        "foreground_intensity_properties_per_channel": intensities,
    }
    plans.pop("original_median_spacing_after_transp")  # the scenes have any spacing
    model = folder / "nnUNetTrainer__nnUNetPlans__2d"
    (model / "fold_0").mkdir(parents=True)
    dataset = {"channel_names": dict(zip("012", "RGB", strict=True)), "labels": LABELS, "numTraining": 1}
    (model / "plans.json").write_text(json.dumps(plans))
    (model / "dataset.json").write_text(json.dumps({**dataset, "file_ending": ".png"}))
    content = {
        "network_weights": _trained(configuration["architecture"]).state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "2d"},
        "inference_allowed_mirroring_axes": (0, 1),
    }
    write_checkpoint(content, model / "fold_0/checkpoint_final.pth")
    return model


def rename_reader(model: Path, reader: str, file_ending: str) -> None:
    """Let nnU-Net read this model's images by another reader."""
    for name, change in (("plans", {"image_reader_writer": reader}), ("dataset", {"file_ending": file_ending})):
        content = json.loads((model / f"{name}.json").read_text())
        (model / f"{name}.json").write_text(json.dumps({**content, **change}))


def _trained(architecture: dict[str, Any]) -> torch.nn.Module:
    """Trained for a second."""
    torch.manual_seed(0)
    names = ("network_class_name", "arch_kwargs", "_kw_requires_import")
    network = get_network_from_plans(*(architecture[name] for name in names), 3, 3, deep_supervision=True)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for seed in range(40):
        image, labels = make_scene((2, 48, 64), seed=seed)
        logits = network(torch.from_numpy(image.transpose(1, 0, 2, 3) / np.float32(255)))[0]
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels).long()).backward()
        optimizer.step()
    return network.eval()


# Files of a case


def in_files(save: Callable[[NDArray[Any], Path], None], ending: str) -> Callable[[Channels, Path, str], None]:
    """One file for each channel."""

    def write(image: Channels, folder: Path, case: str) -> None:
        for number, channel in enumerate(image):
            save(channel.astype(np.int16), folder / f"{case}_{number:04d}{ending}")

    return write


def by_itk(**geometry: Sequence[float]) -> Callable[[NDArray[Any], Path], None]:
    def save(channel: NDArray[Any], file: Path) -> None:
        image = SimpleITK.GetImageFromArray(channel)
        for name, values in geometry.items():
            getattr(image, f"Set{name}")(values)
        SimpleITK.WriteImage(image, str(file), True)

    return save


def by_nibabel(affine: Sequence[Sequence[float]]) -> Callable[[NDArray[Any], Path], None]:
    return lambda channel, file: nibabel.save(nibabel.Nifti1Image(channel.transpose(2, 1, 0), np.array(affine)), file)


def in_one_flat_file(ending: str) -> Callable[[Channels, Path, str], None]:
    def write(image: Channels, folder: Path, case: str) -> None:
        save = tifffile.imwrite if ending == ".tif" else imageio.v3.imwrite
        save(folder / f"{case}_0000{ending}", np.moveaxis(image[:, 0], 0, -1))

    return write


def in_3d_tif(image: Channels, folder: Path, case: str) -> None:
    in_files(lambda channel, file: tifffile.imwrite(file, channel), ".tif")(image, folder, case)
    (folder / f"{case}.json").write_text(json.dumps({"spacing": [2.0, 1.2, 0.9]}))


def by_hand(order: str) -> Callable[[NDArray[Any], Path], None]:
    """A gzipped nrrd file with axes of its own, in either byte order, as other programs than SimpleITK write it."""

    def save(channel: NDArray[Any], file: Path) -> None:
        sizes = " ".join(map(str, reversed(channel.shape)))
        header = (
            "NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nspace origin: (1,2,3)\n"
            f"space directions: (0,0,2) (0.9,0,0) (0,-0.8,0)\nsizes: {sizes}\nencoding: gzip\n"
            f"endian: {'big' if order == '>' else 'little'}\n\n"
        )
        file.write_bytes(header.encode() + gzip.compress(channel.astype(f"{order}i2").tobytes()))

    return save


def with_rounded_headers(image: Channels, folder: Path, case: str) -> None:
    """2.5 mm in one channel, and what is left of it in single precision in another."""
    for number, size in enumerate((2.5, 2.4999990463, 2.5)):
        save = by_itk(**{**ROTATED, "Spacing": (0.8, 0.9, size)})
        save(image[number].astype(np.int16), folder / f"{case}_{number:04d}.nii.gz")


PERMUTED = {"Spacing": (0.8, 0.9, 2.5), "Origin": (-30.5, 12.25, 7), "Direction": (0, 0, 1, -1, 0, 0, 0, -1, 0)}
ROTATED = {**PERMUTED, "Direction": (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)}
SHEARED = ((-1, 0, 0, 3), (0, 1, 0.5, -4), (0, 0, 2, 5), (0, 0, 0, 1.0))
FORMATS = {  # nnU-Net's reader, file ending, extents, writer
    "png": ("NaturalImage2DIO", ".png", (1, 56, 72), in_one_flat_file(".png")),
    "bmp": ("NaturalImage2DIO", ".bmp", (1, 56, 72), in_one_flat_file(".bmp")),
    "tif": ("NaturalImage2DIO", ".tif", (1, 56, 72), in_one_flat_file(".tif")),
    "3d tif": ("Tiff3DIO", ".tif", (2, 56, 72), in_3d_tif),
    "rotated": ("SimpleITKIO", ".nii.gz", (2, 56, 72), in_files(by_itk(**ROTATED), ".nii.gz")),
    "nrrd": ("SimpleITKIO", ".nrrd", (2, 56, 72), in_files(by_itk(**PERMUTED), ".nrrd")),
    "big-endian nrrd": ("SimpleITKIO", ".nrrd", (2, 56, 72), in_files(by_hand(">"), ".nrrd")),
    "gzipped nrrd, reoriented": ("SimpleITKIOWithReorient", ".nrrd", (56, 2, 72), in_files(by_hand("<"), ".nrrd")),
    "gipl": ("SimpleITKIO", ".gipl", (2, 56, 72), in_files(by_itk(Spacing=(0.8, 0.9, 2.5)), ".gipl")),
    "rounded headers": ("SimpleITKIO", ".nii.gz", (2, 56, 72), with_rounded_headers),
    "mha": ("SimpleITKIO", ".mha", (2, 56, 72), in_files(by_itk(**PERMUTED), ".mha")),
    "reoriented": ("SimpleITKIOWithReorient", ".nii.gz", (56, 2, 72), in_files(by_itk(**PERMUTED), ".nii.gz")),
    "sheared": ("NibabelIO", ".nii.gz", (2, 56, 72), in_files(by_nibabel(SHEARED), ".nii.gz")),
    "sheared, reoriented": ("NibabelIOWithReorient", ".nii", (2, 56, 72), in_files(by_nibabel(SHEARED), ".nii")),
}
