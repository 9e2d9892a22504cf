"""Seeded damage to checkpoints and JSON files: what transmission, other programs and attackers do to them."""

import copy
import io
import json
import os
import pickle
import random
import struct
import subprocess
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

SAMPLES = int(os.environ.get("FAULT_SAMPLES", 10_000))  # damaged files of each kind, where it may take hours
MARKUP = ("<img src=x", "](javascript:", "\x1b", "\u202e", "\n# y")  # never in a page, whatever is called so
HOSTILE_NAMES = (
    "<img src=x onerror=y>",
    "[x](javascript:y)",
    "x\x1b[31m\u202ey",
    "x|y\n# y",
    "x $(touch y); `touch y`",
    "os.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "torch.nn.functional.torch.os.system",
    "torch.nn.Module.__init__",
    "torch.nn.modules.conv.os.system",
    "torch.nn.parallel.DistributedDataParallel",
    "dynamic_network_architectures.architectures.unet.os.system",
    "torch.hub.load",
    "../../../tmp/x",
    "a/b",
    "..",
    "nnUNetTrainerX.__class__",
    "__class__",
    "torch.nn.",
    "torch.nn.Linear",
    "torch.nn.LazyLinear",
    "",
)
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    -(10**9),
    1.5,
    1e308,
    float("nan"),
    float("inf"),
    10**5,
    10**9,
    10**30,
    "x",
    "x" * 10_000,
    [],
    {},
    [[]],
    [None],
    {"": None},
    [10**9] * 4,
    [3] * 10_000,
    [-1, -1],
    {"a": {"b": {"c": [1, 2, 3]}}},
    [["2d"]],
)


def damage_bytes(content: bytes, generator: random.Random) -> bytes:
    """Truncate, flip, insert, repeat or blank bytes."""
    data = bytearray(content)
    kind = generator.choice(("truncate", "flip", "insert", "repeat", "zero"))
    start = generator.randrange(len(data) + 1)
    if kind == "truncate":
        return bytes(data[:start])
    if kind == "flip":
        for _ in range(generator.choice((1, 1, 3, 30, 300))):
            data[generator.randrange(len(data))] = generator.randrange(256)
        return bytes(data)
    length = generator.choice((1, 8, 512))
    if kind == "insert":
        return bytes(data[:start]) + generator.randbytes(length) + bytes(data[start:])
    if kind == "repeat":
        return bytes(data[: start + length]) + bytes(data[start:])
    data[start : start + length] = bytes(length)
    return bytes(data)


def damage_structure(content: Any, generator: random.Random) -> Any:
    """Remove, replace or misplace one to three entries anywhere in nested containers; returns a damaged copy."""
    content = copy.deepcopy(content)
    for _ in range(generator.choice((1, 1, 1, 2, 3))):
        places = list(_places(content))
        container, key = generator.choice(places)
        kind = generator.choice(("remove", "odd", "odd", "odd", "hostile", "rename", "wrap", "other", "deep"))
        if kind == "remove":
            del container[key]
        elif kind == "odd":
            container[key] = copy.deepcopy(generator.choice(ODD_VALUES))
        elif kind == "hostile":
            container[key] = generator.choice(HOSTILE_NAMES)
        elif kind == "rename":
            value = container.pop(key)
            name = generator.choice(HOSTILE_NAMES)
            container.update({name: value}) if isinstance(container, dict) else container.append({name: value})
        elif kind == "wrap":
            container[key] = [container[key]]
        elif kind == "other":
            other, other_key = generator.choice(places)
            container[key] = copy.deepcopy(other[other_key]) if _has(other, other_key) else None
        else:
            for _ in range(generator.choice((5, 100))):
                container[key] = [container[key]]
    return content


def _places(content: Any) -> list[tuple[Any, Any]]:
    places, waiting = [], [content]
    while waiting:
        each = waiting.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each))
        places += [(each, key) for key in keys]
        waiting += [each[key] for key in keys if isinstance(each[key], dict | list) and each[key]]
    return places


def _has(container: Any, key: Any) -> bool:
    return key in container if isinstance(container, dict) else key < len(container)


def damage_json(content: Any, generator: random.Random) -> bytes:
    """A JSON file with another structure (mostly), damaged text, or nesting that no parser survives."""
    kind = generator.random()
    if kind < 0.8:
        return json.dumps(damage_structure(content, generator)).encode()
    text = json.dumps(content).encode()
    if kind < 0.94:
        return damage_bytes(text, generator)
    if kind < 0.97:
        return generator.choice(
            (b"\xef\xbb\xbf" + text, text.decode().encode("utf-16"), text.replace(b'"', b'"\xe4', 3))
        )
    depth = generator.choice((900, 100_000))
    nested = b"[" * depth + b"]" * depth
    whole = text[:-1] + b', "x": ' + nested + b"}"
    return generator.choice((b"[" * depth, b'{"a":' * depth, nested, b"9" * depth, whole))


