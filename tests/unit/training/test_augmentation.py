"""What is changed in nnU-Net's augmentation, on the pipelines that nnU-Net itself makes."""

import random

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_hlfd.training.augmentation import keep_rotation_and_flips, make_reproducible

PATCH = (8, 16, 16)


def pipeline(*, cascade):
    return nnUNetTrainer.get_training_transforms(
        PATCH,
        (-0.5, 0.5),
        None,
        (0, 1, 2),
        False,
        use_mask_for_norm=[False],
        is_cascaded=cascade,
        foreground_labels=[1, 2, 3],
    )


def names(transforms):
    inner = [getattr(each, "transform", each) for each in transforms.transforms]
    return [type(getattr(each, "transform", each)).__name__ for each in inner]


def augment(transforms, seed):
    """One patch with a previous segmentation of three labels under a seed."""
    generator = torch.Generator().manual_seed(7)
    image = torch.rand(1, *PATCH, generator=generator)
    segmentation = torch.randint(0, 4, (2, *PATCH), generator=generator, dtype=torch.int16)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    return transforms(image=image, segmentation=segmentation)["image"]


def test_rotation_and_flips_only():
    transforms = pipeline(cascade=False)
    keep_rotation_and_flips(transforms)
    assert names(transforms) == ["SpatialTransform", "MirrorTransform", "RemoveLabelTransform"]
    assert transforms.transforms[0].p_scaling == 0
    assert transforms.transforms[0].p_rotation > 0


def test_the_previous_segmentation_of_a_cascade_is_augmented_as_nnunet_does():
    """It is no image; a network that always sees it whole learns to copy it."""
    transforms = pipeline(cascade=True)
    keep_rotation_and_flips(transforms)
    make_reproducible(transforms)
    assert names(transforms) == [
        "SpatialTransform",
        "MirrorTransform",
        "RemoveLabelTransform",
        "MoveSegAsOneHotToDataTransform",
        "ApplyRandomBinaryOperatorTransform",
        "RemoveRandomConnectedComponentFromOneHotEncodingTransform",
    ]


def _always(transforms):
    """The cascade's transforms in every patch, so that each call shuffles."""
    for each in transforms.transforms[-2:]:
        each.apply_probability = 1
    return transforms


@pytest.mark.parametrize("mended", [True, False])
def test_a_patch_depends_on_the_seed_and_not_on_the_patches_before(mended):
    """nnU-Net shuffles the channels of a cascade in place; `mended` False shows that this test sees it."""
    fresh, used = _always(pipeline(cascade=True)), _always(pipeline(cascade=True))
    for each in (fresh, used):
        keep_rotation_and_flips(each)
        if mended:
            make_reproducible(each)
    for seed in range(5):
        augment(used, seed)
    same = [torch.equal(augment(fresh, seed), augment(used, seed)) for seed in range(10, 14)]
    assert all(same) == mended
