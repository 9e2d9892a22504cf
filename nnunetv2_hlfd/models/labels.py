"""Labels and channels as dataset.json names them."""

from collections.abc import Mapping
from typing import Any


def foreground_labels(dataset_json: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> values in a label map of every label or region but background and ignore."""
    return {
        name: tuple(map(int, value)) if isinstance(value, list | tuple) else (int(value),)
        for name, value in dataset_json["labels"].items()
        if name not in ("background", "ignore")
    }


def channel_names(dataset_json: Mapping[str, Any]) -> list[str]:
    """The channels of an image, in their order; nnU-Net v1 called them modality."""
    names = dataset_json.get("channel_names") or dataset_json["modality"]
    return [str(name) for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
