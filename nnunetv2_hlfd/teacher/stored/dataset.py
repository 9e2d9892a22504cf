"""nnU-Net's preprocessed cases with a teacher's stored maps as further channels of the image.

nnU-Net's loader cuts a patch out of whatever `load_case` returns as the image, and hands on only what it has cut out of
image and segmentation: a map that is to be cut and augmented with them has to be part of one of them.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params
from numpy.typing import NDArray

from nnunetv2_hlfd.teacher.stored.coarse import CoarseMaps

_READ = {} if os.name == "nt" else {"mmap_mode": "r"}  # as nnU-Net: memory maps of blosc2 fail on Windows


class StackedCase:
    """An image (C, z, y, x) and maps (K, z, y, x) as one array of all their channels, read where it is cut."""

    dtype = np.dtype(np.float32)

    def __init__(self, image: Any, *maps: Any) -> None:
        self.parts = (image, *maps)
        self.shape = (sum(part.shape[0] for part in self.parts), *image.shape[1:])
        self.ndim = len(self.shape)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[np.float32]:
        """Cut out of all channels: the first slice has to be a whole one."""
        if key[0] != slice(None):
            raise IndexError(f"Expected all channels to be cut, got {key[0]}")
        return np.concatenate([part[key] for part in self.parts], dtype=self.dtype)


class WithMaps:
    """A data set of nnU-Net, of either file format, as its loader uses it; every case brings its maps.

    It holds no open file, so that it can be sent to the processes of the augmentation.

    Args:
        dataset: nnU-Net's.
        folder: of the maps.
        strides: of the grids of the coarse maps, each on three axes.
    """

    def __init__(self, dataset: Any, folder: Path, strides: Sequence[Sequence[int]] = ()) -> None:
        self.dataset, self.folder, self.strides = dataset, folder, [tuple(stride) for stride in strides]
        self.identifiers = dataset.identifiers

    def load_case(self, case: str) -> tuple[StackedCase, Any, Any, dict[str, Any]]:
        """Image with maps, segmentation, that of a previous stage, properties."""
        image, segmentation, previous, properties = self.dataset.load_case(case)
        final, *coarse = (open_maps(file) for file in maps_files(self.folder, case, len(self.strides)))
        maps = [CoarseMaps(*each, image.shape[1:]) for each in zip(coarse, self.strides, strict=True)]
        return StackedCase(image, final, *maps), segmentation, previous, properties


def maps_file(folder: Path, case: str) -> Path:
    """Where the final map of a case is."""
    return folder / f"{case}.b2nd"


def maps_files(folder: Path, case: str, coarse: int) -> list[Path]:
    """Where all maps of a case are: the final one, then the coarse ones, each in a folder of its number."""
    return [maps_file(folder, case), *(maps_file(folder / str(number), case) for number in range(coarse))]


def open_maps(file: Path) -> Any:
    """The codes (K, z, y, x) of a case, read where they are sliced."""
    return blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1}, **_READ)


def write_maps(file: Path, codes: NDArray[np.uint8], patch_size: Sequence[int]) -> None:
    """Write the codes (K, z, y, x) of a case, compressed in blocks for reading patches of this size.

    Raises:
        OSError: where what was written is read back as something else.
        RuntimeError: where blosc2 cannot write.
    """
    blocks, chunks = comp_blosc2_params(codes.shape, patch_size, bytes_per_pixel=codes.itemsize)
    blosc2.asarray(
        np.ascontiguousarray(codes),
        urlpath=str(file),
        chunks=chunks,
        blocks=blocks,
        cparams={"codec": blosc2.Codec.LZ4HC, "clevel": 5, "filters": [blosc2.Filter.NOFILTER], "nthreads": 4},
    )
    if not np.array_equal(open_maps(file)[:], codes):
        raise OSError("what was written is read back as something else")
