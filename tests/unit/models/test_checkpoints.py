"""Checkpoints: what is read, what is refused, and that a kill while writing loses nothing."""

import functools
import hashlib
import io
import os
import struct
import zipfile
from codecs import encode
from collections import OrderedDict
from pathlib import PurePosixPath

import numpy as np
import pytest
import torch

from nnunetv2_hlfd.models import checkpoints
from nnunetv2_hlfd.models.checkpoints import read_checkpoint, sha256, write_checkpoint
from nnunetv2_hlfd.utilities.errors import UserError

TRUST = "nnUNet_hlfd_trust_checkpoint"


def content(**extra):
    """The keys of nnU-Net's checkpoints; NumPy scalars as its logger leaves them."""
    return {
        "network_weights": {"weight": torch.arange(6.0).reshape(2, 3)},
        "optimizer_state": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.25)], "train_losses": [np.float32(-0.5)], "lrs": [0.01]},
        "_best_ema": np.float64(0.75),
        "current_epoch": 3,
        "init_args": {"configuration": "2d", "fold": 0},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
        **extra,
    }


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint_final.pth"


def saved(path, what):
    torch.save(what, path)
    return path


def refusal(path):
    with pytest.raises(ValueError, match=str(path)) as caught:
        read_checkpoint(path)
    return str(caught.value)


def test_what_was_written_is_read_again(path):
    write_checkpoint(content(hlfd={"settings": {"beta": 0.9, "seed": None}}), path)
    read = read_checkpoint(path)
    weights = read.pop("network_weights")
    expected = content(hlfd={"settings": {"beta": 0.9, "seed": None}})
    torch.testing.assert_close(weights, expected.pop("network_weights"), rtol=0, atol=0)
    assert read == expected
    assert [each.name for each in path.parent.iterdir()] == [path.name], "no temporary file is left"


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int32, np.int64, np.bool_])
def test_numpy_scalars_are_read(path, kind):
    read = read_checkpoint(saved(path, content(logging={"x": [kind(1)]})))
    [value] = read["logging"]["x"]
    assert value == 1
    assert type(value) is kind


def test_a_file_in_torchs_old_format_is_read_only_where_the_user_trusts_it(path, monkeypatch):
    """nnU-Net 2 never wrote one, and it may declare any size."""
    torch.save(content(), path, _use_new_zipfile_serialization=False)
    assert "torch's file format before 1.6" in refusal(path)
    assert TRUST in refusal(path)
    monkeypatch.setenv(TRUST, "1")
    assert read_checkpoint(path)["_best_ema"] == 0.75


@pytest.mark.parametrize("name", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_scalars_are_read_under_the_names_that_numpy_2_and_numpy_1_write(path, name):
    buffer = io.BytesIO()
    torch.save(content(), buffer)
    with zipfile.ZipFile(buffer) as ours, zipfile.ZipFile(path, "w") as rewritten:
        for entry in ours.namelist():
            data = ours.read(entry)
            if entry.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data or b"numpy.core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", name).replace(b"numpy.core.multiarray", name)
                assert name in data
            rewritten.writestr(entry, data)
    read = read_checkpoint(path)
    assert (read["_best_ema"], read["logging"]["train_losses"]) == (0.75, [-0.5])


# Damaged files


def truncated(path):
    saved(path, content())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "truncated": truncated,
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "text": lambda path: path.write_text("<html>404 Not Found</html>\n" * 20),
    "random": lambda path: path.write_bytes(np.random.default_rng(0).bytes(4096)),
    "an empty zip": lambda path: zipfile.ZipFile(path, "w").close(),
    "an image": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64)),
}


@pytest.mark.faults("truncated and damaged files")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_called_damaged_and_never_offered_for_trust(path, damage):
    damage(path)
    message = refusal(path)
    assert message.startswith(f"{path} is damaged or no torch checkpoint (")
    assert TRUST not in message
    assert "weights_only" not in message, "torch's advice is to load the file without protection"


def test_a_missing_file_or_a_folder_is_no_checkpoint(path, tmp_path):
    assert refusal(path) == f"Expected a checkpoint at {path}, found none."
    path.with_name("checkpoint_best.pth").touch()
    assert refusal(path) == f"Expected a checkpoint at {path}, found only checkpoint_best.pth."
    assert refusal(tmp_path) == f"Expected a checkpoint at {tmp_path}, found none."


@pytest.mark.parametrize(
    ("foreign", "missing"),
    [
        ({"state_dict": {}}, "network_weights, init_args, trainer_name"),
        ({"network_weights": {}, "trainer_name": "nnUNetTrainer"}, "init_args"),
        ([1, 2], "network_weights, init_args, trainer_name"),
        (torch.zeros(2), "network_weights, init_args, trainer_name"),
    ],
)
def test_a_file_without_nnunets_keys_is_no_nnunet_checkpoint(path, foreign, missing):
    message = f"{path} is no nnU-Net checkpoint: expected the keys network_weights, init_args, trainer_name; missing: "
    assert refusal(saved(path, foreign)) == f"{message}{missing}."


