"""The student's plans: the teacher's own, for its images have to be prepared as the teacher's were."""

from typing import Any

from nnunetv2_hlfd.compress.options import Options
from nnunetv2_hlfd.deploy.source import Source
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.networks.choice import choose_student
from nnunetv2_hlfd.networks.size import Size, measure_network
from nnunetv2_hlfd.networks.students import AUTO
from nnunetv2_hlfd.settings.settings import PLANS_KEY


def base_plans(model: ModelFolder, dataset: str) -> dict[str, Any]:
    """The plans of one configuration alone, without what another training has written into them.

    Args:
        model: The teacher's.
        dataset: Name of the data set that they will be used for.
    """
    plans = {key: value for key, value in model.plans.plans.items() if key != PLANS_KEY}
    configuration = dict(model.configuration_manager.configuration)
    for key in ("inherits_from", "previous_stage", "next_stage"):
        configuration.pop(key, None)
    return {**plans, "dataset_name": dataset, "configurations": {model.configuration: configuration}}


def teacher_size(source: Source) -> Size:
    """Parameters and operations of one of the teacher's networks, as its checkpoint has it."""
    channels, *patch = source.model.input_shape
    return measure_network(source.network(source.folds[0]), patch, channels)


def resolve_student(source: Source, options: Options) -> str:
    """Name of the student; `auto` is chosen by the size of the teacher's network, not by that of its plans.

    Raises:
        UserError: where no student fits.
    """
    if options.student != AUTO:
        return options.student
    model = source.model
    return choose_student(
        model.configuration_manager.configuration["architecture"],
        teacher_size(source),
        model.input_shape[1:],
        model.input_shape[0],
        model.plans.get_label_manager(model.dataset_json).num_segmentation_heads,
    )
