"""The model card of an export: README.md with the front matter that Hugging Face reads."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from nnunetv2_hlfd.deploy.card_facts import Facts, read_facts
from nnunetv2_hlfd.deploy.card_images import images
from nnunetv2_hlfd.deploy.card_sections import (
    MISSING,
    agreement,
    checksums,
    cost,
    labels,
    licenses,
    teacher,
    usage,
    versions,
)
from nnunetv2_hlfd.utilities.atomic import write_text
from nnunetv2_hlfd.utilities.json_file import refuse_damage
from nnunetv2_hlfd.utilities.markdown import as_plain

CARD_FILE = "README.md"
_LIBRARIES = {"nnunet": "nnunetv2", "onnx": "onnxruntime", "openvino": "openvino"}
_NOT_A_MEDICAL_DEVICE = (
    "**This is not a medical device.** It has not been approved or certified by any authority, and nothing in this "
    "card shows that it is safe or useful for diagnosis or treatment. Whoever uses it on patients is responsible."
)
# https://huggingface.co/docs/hub/repositories-licenses
_HUGGING_FACE_LICENSES = (
    *("afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc"),
    *("cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0"),
    *("cc-by-nc-nd-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc0-1.0", "cdla-permissive-2.0", "epl-2.0", "eupl-1.2", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-3.0"),
    *("mit", "mpl-2.0", "ms-pl", "odbl", "openrail", "pddl", "unlicense", "wtfpl", "zlib"),
)


def write_card(folder: Path) -> None:
    """Write README.md into an export's folder, from all other files there but the checksums.

    Raises:
        UserError: for damaged files, or where it cannot be written.
    """
    with refuse_damage(folder):
        text = _card(folder, read_facts(folder))
    write_text(folder / CARD_FILE, text)


def _card(folder: Path, facts: Facts) -> str:
    front_matter = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True, width=1000)
    sections = [
        f"# {as_plain(facts.title)}",
        _NOT_A_MEDICAL_DEVICE,
        f"## Intended use\n\n{MISSING}: the author of the model has to write here for which patients, images and "
        f"questions it is meant, for which it is not, and what was found where it failed.",
        labels(facts),
        images(facts),
        usage(facts),
        teacher(facts),
        agreement(facts),
        cost(facts),
        licenses(facts),
        versions(facts),
        checksums(folder, facts),
    ]
    return f"---\n{front_matter}---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(facts: Facts) -> dict[str, Any]:
    tags = ["medical-imaging", "image-segmentation", "nnunet", facts.format]
    if facts.teachers:
        tags.append("knowledge-distillation")
    content: dict[str, Any] = {
        **_license(facts.license_of("weights")),
        "library_name": _LIBRARIES[facts.format],
        "pipeline_tag": "image-segmentation",
        "tags": list(dict.fromkeys(tags)),
    }
    if results := _results(facts):
        content["model-index"] = [{"name": as_plain(facts.source), "results": results}]
    return content


def _license(stated: str | None) -> dict[str, str]:
    """Hugging Face's keys: an identifier of its list, or `other` with a name; `unknown` where none is stated."""
    if stated is None:
        return {"license": "unknown"}
    if stated.lower() in _HUGGING_FACE_LICENSES:
        return {"license": stated.lower()}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", stated.lower()).strip("-") or "other"}


def _results(facts: Facts) -> list[dict[str, Any]]:
    found = [
        _result(facts, f"Dice of fold {fold} on its {figures['cases']} validation cases", figures["dice"])
        for fold, figures in facts.validation.items()
    ]
    if facts.measured and facts.measured.agreement:
        name = f"Dice with its teacher on {facts.measured.images} held-out images"
        found.append(_result(facts, name, facts.measured.agreement[0]))
    return found


def _result(facts: Facts, name: str, value: float) -> dict[str, Any]:
    metrics: Sequence[dict[str, Any]] = [{"type": "dice", "name": as_plain(name), "value": round(value, 4)}]
    return {
        "task": {"type": "image-segmentation", "name": "Image segmentation"},
        "dataset": dict.fromkeys(("type", "name"), as_plain(facts.dataset)),
        "metrics": list(metrics),
    }
