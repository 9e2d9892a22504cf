"""What a checkpoint from a stranger may hold: nothing is run, no small file asks for much memory.

torch's restricted loader runs no foreign code, but it trusts the sizes that a file declares and allows constructors
such as bytearray that allocate what they are asked for. These checks come before and after it.
"""

import pickletools
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from nnunetv2_hlfd.utilities.errors import UserError

# What nnU-Net's checkpoints are made of, as `module name` in the pickle.
_KNOWN = re.compile(
    r"collections OrderedDict"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (\w+Storage|Size|device|b?float\d+|u?int\d+|bool)|torch\.storage UntypedStorage"
    r"|numpy\.(_core|core)\.multiarray scalar|numpy dtype|numpy\.dtypes \w+DType"
    r"|_codecs encode"
)
# Codecs from bytes to bytes or text to text: they could grow what they made over and over.
_CODEC = re.compile(r"((hex|base_?64|bz2|zlib|zip|quopri|quoted_?printable|uu|rot_?13)(_codec)?|punycode|idna)", re.I)
_OLD_FORMAT = b"\x80\x02"
_NUMPY_SCALAR = re.compile(r"[fiu][1248]|b1")


class ForeignObjectError(ValueError):
    """The file asks for something that no checkpoint of nnU-Net needs."""


def check_archive(path: Path) -> None:
    """Refuse what is no plain zip of torch.save: compressed entries, more than one pickle, unknown names in it.

    Raises:
        ForeignObjectError: naming what the pickle asks for.
        UserError: for a damaged archive (zipfile and pickletools raise further kinds).
    """
    with path.open("rb") as file:
        if file.read(2) == _OLD_FORMAT:
            raise ForeignObjectError("torch's file format before 1.6, whose sizes cannot be checked")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(
            entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries
        ):
            raise UserError("compressed entries, which torch.save never writes")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise UserError("entries that overlap")
        [pickle] = [entry for entry in entries if entry.filename.endswith("data.pkl")]
        content = archive.read(pickle)
    for operation, argument, _position in pickletools.genops(content):
        if operation.name == "GLOBAL" and not _KNOWN.fullmatch(str(argument)):
            raise ForeignObjectError(str(argument).replace(" ", "."))
        if isinstance(argument, str) and _CODEC.fullmatch(re.sub(r"\W", "_", argument)):
            raise ForeignObjectError(f"_codecs.encode({argument!r})")


def check_tensors(content: Any, file_size: int) -> None:
    """Refuse tensors that claim more than the file can hold, or repeat what it holds.

    Raises:
        UserError: for such a tensor.
    """
    storages: dict[int, int] = {}
    for tensor in _tensors(content):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = max(storages.get(storage.data_ptr(), 0), storage.nbytes())
        if tensor.numel() * tensor.element_size() > storage.nbytes():
            raise UserError("a tensor that is larger than its data")
    if sum(storages.values()) > file_size:
        raise UserError("tensors that are larger than the file")


def _tensors(content: Any) -> Iterator[Tensor]:
    """All tensors in nested containers; without recursion, because a file decides how deep they are."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend((*value, *value.values()) if isinstance(value, dict) else value)
            if isinstance(value, OrderedDict):
                waiting.append(vars(value))  # the pickle may set attributes of it


class _DType:
    """Stands in for numpy.dtype, which a pickle could make any size of."""

    def __init__(self, code: object, _align: object = False, _copy: object = True) -> None:
        if not isinstance(code, str) or not _NUMPY_SCALAR.fullmatch(code):
            raise ForeignObjectError(f"numpy.dtype({code!r:.40})")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


def _scalar(dtype: _DType, data: bytes) -> Any:
    """Stands in for NumPy's scalar constructor, which makes a scalar of its own size from nothing."""
    [value] = np.frombuffer(data, dtype.dtype)
    return value


def numpy_stand_ins() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """For torch.serialization.safe_globals: NumPy's scalars under the names that NumPy 1 and 2 write."""
    return [
        (_scalar, "numpy._core.multiarray.scalar"),
        (_scalar, "numpy.core.multiarray.scalar"),
        (_DType, "numpy.dtype"),
    ]
