"""The students: each writes its `architecture` block of nnU-Net plans from that of the plans' own network.

Only classes of dynamic_network_architectures are used, so stock nnU-Net builds the student from its plans. A new family
is a function and its lines in `STUDENTS`.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any

from nnunetv2_hlfd.utilities.errors import UserError

Architecture = dict[str, Any]

_RESIDUAL_UNET = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
# ResNet18 with nnU-Net's full-resolution stage in front: thin stage, stem, layer1..4 (He et al., CVPR 2016, Table 1).
_RESNET18_FEATURES = (16, 64, 64, 128, 256, 512)
_RESNET18_BLOCKS = (1, 1, 2, 2, 2, 2)
_MIN_STAGES = 3


def resnet18(plans_architecture: Architecture, divisor: int) -> Architecture:
    """ResNet18 with the plans' strides and kernels, its channels divided.

    Raises:
        UserError: for plans with fewer than 3 stages.
    """
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


def narrow(plans_architecture: Architecture, divisor: int) -> Architecture:
    """The plans' own topology with its channels divided.

    Raises:
        UserError: for an architecture without features_per_stage.
    """
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
    return [max(1, stage // divisor) for stage in channels]


# Name (value of the setting `student`) -> what writes its block. The order within a family is from wide to narrow.
STUDENTS: Mapping[str, Callable[[Architecture], Architecture]] = {
    "resnet18": partial(resnet18, divisor=1),
    "resnet18_w2": partial(resnet18, divisor=2),
    "resnet18_w4": partial(resnet18, divisor=4),
    "resnet18_w8": partial(resnet18, divisor=8),
    "unet_w2": partial(narrow, divisor=2),
    "unet_w4": partial(narrow, divisor=4),
    "unet_w8": partial(narrow, divisor=8),
    "plans": deepcopy,
}
AUTO = "auto"
CHOICES = (AUTO, *STUDENTS)
