"""NIfTI files as bytes: whether every voxel is there, and reading through what compression was or was not done."""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

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


def check_complete(file: Path) -> None:
    """Check that a NIfTI file holds every voxel that its header promises, and has the right checksum, if any.

    SimpleITK reads a truncated one without a word. Other formats are left to their readers.

    Raises:
        UserError: for a damaged file.
    """
    if not file.name.endswith((".nii", ".nii.gz")):
        return
    try:
        blocks = content(file)
        header = next(blocks, b"")
        size = len(header) + sum(map(len, blocks))
        complete = size >= _promised_size(header)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{file.name} is damaged: {error}") from error
    if not complete:
        raise UserError(f"{file.name} is truncated")


def is_complete(file: Path) -> bool:
    """Return whether an image or segmentation is there and passes `check_complete`."""
    try:
        check_complete(file)
    except UserError:
        return False
    return file.is_file()


def is_nifti2(header: bytes) -> bool:
    """Return whether a file that begins with these bytes is of NIfTI-2."""
    return struct.pack("<i", 540) == header[:4] or struct.pack(">i", 540) == header[:4]


def _promised_size(header: bytes) -> int:
    """Compute the bytes of a NIfTI-1 or NIfTI-2 file: where its voxels begin, and their number by their size."""
    order = "<" if header[:4] in (struct.pack("<i", 348), struct.pack("<i", 540)) else ">"
    [kind] = struct.unpack_from(f"{order}i", header)
    if kind == 348:
        dimensions, bits = struct.unpack_from(f"{order}8h", header, 40), struct.unpack_from(f"{order}h", header, 72)[0]
        [start] = struct.unpack_from(f"{order}f", header, 108)
    elif kind == 540:
        dimensions, bits = struct.unpack_from(f"{order}8q", header, 16), struct.unpack_from(f"{order}h", header, 14)[0]
        [start] = struct.unpack_from(f"{order}q", header, 168)
    else:
        raise struct.error("no NIfTI header")
    return int(start) + math.prod(dimensions[1 : dimensions[0] + 1]) * bits // 8
