"""The section of a model card on the images that the model expects."""

from collections.abc import Sequence

from nnunetv2_hlfd.deploy.card_facts import Facts
from nnunetv2_hlfd.models.labels import channel_names
from nnunetv2_hlfd.utilities.markdown import markdown_table
from nnunetv2_hlfd.utilities.text import one_line

_READERS = {
    "SimpleITKIO": "any that SimpleITK reads",
    "SimpleITKIOWithReorient": "any that SimpleITK reads",
    "NibabelIO": "NIfTI",
    "NibabelIOWithReorient": "NIfTI",
    "NaturalImage2DIO": "2d, with all colors in one file",
    "Tiff3DIO": "3d tif, with the spacing in CASE.json",
}


def images(facts: Facts) -> str:
    """Channels, units, spacing and orientation that the model expects."""
    configuration, plans = facts.configuration, facts.plans
    intensities = plans.foreground_intensity_properties_per_channel
    schemes = configuration.normalization_schemes
    rows = [
        [
            str(number),
            one_line(name),
            _unit(name, scheme),
            scheme,
            _range(intensities.get(str(number), {})),
        ]
        for number, (name, scheme) in enumerate(zip(channel_names(facts.dataset_json), schemes, strict=False))
    ]
    reader, ending = plans.plans["image_reader_writer"], facts.dataset_json["file_ending"]
    head = ["Channel", "Name", "Unit", "Normalization", "0.5 to 99.5 percentile inside the labels"]
    files = f"CASE_0000{ending}, further channels CASE_0001{ending} and so on; "
    facts_of_all = [
        ["Files", f"{files}{_READERS.get(reader, 'as its reader takes')} (nnU-Net's {reader})"],
        ["Dimensions of a patch", f"{_times(configuration.patch_size)} voxels"],
        ["Spacing", _spacing(facts)],
        ["Orientation", _orientation(facts, reader)],
        ["Cases of the data set", str(facts.dataset_json.get("numTraining", "not recorded"))],
    ]
    return f"""## Images

{markdown_table(head, rows)}

{markdown_table(["", ""], facts_of_all)}

Axes are those of nnU-Net's arrays, (z, y, x). Images unlike these are segmented all the same, and badly."""


def _unit(name: str, scheme: str) -> str:
    if scheme == "CTNormalization" or name.strip().lower() == "ct":
        return "Hounsfield units"
    if scheme == "RGBTo01Normalization":
        return "0 to 255"
    if scheme == "NoNormalization":
        return "that of the training images; not recorded"
    return "any: each image is normalized by itself"


def _range(intensities: dict[str, float]) -> str:
    if "percentile_00_5" not in intensities:
        return "not recorded"
    return f"{intensities['percentile_00_5']:.4g} to {intensities['percentile_99_5']:.4g}"


def _times(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)


def _spacing(facts: Facts) -> str:
    used = f"{_times(facts.configuration.spacing)} mm in the network, to which images are resampled"
    if not facts.spacing:
        return f"{used}; that of the training images is not recorded"
    least, most = zip(*facts.spacing, strict=True)
    if not facts.has_fingerprint:
        return f"{used}; the training images had a median of {_times(least)} mm"
    found = _times(least) if least == most else f"{_times(least)} to {_times(most)}"
    return f"{used}; the training images had {found} mm"


def _orientation(facts: Facts, reader: str) -> str:
    if reader.endswith("WithReorient"):
        return "any: images are turned to RAS, and segmentations back"
    if not reader.startswith(("SimpleITK", "Nibabel")):
        return "that of the training images; files of this kind do not tell"
    found = facts.provenance["orientations"]
    if not found:
        return "that of the training images, which nnU-Net does not record; images are not turned"
    listed = ", ".join(f"{name} ({count})" for name, count in found.items())
    return f"of the voxel axes (x, y, z), as the training images had: {listed}; images are not turned"
