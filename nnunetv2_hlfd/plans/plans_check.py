"""The check that plans are what nnU-Net writes, made before anything is built or named after what they say.

Plans come with teachers, checkpoints and shared data sets. They name classes, folders and sizes.
"""

import math
import pydoc
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_hlfd.settings.settings import PLANS_KEY, TRUST_IMPORTS_VARIABLE, given_settings, trusted_imports
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage
from nnunetv2_hlfd.utilities.json_shape import check_shape

_PLANS = {"configurations": {str: {"batch_size?": int, "data_identifier?": str}}, f"{PLANS_KEY}?": {"trainer?": str}}
_ALLOWED_IMPORTS = ("torch.nn.", "dynamic_network_architectures.")
_FOLDER_NAME = re.compile(r"\w[^/\\:*?\"<>|\x00-\x1f\x7f]*")
# Far above any network that was ever planned; they bound the time and memory that plans can ask for.
_MAX_VOXELS = 2**27  # of a patch
_MAX_NUMBER = 2**13  # channels, kernel sizes, anything else
_MAX_REPEATS = 2**7  # of stages, blocks and convolutions
_MAX_ENTRIES = 2**11  # numbers and texts in one architecture


def check_plans(plans: Mapping[str, Any], source: object) -> None:
    """Check the names that become folders and the settings block.

    Args:
        plans: as read.
        source: named in messages.

    Raises:
        UserError: naming the entry.
    """
    try:
        check_shape(plans, _PLANS)
    except UserError as error:
        raise UserError(f"{source} is damaged: {error}") from error
    try:
        given_settings(plans)
    except ValueError as error:
        raise UserError(f"{source} is damaged: {error}") from error
    block = plans.get(PLANS_KEY, {})
    names = {key: plans.get(key) for key in ("plans_name", "dataset_name")}
    names |= {f"{PLANS_KEY}.{key}": block[key] for key in ("base_plans", "made_from") if key in block}
    for key, name in names.items():
        check_folder_name(key, name, source)


def check_folder_name(key: str, name: object, source: object) -> None:
    """Refuse a name that would lead to another folder.

    Raises:
        UserError: naming the entry.
    """
    if not isinstance(name, str) or not _FOLDER_NAME.fullmatch(name):
        raise UserError(
            f"{source} is damaged: expected a folder's name as '{key}', got {name!r:.80}. A name starts with a letter "
            f'or digit and holds none of / \\ : * ? " < > | and no control characters.'
        )


def check_configuration(plans: PlansManager, configuration: str, source: object) -> None:
    """Check sizes and the network of a configuration, without building anything.

    Raises:
        UserError: naming the entry that is missing, of another kind or out of all proportion, or the class that is
            none of a network's.
    """
    with refuse_damage(source):
        config = plans.get_configuration(configuration)
        patch = config.patch_size
        if len(patch) not in (2, 3) or not all(map(_is_count, patch)) or math.prod(patch) > _MAX_VOXELS:
            raise UserError(f"{source} is damaged: expected a patch_size of 2 or 3 extents, got {patch!r:.80}.")
        spacing = config.spacing
        if len(spacing) != len(patch) or not all(isinstance(size, int | float) and 0 < size < 1e5 for size in spacing):
            raise UserError(f"{source} is damaged: expected a spacing of {len(patch)} extents, got {spacing!r:.80}.")
        if not _is_count(config.batch_size):
            raise UserError(f"{source} is damaged: expected a batch_size above 0, got {config.batch_size!r:.80}.")
        check_architecture(config.configuration["architecture"], source)


def check_architecture(architecture: Mapping[str, Any], source: object) -> None:
    """Check an `architecture` block: what it imports, and that its numbers are those of a network.

    Raises:
        UserError: naming the entry.
    """
    check_imports(architecture, Path(str(source)))
    kwargs = architecture["arch_kwargs"]
    for number, (key, value) in enumerate(_leaves("arch_kwargs", kwargs)):
        limit = _MAX_REPEATS if key.startswith("n_") else _MAX_NUMBER
        if number > _MAX_ENTRIES or (isinstance(value, int | float) and not abs(value) <= limit):  # NaN too
            raise UserError(f"{source} is damaged: no network has {key} = {value!r:.40} in its architecture.")


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every number and text with the key it stands under."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _leaves(str(name), entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _leaves(key, entry)
    else:
        yield key, value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def check_imports(architecture: Mapping[str, Any], source: Path) -> None:
    """Refuse plans that would import anything but network building blocks, or those of packages that the user trusts.

    Raises:
        UserError: naming the offending entry.
    """
    allowed = (*_ALLOWED_IMPORTS, *(f"{package}." for package in trusted_imports()))
    kwargs = architecture["arch_kwargs"]
    names = [architecture["network_class_name"], *(kwargs.get(key) for key in architecture["_kw_requires_import"])]
    for name in names:
        if name is not None and not _is_network_block(name, allowed):
            raise UserError(
                f"{source} asks to import '{name}'. Expected only networks of {' and '.join(allowed)}: plans of "
                f"unknown origin could otherwise run code. If you trust the package of that network: "
                f"{TRUST_IMPORTS_VARIABLE}={shlex.quote(str(name).partition('.')[0])} in the environment."
            )


def _is_network_block(name: object, allowed: tuple[str, ...]) -> bool:
    """Return whether a name leads to a network class of the allowed packages, or (renamed since) nowhere.

    The start of a name says nothing: torch.nn.functional.torch.os.system is walked attribute by attribute.
    """
    if not isinstance(name, str) or not name.startswith(allowed):
        return False
    found = pydoc.locate(name)
    if found is None:
        return True
    return isinstance(found, type) and issubclass(found, nn.Module) and f"{found.__module__}.".startswith(allowed)