def test_other_keys_can_be_required(path):
    saved(path, {"a": 1})
    assert read_checkpoint(path, required=["a"]) == {"a": 1}
    with pytest.raises(ValueError, match="missing: b"):
        read_checkpoint(path, required=["a", "b"])


@pytest.mark.parametrize("trusted", ["", "1"])
def test_only_the_keys_that_are_asked_for_are_loaded(path, monkeypatch, trusted):
    monkeypatch.setenv(TRUST, trusted)
    saved(path, content())
    read = read_checkpoint(path, required=["trainer_name"], optional=["init_args", "hlfd"])
    assert read == {"trainer_name": "nnUNetTrainer", "init_args": {"configuration": "2d", "fold": 0}}
    with pytest.raises(ValueError, match="missing: hlfd"):
        read_checkpoint(path, required=["hlfd"], optional=["init_args"])


def test_tensors_that_are_not_asked_for_are_checked_all_the_same(path):
    tensor = torch.zeros(2)
    saved(path, content(other=torch.as_strided(tensor, (2,), (1,)).expand(10**6, 2)))
    with pytest.raises(ValueError, match="damaged"):
        read_checkpoint(path, required=["trainer_name"], optional=[])


# Files that would run code


class Runs:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("posix.system", lambda marker: Runs(os.system, f"touch {marker}")),
        ("io.open", lambda marker: Runs(open, str(marker), "w")),
        ("__builtin__.eval", lambda marker: Runs(eval, f"open({str(marker)!r}, 'w')")),
        ("posix.mkdir", lambda marker: Runs(os.mkdir, str(marker))),
    ],
)
@pytest.mark.parametrize("new_format", [True, False])
def test_a_file_that_would_run_code_is_refused_without_running_it(path, tmp_path, name, attack, new_format):
    marker = tmp_path / "marker"
    torch.save(content(logging=attack(marker)), path, _use_new_zipfile_serialization=new_format)
    message = refusal(path)
    assert not marker.exists()
    which = name if new_format else "torch's file format before 1.6"
    assert message.startswith(f"{path} holds objects that could run code or fill the memory when loaded: {which}")
    assert message.endswith(f"If you trust where it comes from, load it once with {TRUST}=1 set in the environment.")
    assert "weights_only" not in message, "torch's advice is not for users of this package"


# Files that would fill the memory


def rewritten(path, change=lambda pickle: pickle, compression=zipfile.ZIP_STORED, extra=()):
    """The checkpoint with another pickle, compressed, or with more entries."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in [*entries, *extra]:
            archive.writestr(name, change(data) if name.endswith("/data.pkl") else data)


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize("elements", [10**9, 10**4, -1])
def test_a_tensor_that_declares_more_than_the_file_holds_is_damaged(path, elements):
    """The loader must not read beyond its buffer."""
    saved(path, content(network_weights={"weight": torch.arange(1000.0)}))
    rewritten(path, lambda data: data.replace(b"M\xe8\x03", b"J" + struct.pack("<i", elements)))
    assert "is damaged or no torch checkpoint" in refusal(path)


@pytest.mark.faults("hostile files")
def test_a_tensor_that_repeats_one_number_a_million_times_a_million_is_damaged(path):
    saved(path, content(network_weights={"weight": torch.zeros(1).expand(10**6, 10**6)}))
    assert "is damaged or no torch checkpoint" in refusal(path)


@pytest.mark.faults("hostile files")
def test_compressed_entries_are_refused_unread(path):
    """10 GB of zeros are 10 MB compressed; here it is 64 MB of them."""
    saved(path, content())
    rewritten(path, compression=zipfile.ZIP_DEFLATED, extra=[("archive/data/99", bytes(2**26))])
    assert path.stat().st_size < 2**17
    assert "is damaged or no torch checkpoint" in refusal(path)


@pytest.mark.faults("hostile files")
def test_an_archive_with_two_pickles_is_damaged(path):
    saved(path, content())
    rewritten(path, extra=[("other/data.pkl", b"\x80\x02N.")])
    assert "is damaged or no torch checkpoint" in refusal(path)


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize(
    ("name", "bomb"),
    [
        ("bytearray", Runs(bytearray, 10**11)),
        ("torch.Tensor", Runs(torch.Tensor, 10**6, 10**6)),
        ("numpy.dtype", Runs(np.dtype, "V2000000000")),
        ("_codecs.encode", Runs(encode, Runs(encode, "00", "latin1"), "hex")),
        ("_codecs.encode", Runs(encode, Runs(encode, "00", "latin1"), "Base64-Codec")),
    ],
)
def test_a_constructor_that_allocates_what_a_file_asks_for_is_refused(path, name, bomb):
    """torch's restricted loader allows them."""
    message = refusal(saved(path, content(logging=bomb)))
    assert "could run code or fill the memory when loaded: " in message
    assert name in message


