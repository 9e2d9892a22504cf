"""What is changed in nnU-Net's augmentation."""

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import ApplyRandomBinaryOperatorTransform
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

# They act on a cascade's previous segmentation, not on the image: without them the network copies it.
_OF_THE_CASCADE = (ApplyRandomBinaryOperatorTransform, RemoveRandomConnectedComponentFromOneHotEncodingTransform)


def keep_rotation_and_flips(pipeline: ComposeTransforms) -> None:
    """Leave rotation and mirroring of the image, as in the paper, and what a cascade does to its previous stage."""
    pipeline.transforms = [
        transform for transform in pipeline.transforms if not _changes_the_image_at_random(transform)
    ]
    for transform in pipeline.transforms:
        if isinstance(transform, SpatialTransform):
            transform.p_scaling = 0


def make_reproducible(pipeline: ComposeTransforms) -> None:
    """Take away what depends on something else than the seed: timing and earlier batches."""
    for random_transform in pipeline.transforms:
        if not isinstance(random_transform, RandomTransform):
            continue
        if isinstance(random_transform.transform, GaussianBlurTransform):
            random_transform.transform.benchmark = False  # it picks its algorithm by timing
        elif isinstance(random_transform.transform, _OF_THE_CASCADE):
            random_transform.transform = _InFixedOrder(random_transform.transform)


class _InFixedOrder(BasicTransform):
    """A transform of the cascade that forgets how it shuffled its channels: they are shuffled in place."""

    def __init__(self, transform: BasicTransform) -> None:
        super().__init__()
        self.transform, self.channels = transform, tuple(transform.channel_idx)

    def __call__(self, **data: Any) -> dict[str, Any]:
        self.transform.channel_idx = list(self.channels)
        return self.transform(**data)


class CarryMaps(BasicTransform):
    """A pipeline that also cuts, warps and mirrors maps, which are the image's last channels before and after it.

    The pipeline never sees them as channels of the image: it draws numbers for each channel, and a cascade counts its
    channels from the last one. So images and segmentations are those of the pipeline without maps, bit for bit.

    Args:
        pipeline: nnU-Net's.
        channels: of the maps.
    """

    def __init__(self, pipeline: BasicTransform, channels: int) -> None:
        super().__init__()
        self.pipeline, self.channels = pipeline, channels

    def __call__(self, **data: Any) -> dict[str, Any]:
        """Augment one patch: an image (C + K, *spatial), its segmentation."""
        image, maps = data["image"][: -self.channels], data["image"][-self.channels :]
        augmented = self.pipeline(**{**data, "image": image, "regression_target": maps})
        return {**augmented, "image": torch.cat([augmented["image"], augmented["regression_target"]])}


def _changes_the_image_at_random(transform: BasicTransform) -> bool:
    return isinstance(transform, RandomTransform) and not isinstance(transform.transform, _OF_THE_CASCADE)
