"""The sections of a model card. What is not known is said to be not measured, not stated or not recorded."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_hlfd.deploy.card_facts import Facts
from nnunetv2_hlfd.deploy.runtime.colors import label_color
from nnunetv2_hlfd.deploy.runtime.readers import READERS
from nnunetv2_hlfd.deploy.runtime.verify import CHECKSUM_FILE
from nnunetv2_hlfd.models.checkpoints import sha256
from nnunetv2_hlfd.models.labels import foreground_labels
from nnunetv2_hlfd.utilities.markdown import markdown_table
from nnunetv2_hlfd.utilities.text import file_name, one_line, printable

MISSING = "**Missing**"
NOT_MEASURED = "not measured"
_CHECK = """\
| System | Command, in this folder |
|---|---|
| Linux | `sha256sum --check SHA256SUMS` |
| macOS | `shasum -a 256 --check SHA256SUMS` |
| Windows (PowerShell) | `Get-Content SHA256SUMS \\| ForEach-Object { $sum, $file = $_ -split '  ', 2; \
"$file $((Get-FileHash $file).Hash -eq $sum)" }` |"""


def labels(facts: Facts) -> str:
    """Names, values and colors."""
    rows = [["background", "0", "none"]]
    for index, (name, values) in enumerate(foreground_labels(facts.dataset_json).items()):
        rows.append([one_line(name), ", ".join(map(str, values)), label_color(index)])
    return f"## Labels\n\n{markdown_table(['Label', 'Value in the segmentation', 'Color'], rows)}" + (
        "\n\nLabels with several values are regions, which may overlap: a voxel belongs to all that list its value."
        if any(isinstance(value, list | tuple) for value in facts.dataset_json["labels"].values())
        else ""
    )


def usage(facts: Facts) -> str:
    """How to run it, and nothing about what for."""
    if facts.format == "nnunet":
        names = (facts.dataset, facts.configuration_name, facts.provenance["trainer"], facts.plans.plans_name)
        dataset, configuration, trainer, plans = (shlex.quote(printable(name)) for name in names)
        folds = shlex.join(printable(fold) for fold in facts.folds)
        return f"""## Use

Stock nnU-Net 2.8 installs the zip of this folder and predicts:

```bash
nnUNetv2_install_pretrained_model_from_zip ZIP
nnUNetv2_predict -d {dataset} -c {configuration} -f {folds} -tr {trainer} -p {plans} \
-i IMAGES -o SEGMENTATIONS
```"""
    backend = "onnxruntime" if facts.format == "onnx" else "openvino"
    packages = ("numpy", "SimpleITK", backend, *READERS[facts.plans.plans["image_reader_writer"]].packages)
    return f"""## Use

```bash
pip install {" ".join(packages)}
python predict.pyz -i IMAGES -o SEGMENTATIONS
```

Neither PyTorch nor nnU-Net is needed. The program warns of images that are unlike those of the training."""


def teacher(facts: Facts) -> str:
    """Which networks this one learned from."""
    if not facts.teachers:
        known = any("settings" in record for record in facts.provenance["records"].values())
        return f"## Teacher\n\n{'None: trained on labels alone.' if known else 'None recorded.'}"
    rows = [
        [file_name(network["folder"]), network["checkpoint"], network["trainer"], f"`{network['sha256']}`"]
        for network in facts.teachers
    ]
    return f"## Teacher\n\n{markdown_table(['Model', 'Checkpoint', 'Trainer', 'SHA-256'], rows)}"


def agreement(facts: Facts) -> str:
    """What is known of its quality."""
    measured = facts.measured
    rows = [["Agreement with the teacher", _with_images(measured.agreement, measured.images) if measured else ""]]
    rows.append(["Dice against the truth, minus the teacher's", _interval(measured.truth) if measured else ""])
    for fold in facts.folds:
        figures = facts.validation.get(fold)
        rows.append(
            [
                f"Dice on the data set's labels, validation of fold {fold}",
                f"{figures['dice']:.4f} on {figures['cases']} cases" if figures else "",
            ]
        )
        rows.append([f"Cost of 8 bits, fold {fold}", _int8(facts, fold)])
    rows = [[what, value or NOT_MEASURED] for what, value in rows]
    return f"""## Quality

{markdown_table(["", ""], rows)}

Means over cases and labels. They hold for images like those that they were measured on, and for no others."""


def cost(facts: Facts) -> str:
    """Seconds, memory and machine."""
    measured = facts.measured
    rows = [["Seconds per image", ""], ["Main memory at most", ""], ["Machine", ""]]
    if measured:
        memory = f"{measured.memory / 2**30:.2f} GiB" if measured.memory else ""
        rows = [
            ["Seconds per image", f"{measured.seconds:.3g}"],
            ["Main memory at most", memory],
            ["Machine", measured.machine],
        ]
    rows = [[what, value or NOT_MEASURED] for what, value in rows]
    return f"## Cost\n\n{markdown_table(['', ''], rows)}"


def licenses(facts: Facts) -> str:
    """Of weights and data."""
    rows = [[what.capitalize(), one_line(facts.license_of(what) or "not stated")] for what in ("weights", "data")]
    return f"## License\n\n{markdown_table(['Of', 'License'], rows)}"


def versions(facts: Facts) -> str:
    """Packages that it was made and checked with."""
    rows = [[name, version] for name, version in facts.provenance["versions"].items()]
    return f"## Versions\n\nMade and checked with:\n\n{markdown_table(['Package', 'Version'], rows)}"


def checksums(folder: Path, facts: Facts) -> str:
    """Of the networks, and how to check all files."""
    files = [file for file in sorted(folder.glob("fold_*/*")) if file.is_file()]
    rows = [[f"`{file.relative_to(folder).as_posix()}`", f"`{sha256(file)}`"] for file in files]
    program = "" if facts.format == "nnunet" else "\n\n`python predict.pyz --verify` does the same on every system."
    return (
        f"## Checksums\n\n{markdown_table(['File', 'SHA-256'], rows)}\n\n`{CHECKSUM_FILE}` lists all files but itself "
        f"and this card, which the author completes. To check them:\n\n{_CHECK}{program}"
    )


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:+.3f} [{interval[1]:+.3f}, {interval[2]:+.3f}]"


def _with_images(interval: Sequence[float] | None, number: int) -> str:
    if interval is None:
        return ""
    return f"Dice {interval[0]:.3f} [{interval[1]:.3f}, {interval[2]:.3f}] on {number} held-out images"


def _int8(facts: Facts, fold: str) -> str:
    found = facts.provenance.get(f"int8_fold_{fold}")
    if not found:
        return "does not apply: the weights are not stored in 8 bits"
    words = f"Dice {found['dice_float32']:.4f} in float32, {found['dice_int8']:.4f} in 8 bits, {found['cases']} cases"
    seen = found["cases_that_may_have_been_trained_on"]
    return f"{words}, of which {seen} may have been trained on" if seen else words
