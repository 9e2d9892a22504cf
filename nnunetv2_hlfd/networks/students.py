"""A student written as the `architecture` block of nnU-Net plans.

Only classes of dynamic_network_architectures are used, so stock nnU-Net builds the student from its plans.
"""

from copy import deepcopy
from typing import Any

from nnunetv2_hlfd.networks.size import measure_size
from nnunetv2_hlfd.settings.settings import STUDENTS
from nnunetv2_hlfd.utilities.errors import UserError

_RESIDUAL_UNET = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
# ResNet18 with nnU-Net's full-resolution stage in front: thin stage, stem, layer1..4 (He et al., CVPR 2016, Table 1).
_RESNET18_FEATURES = (16, 64, 64, 128, 256, 512)
_RESNET18_BLOCKS = (1, 1, 2, 2, 2, 2)
_AUTO_SHARE = 0.45
_MIN_STAGES = 3


def student_architecture(
    plans_architecture: dict[str, Any], choice: str, patch_size: list[int], num_input_channels: int, num_heads: int
) -> dict[str, Any]:
    """Write the student's `architecture` block.

    Args:
        plans_architecture: the block of the plans' own network.
        choice: one of `STUDENTS`. `auto` is the widest of the ResNet18 students whose parameters and
            multiply-accumulates are both at most 0.45 of the plans' own network.
        patch_size: for counting operations.
        num_input_channels: of the network.
        num_heads: segmentation outputs of the network.

    Returns:
        A new block; the plans' one is left as it is.

    Raises:
        UserError: for an unknown choice, plans with fewer than 3 stages, an architecture whose channels cannot be
            divided, or (`auto`) where even the smallest student is too large.
    """
    if choice not in STUDENTS:
        raise UserError(f"Expected one of {', '.join(STUDENTS)} for the setting 'student', got '{choice}'.")
    if choice == "plans":
        return deepcopy(plans_architecture)
    if choice.startswith("unet_w"):
        return _narrow(plans_architecture, divisor=int(choice.removeprefix("unet_w")))
    if choice != "auto":
        return _resnet18(plans_architecture, divisor=int(choice.removeprefix("resnet18").removeprefix("_w") or 1))
    limit = measure_size(plans_architecture, patch_size, num_input_channels, num_heads)
    for divisor in (1, 2, 4, 8):
        block = _resnet18(plans_architecture, divisor=divisor)
        size = measure_size(block, patch_size, num_input_channels, num_heads)
        if size.parameters <= _AUTO_SHARE * limit.parameters and size.macs <= _AUTO_SHARE * limit.macs:
            return block
    raise UserError(
        f"No ResNet18 student is smaller than {_AUTO_SHARE} of the plans' own network ({limit}). "
        f"Choose one by the setting 'student': {', '.join(STUDENTS)}."
    )


def _resnet18(plans_architecture: dict[str, Any], divisor: int) -> dict[str, Any]:
    plans_kwargs = plans_architecture["arch_kwargs"]
    available = plans_kwargs.get("n_stages", 0)
    if available < _MIN_STAGES:
        raise UserError(
            f"Expected plans with at least {_MIN_STAGES} stages for a ResNet18 student, got {available}: the patch is "
            f"too small to be divided more often. Use the setting student unet_w2, unet_w4 or unet_w8 instead."
        )
    stages = min(len(_RESNET18_FEATURES), available)
    kept = (
        "conv_op",
        "conv_bias",
        "norm_op",
        "norm_op_kwargs",
        "dropout_op",
        "dropout_op_kwargs",
        "nonlin",
        "nonlin_kwargs",
    )
    return {
        "network_class_name": _RESIDUAL_UNET,
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [channels // divisor for channels in _RESNET18_FEATURES[:stages]],
            "kernel_sizes": deepcopy(plans_kwargs["kernel_sizes"][:stages]),
            "strides": deepcopy(plans_kwargs["strides"][:stages]),
            "n_blocks_per_stage": list(_RESNET18_BLOCKS[:stages]),
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            **{key: deepcopy(plans_kwargs.get(key)) for key in kept},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _narrow(plans_architecture: dict[str, Any], divisor: int) -> dict[str, Any]:
    """The plans' own topology with its channels divided."""
    block = deepcopy(plans_architecture)
    kwargs = block["arch_kwargs"]
    if "features_per_stage" not in kwargs:
        raise UserError(
            f"Expected an architecture with features_per_stage for student unet_w{divisor}, got "
            f"{block['network_class_name']}. Choose a resnet18 student instead."
        )
    for key in ("features_per_stage", "bottleneck_channels", "stem_channels"):
        if kwargs.get(key) is not None:
            kwargs[key] = _divide(kwargs[key], divisor)
    return block


def _divide(channels: Any, divisor: int) -> Any:
    if isinstance(channels, int):
        return max(1, channels // divisor)
    return [max(1, each // divisor) for each in channels]
