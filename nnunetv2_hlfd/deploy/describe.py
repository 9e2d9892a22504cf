"""What an exported network has to know about images and labels, from nnU-Net's plans."""

from collections.abc import Mapping
from typing import Any

from nnunetv2_hlfd.deploy.inputs import spacing_range, training_orientations
from nnunetv2_hlfd.deploy.runtime.description import Description, Label, Normalization, Resampling, Training
from nnunetv2_hlfd.deploy.runtime.readers import READERS
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.models.labels import channel_names, foreground_labels
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import refuse_damage

_SCHEMES = (
    "CTNormalization",
    "ZScoreNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)


def describe(model: ModelFolder, *, mirroring: bool) -> Description:
    """Describe the part of the plans that prediction without nnU-Net needs.

    Raises:
        UserError: naming what only nnU-Net itself can do: a cascade, other readers, preprocessors, resampling.
    """
    with refuse_damage(model.path / "plans.json"):
        plans, configuration = model.plans, model.configuration_manager
        _refuse_special(model)
        labels = plans.get_label_manager(model.dataset_json)
        intensities = plans.foreground_intensity_properties_per_channel
        normalization = tuple(
            _normalization(scheme, use_mask, intensities[str(channel)])
            for channel, (scheme, use_mask) in enumerate(
                zip(configuration.normalization_schemes, configuration.use_mask_for_norm, strict=True)
            )
        )
        return Description(
            name=model.name,
            file_ending=model.dataset_json["file_ending"],
            reader=plans.plans["image_reader_writer"],
            transpose=tuple(plans.transpose_forward),
            spacing=tuple(map(float, configuration.spacing)),
            patch_size=tuple(map(int, configuration.patch_size)),
            normalization=normalization,
            resample_image=_resampling(configuration.configuration, "data"),
            resample_logits=_resampling(configuration.configuration, "probabilities"),
            heads=labels.num_segmentation_heads,
            regions_class_order=tuple(labels.regions_class_order) if labels.has_regions else None,
            mirror_axes=model.mirror_axes if mirroring else None,
            channel_names=tuple(channel_names(model.dataset_json)),
            labels=tuple(
                Label(name=name, values=values) for name, values in foreground_labels(model.dataset_json).items()
            ),
            training=Training(
                spacing=spacing_range(model.path, plans.plans), orientations=tuple(training_orientations(model))
            ),
        )


def _refuse_special(model: ModelFolder) -> None:
    """Name what the runtime without nnU-Net cannot do."""
    configuration = model.configuration_manager
    reader = model.plans.plans["image_reader_writer"]
    found = []
    if configuration.previous_stage_name:
        found.append("a cascade, whose input holds another model's prediction")
    if reader not in READERS:
        found.append(f"images read by {reader} (expected {', '.join(READERS)})")
    if configuration.preprocessor_name != "DefaultPreprocessor":
        found.append(f"the preprocessor {configuration.preprocessor_name} (expected DefaultPreprocessor)")
    if unknown := sorted(set(configuration.normalization_schemes) - set(_SCHEMES)):
        found.append(f"the normalization {', '.join(unknown)} (expected nnU-Net's own)")
    for kind in ("data", "probabilities"):
        name = configuration.configuration[f"resampling_fn_{kind}"]
        if name != "resample_data_or_seg_to_shape":
            found.append(f"resampling by {name} (expected resample_data_or_seg_to_shape)")
    if found:
        raise UserError(
            f"Only nnU-Net can prepare the images of {model.name}: {'; '.join(found)}. Export it with -to "
            f"nnunet, or predict with nnUNetv2_hlfd predict."
        )


def _normalization(scheme: str, use_mask: bool, intensities: Mapping[str, float]) -> Normalization:
    return Normalization(
        scheme=scheme,
        use_mask=bool(use_mask),
        mean=float(intensities["mean"]),
        std=float(intensities["std"]),
        lower=float(intensities["percentile_00_5"]),
        upper=float(intensities["percentile_99_5"]),
    )


def _resampling(configuration: Mapping[str, Any], kind: str) -> Resampling:
    arguments = configuration[f"resampling_fn_{kind}_kwargs"]
    return Resampling(
        order=int(arguments["order"]), order_z=int(arguments["order_z"]), force_separate_z=arguments["force_separate_z"]
    )