@pytest.mark.faults("hostile files")
def test_containers_nested_beyond_any_checkpoint_are_damaged(path):
    saved(path, content(logging="deep"))
    levels = b"]" * 100_000 + b"N" + b"a" * 100_000  # empty lists, None, append each to the one before
    rewritten(path, lambda data: data.replace(b"X\x04\x00\x00\x00deep", levels))
    assert "is damaged or no torch checkpoint" in refusal(path)


@pytest.mark.faults("hostile files")
def test_containers_that_share_what_they_hold_are_measured_by_their_longest_way_down(path):
    chain = [[]]
    for _ in range(200):
        chain.append([chain[-1]])
    assert "is damaged or no torch checkpoint" in refusal(saved(path, content(logging=chain)))
    itself = []
    itself.append(itself)
    assert "is damaged or no torch checkpoint" in refusal(saved(path, content(logging=itself)))


@pytest.mark.faults("hostile files")
def test_what_a_pickle_puts_at_a_place_far_away_takes_no_memory(path):
    saved(path, content(logging="far"))
    far = b"Nr" + struct.pack("<L", 2**31 - 1)
    rewritten(path, lambda data: data.replace(b"X\x03\x00\x00\x00far", far))
    assert "is damaged or no torch checkpoint (a memory of another size)" in refusal(path)


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize("call", [lambda: Runs(OrderedDict, pairs()), lambda: Runs(encode, text(), "latin1")])
def test_a_long_list_or_text_that_is_copied_again_and_again_is_refused(path, call):
    assert "is damaged or no torch checkpoint (calls that repeat long arguments)" in refusal(
        saved(path, content(logging=[call() for _ in range(100)]))
    )


@functools.cache
def pairs():
    return [(number, number) for number in range(10_000)]


@functools.cache
def text():
    return "x" * 10_000


@pytest.mark.faults("hostile files")
def test_an_archive_with_two_directories_is_refused_whichever_is_harmless(path, tmp_path):
    harmless = saved(path, content()).read_bytes()
    hostile = saved(path, content(logging=Runs(bytearray, 3 * 2**30))).read_bytes()
    for archive in (harmless + hostile, hostile + harmless, harmless[:-22] + hostile, hostile[:-22] + harmless):
        path.write_bytes(archive)
        assert "is damaged or no torch checkpoint (" in refusal(path)


@pytest.mark.faults("hostile files")
def test_what_is_checked_is_what_is_loaded_whoever_writes_to_the_file_meanwhile(path, monkeypatch):
    hostile = saved(path, content(logging=Runs(bytearray, 3 * 2**30))).read_bytes()
    saved(path, content())
    check = checkpoints.check_archive

    def check_and_overwrite(archive):
        check(archive)
        path.write_bytes(hostile)

    monkeypatch.setattr(checkpoints, "check_archive", check_and_overwrite)
    assert read_checkpoint(path)["logging"] == content()["logging"]


def test_a_legacy_file_is_loaded_where_the_user_trusts_it(path, monkeypatch):
    saved(path, content(init_args=PurePosixPath("/plans")))
    assert TRUST in refusal(path)
    monkeypatch.setenv(TRUST, "1")
    assert read_checkpoint(path)["init_args"] == PurePosixPath("/plans")


# Writing


@pytest.mark.faults("full, limited and read-only disks")
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), OSError(5, "Input/output error")])
def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(path, monkeypatch, error):
    write_checkpoint(content(current_epoch=1), path)
    before = path.read_bytes()

    def fail(_descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=f"Could not write {path}: ") as caught:
        write_checkpoint(content(current_epoch=2), path)
    assert error.strerror in str(caught.value)
    assert str(caught.value).endswith("The previous file, if any, is intact.")
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_content_that_cannot_be_saved_leaves_the_old_file_and_no_temporary_one(path):
    write_checkpoint(content(current_epoch=1), path)
    with pytest.raises(Exception, match=r"pickle|local object"):
        write_checkpoint(content(logging=lambda: None), path)
    assert read_checkpoint(path)["current_epoch"] == 1
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "nowhere" / "checkpoint_final.pth"
    with pytest.raises(UserError, match=f"Could not write {path}: .*No such file or directory"):
        write_checkpoint(content(), path)


def test_sha256_is_that_of_the_bytes(path):
    path.write_bytes(b"abc" * 1_000_000)
    assert sha256(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
