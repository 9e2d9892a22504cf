"""The student's plans: the teacher's own, for its images have to be prepared as the teacher's were."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.deploy.source import Source
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.networks.choice import choose_student
from nnunetv2_hlfd.networks.size import Size, measure_network
from nnunetv2_hlfd.networks.students import AUTO
from nnunetv2_hlfd.settings.settings import PLANS_KEY
from nnunetv2_hlfd.utilities.errors import UserError

_TOPOLOGY = {"n_stages", "kernel_sizes", "strides", "conv_op"}
# nnU-Net's planner: the smallest feature map, and the channels of the first and of the widest stage.
_SMALLEST_MAP, _FIRST_CHANNELS, _MOST_CHANNELS = 4, 32, {2: 512, 3: 320}
_ANY_NUMBER = 999_999


def base_plans(model: ModelFolder, dataset: str, spacing: Sequence[float] | None = None) -> dict[str, Any]:
    """The plans of one configuration alone, without what another training has written into them.

    The network is nnU-Net's own plan for the spacing and patch where the teacher's is none that a student could be made
    from, or the student has a spacing of its own.

    Args:
        model: The teacher's.
        dataset: Name of the data set that they will be used for.
        spacing: Of the student, as chosen; unset: the teacher's.

    Raises:
        UserError: for a spacing finer than the teacher's, or of other axes.
    """
    plans = {key: value for key, value in model.plans.plans.items() if key != PLANS_KEY}
    configuration = dict(model.configuration_manager.configuration)
    for key in ("inherits_from", "previous_stage", "next_stage"):
        configuration.pop(key, None)
    if spacing is not None:
        configuration |= _coarser(configuration, spacing)
    if spacing is not None or not configuration["architecture"]["arch_kwargs"].keys() >= _TOPOLOGY:
        configuration |= _plan_network(configuration)
    return {**plans, "dataset_name": dataset, "configurations": {model.configuration: configuration}}


def student_configuration(model: ModelFolder, options: CompressOptions) -> ConfigurationManager:
    """nnU-Net's view of the student's spacing, patch and topology; UserError as of `base_plans`."""
    plans = base_plans(model, model.plans.dataset_name, options.spacing)
    return PlansManager(plans).get_configuration(model.configuration)


def teacher_size(source: Source) -> Size:
    """Parameters and operations of one of the teacher's networks, as its checkpoint has it."""
    channels, *patch = source.model.input_shape
    return measure_network(source.network(source.folds[0]), patch, channels)


def resolve_student(source: Source, options: CompressOptions) -> str:
    """Name of the student; `auto` is chosen by the size of the teacher's network, not by that of its plans.

    Raises:
        UserError: where no student fits.
    """
    if options.student != AUTO:
        return options.student
    model, student = source.model, student_configuration(source.model, options)
    channels, *patch = model.input_shape
    teacher = teacher_size(source)
    macs = teacher.macs * prod(student.patch_size) // prod(patch)  # of as many voxels
    return choose_student(
        student.configuration["architecture"],
        Size(parameters=teacher.parameters, macs=macs),
        student.patch_size,
        channels,
        model.plans.get_label_manager(model.dataset_json).num_segmentation_heads,
    )


def _coarser(configuration: Mapping[str, Any], wanted: Sequence[float]) -> dict[str, Any]:
    """Spacing, and a patch that is no larger than the teacher's or the median image."""
    own = [float(extent) for extent in configuration["spacing"]]
    chosen = [max(extent, wanted[0]) for extent in own] if len(wanted) == 1 else list(wanted)
    if len(chosen) != len(own) or any(new < old for new, old in zip(chosen, own, strict=True)) or chosen == own:
        raise UserError(
            f"Expected -spacing with one number or {len(own)} that are coarser than the teacher's spacing {own} on "
            f"some axis and finer on none, got {list(wanted)}. The axes are those of plans.json."
        )
    ratios = [old / new for old, new in zip(own, chosen, strict=True)]
    median = [float(extent) for extent in configuration["median_image_size_in_voxels"]][-len(own) :]
    median = [max(round(extent * ratio), 1) for extent, ratio in zip(median, ratios, strict=True)]
    patch = [min(extent, most) for extent, most in zip(configuration["patch_size"], median, strict=True)]
    return {"spacing": chosen, "median_image_size_in_voxels": median, "patch_size": patch}


def _plan_network(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Patch and network as nnU-Net's planner has them for this spacing and about this patch."""
    _, strides, kernels, patch, _ = get_pool_and_conv_props(
        configuration["spacing"], configuration["patch_size"], _SMALLEST_MAP, _ANY_NUMBER
    )
    dimension, stages = len(patch), len(strides)
    features = [min(_FIRST_CHANNELS * 2**stage, _MOST_CHANNELS[dimension]) for stage in range(stages)]
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": features,
            "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
            "kernel_sizes": [list(kernel) for kernel in kernels],
            "strides": [list(stride) for stride in strides],
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    return {"patch_size": [int(extent) for extent in patch], "architecture": architecture}
