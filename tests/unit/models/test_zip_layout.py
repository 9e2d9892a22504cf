"""Which zip archives have one layout that explains every byte, and which have two."""

import io
import random
import struct
import zipfile
from contextlib import suppress

import pytest
import torch

from nnunetv2_hlfd.models.zip_layout import read_stored_entries
from nnunetv2_hlfd.utilities.errors import UserError

CONTENTS = {"archive/data.pkl": b"harmless", "archive/data/0": bytes(range(100)), "archive/version": b"3\n"}


def written(contents=CONTENTS, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def streamed():
    """Sizes follow the contents, as in torch's files."""

    class Unseekable(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *_):
            raise io.UnsupportedOperation

        def tell(self):
            raise io.UnsupportedOperation

    buffer = Unseekable()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in CONTENTS.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def by_torch():
    buffer = io.BytesIO()
    torch.save({"weights": torch.arange(100.0), "empty": torch.zeros(0)}, buffer)
    return buffer.getvalue()


def long_numbers():
    """Sizes of 64 bits where 32 would do."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("archive/data.pkl", "w", force_zip64=True) as entry:
        entry.write(b"harmless")
    return buffer.getvalue()


@pytest.mark.parametrize("archive", [written(), streamed(), by_torch(), long_numbers(), written({})])
def test_every_archive_of_one_layout_is_read_as_by_zipfile(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as expected:
        contents = {name: expected.read(name) for name in expected.namelist()}
    assert {name: bytes(content) for name, content in read_stored_entries(archive).items()} == contents


def directory(archive):
    return struct.unpack_from("<L", archive, len(archive) - 6)[0]


def two_directories():
    """The second describes other contents; torch's reader and zipfile's may each take one of them."""
    first, second = written(), written({**CONTENTS, "archive/data.pkl": b"hostile!"})
    return first[:-22] + second


def changed(position, value, archive=None):
    archive = bytearray(written() if archive is None else archive)
    archive[position : position + len(value)] = value
    return bytes(archive)


def overlapping():
    """Two entries of the directory are one."""
    archive = written()
    start = directory(archive)
    second = archive.index(b"PK\x01\x02", start + 4)
    return changed(second + 42, struct.pack("<L", 0), archive)


def hidden_between():
    """Bytes between two entries that none of them has."""
    archive = written()
    start = directory(archive)
    moved = archive[:start] + b"hidden" + archive[start:]
    return changed(len(moved) - 6, struct.pack("<L", start + 6), moved)


def second_end(archive):
    """An end for 64 bits that names another directory than the usual one does."""
    start, size = directory(archive), len(archive) - 22 - directory(archive)
    end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, size, start)
    return archive[:-22] + end + struct.pack("<4sLQL", b"PK\x06\x07", 0, len(archive) - 22, 1) + archive[-22:]


LIES = {
    "two directories": two_directories(),
    "two archives": written() + written(),
    "bytes before": b"#!/bin/sh\n" + written(),
    "bytes after": written() + b"\0",
    "a comment": changed(len(written()) - 2, b"\1\0") + b"x",
    "overlapping entries": overlapping(),
    "bytes in between": hidden_between(),
    "a second end": second_end(written()),
    "another name before the content": changed(30, b"archive/DATA.pkl"),
    "another size before the content": changed(18, struct.pack("<2L", 7, 7)),
    "another checksum before the content": changed(14, b"\0\0\0\0"),
    "compressed": written(compression=zipfile.ZIP_DEFLATED),
    "compressed, says the header": changed(8, b"\x08\0"),
    "encrypted": changed(directory(written()) + 8, b"\1\0"),
    "fewer entries than there are": changed(len(written()) - 14, struct.pack("<2H", 2, 2)),
    "more entries than there are": changed(len(written()) - 14, struct.pack("<2H", 4, 4)),
    "a size of 64 bits beside that of 32": changed(22, b"\xff\xff\xff\xff"),
    "other sizes after the content": streamed().replace(struct.pack("<2L", 8, 8), struct.pack("<2L", 8, 9), 1),
    "nothing": b"",
    "an end alone, cut": written()[-21:],
}


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize("archive", LIES.values(), ids=LIES)
def test_an_archive_that_can_be_read_in_two_ways_is_refused(archive):
    with pytest.raises(UserError):
        read_stored_entries(archive)


@pytest.mark.faults("hostile files")
def test_two_entries_of_one_name_are_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"harmless")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("archive/data.pkl", b"hostile!")
    with pytest.raises(UserError, match="two entries of one name"):
        read_stored_entries(buffer.getvalue())


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize("make", [written, streamed, by_torch, long_numbers])
def test_no_byte_of_the_structure_can_change_unnoticed_what_is_read(make, record_property):
    """Whatever is still read is read as by zipfile, except for dates and the like, which nobody reads."""
    whole, generator = make(), random.Random(0)
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(generator.choice((1, 1, 2))):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        with suppress(UserError, zipfile.BadZipFile, NotImplementedError):
            entries = read_stored_entries(bytes(damaged))
            with zipfile.ZipFile(io.BytesIO(damaged)) as archive:
                assert {info.filename: info.file_size for info in archive.infolist()} == {
                    name: len(entry) for name, entry in entries.items()
                }
    record_property("tried", {"damaged layout of an archive": [2000, 2000]})
