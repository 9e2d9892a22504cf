"""The patch that the networks see for the pictures of a report."""

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunetv2_hlfd.report.patches import lesion_center, read_patch


def test_the_center_is_the_centroid_of_the_slice_with_most_of_the_lesion():
    lesion = np.zeros((3, 8, 8), dtype=bool)
    lesion[0, 0, 0] = True
    lesion[2, 4:7, 1:4] = True
    assert lesion_center(lesion) == (2, 5, 2)
    assert lesion_center(np.zeros((3, 8, 8), dtype=bool)) == (1, 4, 4)


@pytest.fixture
def dataset(tmp_path):
    """nnU-Net's own preprocessed case of 3 x 8 x 10 voxels whose values are their indices."""
    data = np.arange(240, dtype=np.float32).reshape(1, 3, 8, 10)
    labels = np.zeros((1, 3, 8, 10), dtype=np.int16)
    labels[0, 2, 1:3, 7:10] = 2
    labels[0, 2, 0, 0] = 3
    nnUNetDatasetBlosc2.save_case(data, labels, {}, str(tmp_path / "case"), (1, 3, 8, 10), (1, 3, 8, 10))
    return nnUNetDatasetBlosc2(str(tmp_path)), data, labels


def test_the_patch_is_moved_inside_the_image(dataset):
    opened, data, labels = dataset
    patch = read_patch(opened, "case", 2, None, [4, 4])
    assert torch.equal(patch.data, torch.from_numpy(data[:, 2, 0:4, 6:10])[None])
    assert torch.equal(patch.lesion, torch.from_numpy(labels[0, 2, 0:4, 6:10] == 2))
    assert patch.valid.all()
    assert patch.shown is None


def test_a_patch_larger_than_the_image_is_padded_around_it(dataset):
    opened, data, labels = dataset
    patch = read_patch(opened, "case", 2, 3, [6, 8, 16])
    assert patch.data.shape == (1, 1, 6, 8, 16)
    assert torch.equal(patch.data[0, :, 1:4, :, 3:13], torch.from_numpy(data))
    assert patch.data.sum() == data.sum()
    assert torch.equal(patch.lesion[1:4, :, 3:13], torch.from_numpy(labels[0] == 2))
    assert patch.shown == 3
    assert patch.lesion[patch.shown].sum() == 6
    assert (~patch.valid).nonzero().tolist() == [[3, 0, 3]]
