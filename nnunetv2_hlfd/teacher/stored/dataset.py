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

_READ = {} if os.name == "nt" else {"mmap_mode": "r"}  # as nnU-Net: memory maps of blosc2 fail on Windows


class StackedCase:
    """An image (C, z, y, x) and maps (K, z, y, x) as one array of C + K channels, read where it is cut."""

    dtype = np.dtype(np.float32)

    def __init__(self, image: Any, maps: Any) -> None:
        self.image, self.maps = image, maps
        self.shape = (image.shape[0] + maps.shape[0], *image.shape[1:])
        self.ndim = len(self.shape)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[np.float32]:
        """Cut out of all channels: the first slice has to be a whole one."""
        if key[0] != slice(None):
            raise IndexError(f"Expected all channels to be cut, got {key[0]}")
        return np.concatenate([self.image[key], self.maps[key]], dtype=self.dtype)


class WithMaps:
    """A data set of nnU-Net, of either file format, as its loader uses it; every case brings its maps.

    It holds no open file, so that it can be sent to the processes of the augmentation.
    """

    def __init__(self, dataset: Any, folder: Path) -> None:
        self.dataset, self.folder = dataset, folder
        self.identifiers = dataset.identifiers

    def load_case(self, case: str) -> tuple[StackedCase, Any, Any, dict[str, Any]]:
        """Image with maps, segmentation, that of a previous stage, properties."""
        image, segmentation, previous, properties = self.dataset.load_case(case)
        return StackedCase(image, open_maps(maps_file(self.folder, case))), segmentation, previous, properties


def maps_file(folder: Path, case: str) -> Path:
    """Where the maps of a case are."""
    return folder / f"{case}.b2nd"


def open_maps(file: Path) -> Any:
    """The codes (K, z, y, x) of a case, read where they are sliced."""
    return blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1}, **_READ)


def write_maps(file: Path, codes: NDArray[np.uint8], patch_size: Sequence[int]) -> None:
    """Write the codes (K, z, y, x) of a case, compressed in blocks for reading patches of this size."""
    blocks, chunks = comp_blosc2_params(codes.shape, patch_size, bytes_per_pixel=codes.itemsize)
    blosc2.asarray(
        np.ascontiguousarray(codes),
        urlpath=str(file),
        chunks=chunks,
        blocks=blocks,
        cparams={"codec": blosc2.Codec.LZ4HC, "clevel": 5, "filters": [blosc2.Filter.NOFILTER], "nthreads": 4},
    )
