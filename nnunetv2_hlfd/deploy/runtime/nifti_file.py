"""NIfTI files as bytes: whether every voxel is there, and reading through what compression was or was not done."""

import itertools
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UserError

_GZIP = b"\x1f\x8b"  # how each stream of gzip begins
_BLOCK = 2**20


def content(file: Path) -> Iterator[bytes]:
    """Yield what a `.nii` or `.nii.gz` file holds, decompressed, in blocks.

    A `.nii.gz` file that is not compressed is read as it is, and bytes after the last stream of gzip are left out, as
    SimpleITK does.

    Raises:
        EOFError: where the last stream is cut off.
        zlib.error: where it is damaged or has another checksum.
    """
    with file.open("rb") as opened:
        block = opened.read(_BLOCK)
        if not (file.suffix == ".gz" and block.startswith(_GZIP)):
            while block:
                yield block
                block = opened.read(_BLOCK)
            return
        stream = zlib.decompressobj(wbits=31)
        while block:
            yield stream.decompress(block)
            block = b""
            if stream.eof:
                block = stream.unused_data + opened.read(max(0, len(_GZIP) - len(stream.unused_data)))
                if not block.startswith(_GZIP):
                    return
                stream = zlib.decompressobj(wbits=31)
            block = block or opened.read(_BLOCK)
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")


def is_compressed(file: Path) -> bool:
    """Return whether a file begins as gzip does, whatever its name says."""
    with file.open("rb") as opened:
        return opened.read(len(_GZIP)) == _GZIP


def is_nifti(file: Path) -> bool:
    """Return whether a file is named as NIfTI files are."""
    return file.name.endswith((".nii", ".nii.gz"))


def check_nifti(file: Path, *, finite: bool = False) -> None:
    """Check that a NIfTI file holds every voxel that its header promises, and has the right checksum, if any.

    SimpleITK reads a truncated one without a word, and takes 0 for NaN and infinity.

    Args:
        file: `.nii` or `.nii.gz`.
        finite: refuse voxels that are no finite numbers, too.

    Raises:
        UserError: for a damaged file, or such voxels.
    """
    try:
        blocks = content(file)
        header = next(blocks, b"")
        layout = _layout(header)
        missing = layout.number
        for values in voxels(itertools.chain([header], blocks), layout.start, layout.dtype):
            if finite and layout.dtype.kind == "f" and not np.isfinite(values[:missing]).all():
                raise UserError(f"{file.name} has NaN or infinite voxels")
            missing -= len(values[:missing])
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{file.name} is damaged: {error}") from error
    if missing:
        raise UserError(f"{file.name} is truncated")


def voxels(blocks: Iterable[bytes], start: int, dtype: "np.dtype[Any]") -> Iterator[NDArray[Any]]:
    """Yield what lies behind a header, in whole voxels.

    Args:
        blocks: of the file, from its beginning.
        start: of the first voxel, in bytes.
        dtype: of a voxel.
    """
    held = bytearray()
    for block in blocks:
        held += block
        skipped = min(start, len(held))
        start -= skipped
        end = len(held) - (len(held) - skipped) % dtype.itemsize
        yield np.frombuffer(bytes(held[skipped:end]), dtype)
        del held[:end]


def is_nifti2(header: bytes) -> bool:
    """Return whether a file that begins with these bytes is of NIfTI-2."""
    return struct.pack("<i", 540) == header[:4] or struct.pack(">i", 540) == header[:4]


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where the voxels begin, their number and type. What is no floating-point number is counted in bytes."""

    start: int
    number: int
    dtype: "np.dtype[Any]"


_FLOATS = {16: "f4", 64: "f8"}  # by NIfTI's code


def _layout(header: bytes) -> _Layout:
    """Read the header of a NIfTI-1 or NIfTI-2 file."""
    order = "<" if header[:4] in (struct.pack("<i", 348), struct.pack("<i", 540)) else ">"
    [kind] = struct.unpack_from(f"{order}i", header)
    if kind == 348:
        dimensions, (code, bits) = (
            struct.unpack_from(f"{order}{form}", header, at) for form, at in (("8h", 40), ("2h", 70))
        )
        [start] = struct.unpack_from(f"{order}f", header, 108)
    elif kind == 540:
        dimensions, (code, bits) = (
            struct.unpack_from(f"{order}{form}", header, at) for form, at in (("8q", 16), ("2h", 12))
        )
        [start] = struct.unpack_from(f"{order}q", header, 168)
    else:
        raise struct.error("no NIfTI header")
    dtype = np.dtype(f"{order}{_FLOATS.get(code, 'u1')}")
    size = math.prod(dimensions[1 : dimensions[0] + 1]) * bits // 8
    return _Layout(start=int(start), number=size // dtype.itemsize, dtype=dtype)
