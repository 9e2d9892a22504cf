"""The layout of a zip archive of stored entries, accepted only where it explains every byte of the file.

Readers of zip files look for the directory in different ways, and believe the directory, the headers before the
contents, or both. Where only one layout is possible, all of them read the same.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from nnunetv2_hlfd.utilities.errors import UserError

_END = struct.Struct("<4s4H2LH")  # end of the central directory
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")  # where the end for sizes of 64 bits is
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_DESCRIPTOR = b"PK\x07\x08"
_ZIP64 = 1  # id of the extra field for sizes of 64 bits
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # look at the field of 64 bits
_SIZES_FOLLOW, _UTF8 = 0x0008, 0x0800  # flags
_TWO_SIZES = "entries with two sizes"


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """An entry of the central directory."""

    name: bytes
    flags: int
    checksum: int
    size: int
    start: int


def read_stored_entries(archive: bytes) -> dict[str, memoryview]:
    """Name -> content of every entry, in the order of the file.

    The entries stand one after the other from the first byte on, each header says what the directory says, and the
    directory and its end take the rest.

    Raises:
        UserError: for any other file, and for compressed, encrypted or doubled entries.
    """
    entries = sorted(_read_directory(archive), key=lambda entry: entry.start)
    view, contents, position = memoryview(archive), {}, 0
    for entry in entries:
        _require(entry.start == position, "entries that overlap or leave gaps")
        start = _check_local_header(archive, entry)
        name = entry.name.decode("latin1")
        _require(name.isascii() and name.isprintable(), "an entry of a strange name")
        contents[name] = view[start : start + entry.size]
        position = _end_of_entry(archive, entry, start + entry.size)
    _require(position == _directory_place(archive)[0], "bytes between its entries and its directory")
    _require(len(contents) == len(entries), "two entries of one name")
    return contents


def _directory_place(archive: bytes) -> tuple[int, int, int]:
    """Start and end of the central directory, and its number of entries."""
    start_of_end = len(archive) - _END.size
    _require(start_of_end >= 0, "no end of its directory")
    signature, disk, first_disk, here, total, size, start, comment = _END.unpack_from(archive, start_of_end)
    _require(signature == b"PK\x05\x06" and comment == 0, "bytes after the end of its directory")
    end = start_of_end
    locator = max(0, start_of_end - _LOCATOR64.size)
    if archive[locator : locator + 4] == b"PK\x06\x07":
        _, _, end, disks = _LOCATOR64.unpack_from(archive, locator)
        _require(end == locator - _END64.size and disks == 1, "a second place of its directory")
        signature, length, *_, disk64, first64, here64, total64, size64, start64 = _END64.unpack_from(archive, end)
        _require(signature == b"PK\x06\x06" and length == _END64.size - 12, "a second place of its directory")
        short = (disk, first_disk, here, total, size, start)
        long = (disk64, first64, here64, total64, size64, start64)
        limits = (_FULL16, _FULL16, _FULL16, _FULL16, _FULL32, _FULL32)
        agree = all(a in (b, limit) for a, b, limit in zip(short, long, limits, strict=True))
        _require(agree, "two ends of its directory that differ")
        disk, first_disk, here, total, size, start = long
    _require(disk == first_disk == 0 and here == total, "parts in other files")
    _require(start + size == end, "a directory of another size")
    return start, end, total


def _read_directory(archive: bytes) -> list[_Entry]:
    position, end, number = _directory_place(archive)
    entries = []
    for _ in range(number):
        _require(position + _CENTRAL.size <= end, "a directory of another size")
        fields = _CENTRAL.unpack_from(archive, position)
        signature, _made, _needed, flags, method, _time, _date, checksum, packed, size, *rest = fields
        name_length, extra_length, comment_length, disk, _internal, _external, start = rest
        _require(signature == b"PK\x01\x02" and disk == 0, "a damaged directory")
        _require(method == 0, "compressed entries, which torch.save never writes")
        _require(flags & ~(_SIZES_FOLLOW | _UTF8) == 0, "encrypted entries, which torch.save never writes")
        name_start = position + _CENTRAL.size
        extra_start = name_start + name_length
        extra = archive[extra_start : extra_start + extra_length]
        size, packed, start = _long_numbers(extra, (size, packed, start))
        _require(size == packed, "compressed entries, which torch.save never writes")
        name = archive[name_start:extra_start]
        entries.append(_Entry(name=name, flags=flags, checksum=checksum, size=size, start=start))
        position = extra_start + extra_length + comment_length
    _require(position == end, "a directory of another size")
    return entries


def _check_local_header(archive: bytes, entry: _Entry) -> int:
    """Compare the header before a content with the directory; returns where the content starts."""
    _require(entry.start + _LOCAL.size <= len(archive), "an entry beyond its end")
    fields = _LOCAL.unpack_from(archive, entry.start)
    signature, _needed, flags, method, _time, _date, checksum, packed, size, name_length, extra_length = fields
    name_start = entry.start + _LOCAL.size
    start = name_start + name_length + extra_length
    alike = (archive[name_start : name_start + name_length], flags, method) == (entry.name, entry.flags, 0)
    _require(signature == b"PK\x03\x04" and alike, "entries with two names or kinds")
    if not (flags & _SIZES_FOLLOW and checksum == packed == size == 0):
        size, packed = _long_numbers(archive[name_start + name_length : start], (size, packed))
        _require((checksum, packed, size) == (entry.checksum, entry.size, entry.size), _TWO_SIZES)
    _require(start + entry.size <= len(archive), "an entry beyond its end")
    return start


def _end_of_entry(archive: bytes, entry: _Entry, position: int) -> int:
    """Where an entry ends whose content ends at a position: after its sizes, if they follow."""
    if not entry.flags & _SIZES_FOLLOW:
        return position
    for form in ("<3L", "<L2Q") if entry.size <= _FULL32 else ("<L2Q",):
        sizes = _DESCRIPTOR + struct.pack(form, entry.checksum, entry.size, entry.size)
        if archive[position : position + len(sizes)] == sizes:
            return position + len(sizes)
    raise UserError(_TWO_SIZES)


def _long_numbers(extra: bytes, numbers: Sequence[int]) -> list[int]:
    """Numbers of 32 bits, those that do not fit replaced by those of 64 bits in the extra fields."""
    missing = [index for index, number in enumerate(numbers) if number == _FULL32]
    found = []
    position = 0
    while position < len(extra):
        _require(position + 4 <= len(extra), "a damaged extra field")
        kind, length = struct.unpack_from("<2H", extra, position)
        _require(position + 4 + length <= len(extra), "a damaged extra field")
        if kind == _ZIP64:
            found.append(extra[position + 4 : position + 4 + length])
        position += 4 + length
    _require(len(found) == bool(missing), _TWO_SIZES)
    replaced = list(numbers)
    if missing:
        _require(len(found[0]) == 8 * len(missing), _TWO_SIZES)
        for index, number in zip(missing, struct.unpack(f"<{len(missing)}Q", found[0]), strict=True):
            replaced[index] = number
    return replaced


def _require(holds: object, otherwise: str) -> None:
    if not holds:
        raise UserError(otherwise)
