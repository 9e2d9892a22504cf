"""Checkpoints: read without running code, written so that a kill at any moment leaves a whole file."""

import hashlib
import io
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from nnunetv2_hlfd.models.checkpoint_archive import ForeignObjectError, check_archive, check_tensors, numpy_stand_ins
from nnunetv2_hlfd.settings.settings import TRUST_VARIABLE, trust_checkpoints
from nnunetv2_hlfd.utilities.atomic import atomic_path
from nnunetv2_hlfd.utilities.errors import UserError

_WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DistributedDataParallel"}
_REQUIRED = ("network_weights", "init_args", "trainer_name")


def read_checkpoint(
    path: Path, *, required: Collection[str] = _REQUIRED, optional: Collection[str] | None = None
) -> dict[str, Any]:
    """Load an nnU-Net checkpoint to the CPU without running code from it, in memory of about twice its file's size.

    nnU-Net's files hold NumPy scalars (in `logging`), which torch's restricted loader does not know; they, and
    nothing else, are allowed in addition. A legacy file (torch's format before 1.6, or one that needs full
    unpickling) is loaded only if the user trusts it through the environment.

    Args:
        path: The checkpoint.
        required: Keys without which the file is refused.
        optional: Other keys to load where they are there; the rest of the file takes no memory. Unset: all keys.

    Raises:
        UserError: for a missing, damaged or foreign file or one that would need to run code.
    """
    if not path.is_file():
        others = sorted(file.name for file in path.parent.glob("checkpoint_*.pth"))
        found = f"only {', '.join(others)}" if others else "none"
        raise UserError(f"Expected a checkpoint at {path}, found {found}.")
    keys = None if optional is None else {*required, *optional}
    try:
        if trust_checkpoints():
            content = _selected(torch.load(path, map_location="cpu", weights_only=False), keys)
        else:
            content = _restricted(path, keys)
    except ForeignObjectError as error:
        raise UserError(
            f"{path} holds objects that could run code or fill the memory when loaded: {error}. If you trust where it "
            f"comes from, load it once with {TRUST_VARIABLE}=1 set in the environment."
        ) from error
    except Exception as error:  # torch raises many kinds for damaged files
        raise UserError(_damaged(path, error)) from error
    missing = [key for key in required if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(
            f"{path} is no nnU-Net checkpoint: expected the keys {', '.join(required)}; missing: {', '.join(missing)}."
        )
    weights = content.get("network_weights", {})
    if not isinstance(weights, Mapping):
        kind = type(weights).__name__
        raise UserError(f"{path} is no nnU-Net checkpoint: expected name -> tensor as network_weights, got {kind}.")
    return content


def check_finite_weights(weights: Mapping[str, Any], path: Path) -> None:
    """Refuse weights whose network would say nothing but background, or NaN.

    Raises:
        UserError: naming the file and the first weight with values that are not finite.
    """
    for name, weight in weights.items():
        if isinstance(weight, torch.Tensor) and weight.is_floating_point() and not weight.isfinite().all():
            raise UserError(
                f"{path} is of no use: the weight {name} has NaN or infinite values. Its training went wrong; take "
                f"another checkpoint, or train again."
            )


def wrapper_hint(weights: Mapping[str, Any]) -> str:
    """Say what mends weights that were saved from inside a wrapper of torch; empty for others.

    It is for messages about weights that do not fit: a network may have a part that is called like a wrapper.
    """
    for prefix, wrapper in _WRAPPERS.items():
        if any(str(key).startswith(prefix) for key in weights):
            return (
                f" They were saved from inside {wrapper}. Take '{prefix}' off their names: content['network_weights'] "
                f"= {{key.removeprefix('{prefix}'): value for key, value in content['network_weights'].items()}}"
            )
    return ""


def _selected(content: Any, keys: Collection[str] | None) -> Any:
    """The entries of these keys, of a file that holds a dictionary; all of it for None."""
    if keys is None or not isinstance(content, dict):
        return content
    return {key: value for key, value in content.items() if key in keys}


def _restricted(path: Path, keys: Collection[str] | None) -> Any:
    """Load by torch's restricted loader, between our checks.

    The file is read once: what is checked is what is loaded, whoever writes to the file meanwhile.
    """
    archive = path.read_bytes()
    check_archive(archive)
    with torch.serialization.safe_globals(numpy_stand_ins()):
        content = torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
    check_tensors(content, len(archive))
    return _selected(content, keys)


def write_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint: the old file stays until the new one is whole.

    Raises:
        UserError: where the file cannot be written (disk full); the previous file is intact.
    """
    with atomic_path(path, library_errors=(RuntimeError,)) as temporary, temporary.open("wb") as file:
        torch.save(content, file)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: Any) -> str:
    """`hashlib.file_digest` for Python 3.10."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _damaged(path: Path, error: Exception) -> str:
    reason = error if isinstance(error, UserError) else type(error).__name__
    return (
        f"{path} is damaged or no torch checkpoint ({reason}). Copy it again from where it was trained, or train it "
        f"again."
    )
