"""What a checkpoint from a stranger may hold: nothing is run, no small file asks for much memory.

torch's restricted loader runs no foreign code, but it trusts the sizes that a file declares and allows constructors
such as bytearray that allocate what they are asked for. These checks come before and after it.
"""

import io
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.serialization import StorageType

from nnunetv2_hlfd.models.zip_layout import read_stored_entries
from nnunetv2_hlfd.utilities.errors import UserError

# What nnU-Net's checkpoints are made of, as `module name` in the pickle.
_KNOWN = re.compile(
    r"collections OrderedDict"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (\w+Storage|Size|device|b?float\d+|u?int\d+|bool)|torch\.storage UntypedStorage"
    r"|numpy\.(_core|core)\.multiarray scalar|numpy dtype|numpy\.dtypes \w+DType"
    r"|_codecs encode"
)
_PICKLE, _STORAGES = "data.pkl", "data/"
_DEPTH = 100  # of nested containers; nnU-Net needs about ten
_PICKLE_BYTES = 2**25  # nnU-Net needs less than 2**23; every byte may take a hundred in memory
_OLD_FORMAT = b"\x80\x02"
_NUMPY_SCALAR = re.compile(r"[fiu][1248]|b1")


class ForeignObjectError(ValueError):
    """The file asks for something that no checkpoint of nnU-Net needs."""


def check_archive(content: bytes) -> None:
    """Refuse what is no plain zip of torch.save: another layout, unknown names in the pickle, storages that lie.

    Args:
        content: of the whole file, as it is to be loaded.

    Raises:
        ForeignObjectError: naming what the pickle asks for.
        UserError: for a damaged archive (pickle and pickletools raise further kinds).
    """
    if content.startswith(_OLD_FORMAT):
        raise ForeignObjectError("torch's file format before 1.6, whose sizes cannot be checked")
    entries = read_stored_entries(content)
    folder = next(iter(entries), "").partition("/")[0]  # where torch looks for everything
    if any(not name.startswith(f"{folder}/") for name in entries):
        raise UserError("entries beside its folder")
    inside = {name.removeprefix(f"{folder}/"): entry for name, entry in entries.items()}
    if sum(name.rpartition("/")[2] == _PICKLE for name in inside) != 1:
        raise UserError("more or less than one pickle")
    if len(inside[_PICKLE]) > _PICKLE_BYTES:
        raise UserError("a pickle out of all proportion")
    instructions = bytes(inside[_PICKLE])
    for operation, argument, _position in pickletools.genops(instructions):
        if operation.name.endswith("PUT") and isinstance(argument, int) and argument > len(instructions):
            raise UserError("a memory of another size")  # the unpickler would make room for it
        if operation.name == "GLOBAL" and not _KNOWN.fullmatch(str(argument)):
            raise ForeignObjectError(str(argument).replace(" ", "."))
    _Survey(instructions, {name: len(entry) for name, entry in inside.items()}).load()


class _Inert:
    """Stands in for everything that a pickle makes: takes all and does nothing."""

    survey: "_Survey"

    def __new__(cls, *arguments: object) -> "_Inert":
        cls.survey.count(arguments)
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.survey.count([state])

    def __setitem__(self, _: object, __: object) -> None:
        pass


class _Survey(pickle.Unpickler):
    """Follows a pickle without making what it names.

    Refuses storages that are larger than their entries, and calls whose arguments are longer, all together, than the
    pickle: it makes the same long list or text into something again and again.
    """

    def __init__(self, instructions: bytes, sizes: Mapping[str, int]) -> None:
        super().__init__(io.BytesIO(instructions))
        self._sizes = sizes
        self._left = len(instructions)

    def find_class(self, module: str, name: str) -> Any:
        """An inert class of this name."""
        full = f"{module}.{name}"
        return self._encode if full == "_codecs.encode" else type(full, (_Inert,), {"survey": self})

    def persistent_load(self, pid: Any) -> Any:
        """Check a storage: kind, key, place, number of elements."""
        _, kind, key, _, number = pid
        name = kind.__name__.rpartition(".")[2]
        dtype = torch.uint8 if name == "UntypedStorage" else StorageType(name).dtype
        if not isinstance(number, int) or not 0 <= number * dtype.itemsize <= self._sizes[f"{_STORAGES}{key}"]:
            raise UserError("a storage that is larger than its data")
        return None

    def count(self, arguments: Iterable[object]) -> None:
        """Count the arguments of a call."""
        self._left -= sum(len(argument) for argument in arguments if isinstance(argument, Sized))
        if self._left < 0:
            raise UserError("calls that repeat long arguments")

    def _encode(self, text: object, codec: object = None) -> None:
        """Pickles of protocol 2 hold bytes as text in latin1. Other codecs could grow what they made over and over."""
        self.count([text])
        if codec != "latin1":
            raise ForeignObjectError(f"_codecs.encode({codec!r:.40})")


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
    """All tensors in nested containers; without recursion, because a file decides how deep they are.

    Raises:
        UserError: for containers that are nested deeper than any checkpoint's, or hold themselves.
    """
    waiting: list[tuple[Any, int]] = [(content, 1)]
    depths: dict[int, int] = {}
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict | list | tuple | set) and depth > depths.get(id(value), 0):
            if depth > _DEPTH:
                raise UserError("containers nested too deep")
            depths[id(value)] = depth
            inside = [*value, *value.values()] if isinstance(value, dict) else [*value]
            if isinstance(value, OrderedDict):
                inside.append(vars(value))  # the pickle may set attributes of it
            waiting.extend((part, depth + 1) for part in inside)


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