def saved(content: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def damage_checkpoint(content: dict[str, Any], marker: str, generator: random.Random) -> bytes:
    """A checkpoint with damaged bytes, archive, pickle or content, or one that attacks.

    Args:
        content: of the checkpoint.
        marker: file that attacks would create.
        generator: decides everything.
    """
    kind = generator.choice(("bytes", "structure", "pickle", "pickle", "archive", "attack", "tensor"))
    if kind == "bytes":
        return damage_bytes(saved(content), generator)
    if kind == "structure":
        return saved(damage_structure(content, generator))
    if kind == "pickle":
        return _rewritten(saved(content), lambda data: _damage_pickle(data, generator))
    if kind == "archive":
        return _damage_archive(saved(content), generator)
    if kind == "attack":
        damaged = copy.deepcopy(content)
        container, key = generator.choice(_places(damaged))
        container[key] = generator.choice(attacks(marker))
        new_format = generator.random() < 0.8
        buffer = io.BytesIO()
        torch.save(damaged, buffer, _use_new_zipfile_serialization=new_format)
        return buffer.getvalue()
    return saved(_odd_tensor(content, generator))


class Calls:
    """Pickles to a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def attacks(marker: str) -> list[Calls]:
    """Objects that would run code, or fill the memory, when unpickled."""
    return [
        Calls(os.system, f"touch {marker}"),
        Calls(open, marker, "w"),
        Calls(eval, f"open({marker!r}, 'w')"),
        Calls(exec, f"open({marker!r}, 'w')"),
        Calls(os.mkdir, marker),
        Calls(subprocess.Popen, ["touch", marker]),
        Calls(pickle.loads, pickle.dumps(Calls(os.system, f"touch {marker}"))),
        Calls(getattr, Calls(__import__, "os"), "system"),
        Calls(torch.load, marker),
        Calls(np.load, marker),
        Calls(bytearray, 10**11),
        Calls(torch.Tensor, 10**10, 100),
        Calls(torch.zeros, 10**10),
        Calls(np.dtype, "V2000000000"),
        Calls(np._core.multiarray.scalar if hasattr(np, "_core") else np.core.multiarray.scalar, np.dtype("V10")),
        Calls(__import__("_codecs").encode, Calls(__import__("_codecs").encode, "0" * 100, "latin1"), "hex"),
    ]


def _damage_pickle(data: bytes, generator: random.Random) -> bytes:
    """Damage inside a valid archive: bytes anywhere, or the sizes that it declares."""
    if generator.random() < 0.5:
        return damage_bytes(data, generator)
    places = [at for at in range(len(data) - 1) if data[at] == ord("K")]  # BININT1: sizes, strides, numbers of elements
    at = generator.choice(places)
    number = generator.choice((0, -1, 2**20, 2**31 - 1, -(2**31)))
    return data[:at] + b"J" + struct.pack("<i", number) + data[at + 2 :]


def _rewritten(archive: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The archive with another pickle and right checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            content = old.read(entry)
            new.writestr(entry, change(content) if entry.endswith("/data.pkl") else content)
    return buffer.getvalue()


def _damage_archive(archive: bytes, generator: random.Random) -> bytes:
    """Entries missing, doubled, renamed, compressed, swapped, or a bomb."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old:
        entries = [(name, old.read(name)) for name in old.namelist()]
    kind = generator.choice(("missing", "doubled", "renamed", "compressed", "swapped", "bomb", "short"))
    at = generator.randrange(len(entries))
    name, content = entries[at]
    if kind == "missing":
        del entries[at]
    elif kind == "doubled":
        entries.append((name, content[::-1]))
    elif kind == "renamed":
        entries[at] = (generator.choice(("../../x", "archive/data.pkl", "x", name * 50)), content)
    elif kind == "swapped":
        entries[at], entries[at - 1] = (name, entries[at - 1][1]), (entries[at - 1][0], content)
    elif kind == "bomb":
        entries[at] = (name, bytes(2**25))
    elif kind == "short":
        entries[at] = (name, content[: len(content) // 2])
    compression = zipfile.ZIP_DEFLATED if kind in ("compressed", "bomb") else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w", compression) as new:
        for each, data in entries:
            new.writestr(each, data)
    return buffer.getvalue()


def _odd_tensor(content: dict[str, Any], generator: random.Random) -> dict[str, Any]:
    """One of the weights is another kind of tensor, or none."""
    damaged = copy.deepcopy(content)
    weights = damaged["network_weights"]
    name = generator.choice(list(weights))
    like = weights[name]
    weights[name] = generator.choice(
        (
            torch.zeros(1).expand(10**6, 10**6),
            torch.zeros(1).expand(like.shape),
            like.double(),
            like.to(torch.complex64),
            like.to(torch.int8),
            like.reshape(-1),
            like[None],
            torch.zeros(0),
            like.to_sparse(),
            like * float("nan"),
            like.numpy(),
            like.tolist(),
            "x",
            None,
            torch.nn.Parameter(like),
            like.bfloat16(),
            torch.zeros(2**10, 2**10),
            torch.empty(10**7, device="meta"),
            like.transpose(0, -1),
        )
    )
    return damaged
