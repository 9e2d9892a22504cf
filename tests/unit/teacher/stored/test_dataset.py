"""Stored maps beside preprocessed cases: what nnU-Net's loader makes of them, with and without augmentation.

The cases are small images in nnU-Net's two file formats. Their maps are the labels themselves as certain predictions,
so that a map has to show the label wherever the loader has cut, warped and mirrored it.
"""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy.ndimage import gaussian_filter

from nnunetv2_hlfd.losses.divergence import probabilities
from nnunetv2_hlfd.teacher.stored.dataset import StackedCase, WithMaps, maps_file, open_maps, write_maps
from nnunetv2_hlfd.teacher.stored.encoding import decode, encode
from nnunetv2_hlfd.training.augmentation import CarryMaps, make_reproducible

LABELS = {"background": 0, "organ": 1, "tumor": 2}
REGIONS = {"background": 0, "all": [1, 2], "tumor": 2}
KINDS = {
    "2d": {},
    "2d at borders": {"size": (5, 20, 18)},
    "3d": {"patch": (16, 24, 20)},
    "dummy 2d": {"patch": (8, 24, 24), "dummy_2d": True},
    "cascade": {"patch": (16, 20, 20), "cascade": True},
    "regions": {"labels": REGIONS, "order": [1, 2]},
    "regions and ignore": {"labels": {**REGIONS, "ignore": 3}, "order": [1, 2], "patch": (16, 20, 20)},
    "ignore": {"labels": {**LABELS, "ignore": 3}},
}


class Kind:
    """One kind of training: its data set with previous segmentations and maps, and its loader."""

    def __init__(self, folder, dataset_class=nnUNetDatasetBlosc2, **options):
        self.patch = options.get("patch", (24, 24))
        self.dummy_2d, self.cascade = options.get("dummy_2d", False), options.get("cascade", False)
        self.labels = LabelManager(options.get("labels", LABELS), options.get("order"))
        self.maps = folder / "maps"
        data, previous = folder / "data", folder / "previous"
        for each in (self.maps, data, previous):
            each.mkdir(parents=True)
        for index in range(3):
            case = f"case_{index}"
            image, segmentation = self._case(options.get("size", (20, 40, 36)), np.random.default_rng(index))
            places = [np.argwhere(segmentation == label) for label in self.labels.all_labels]
            properties = {"class_locations": dict(zip(self.labels.all_labels, places, strict=True))}
            properties["class_locations"][(-1, *self.labels.all_labels)] = np.argwhere(segmentation < 3)
            blocks = {"chunks": segmentation.shape, "blocks": segmentation.shape}
            blocks = blocks if dataset_class is nnUNetDatasetBlosc2 else {}
            dataset_class.save_case(image, segmentation, properties, str(data / case), **blocks)
            dataset_class.save_seg(segmentation[0].clip(0, 2), str(previous / case))
            write_maps(maps_file(self.maps, case), self._codes(segmentation[0]), self.patch)
        self.dataset = dataset_class(str(data), None, str(previous) if self.cascade else None)

    def _case(self, size, generator):
        noise = gaussian_filter(generator.normal(size=(1, *size)), (0, 2, 4, 4))
        segmentation = np.digitize(noise / noise.std(), [0.3, 1]).astype(np.int8)
        if self.labels.has_ignore_label:
            segmentation[:, :, : size[1] // 4] = 3
        return generator.normal(size=(1, *size)).astype(np.float32), segmentation

    def _codes(self, segmentation):
        """The labels as certain predictions; what has no label is background."""
        classes = self.labels.foreground_regions if self.labels.has_regions else [0, 1, 2]
        inside = [np.isin(segmentation, each) for each in classes]
        return encode(torch.from_numpy(np.stack(inside) * 200.0 - 100), self.labels.has_regions).numpy()

    def pipeline(self):
        pipeline = nnUNetTrainer.get_training_transforms(
            self.patch,
            (-3.14, 3.14),
            [[1.0] * len(self.patch), [0.5] * len(self.patch)],
            tuple(range(len(self.patch))),
            self.dummy_2d,
            use_mask_for_norm=[True],
            is_cascaded=self.cascade,
            foreground_labels=self.labels.foreground_labels,
            regions=self.labels.foreground_regions if self.labels.has_regions else None,
            ignore_label=self.labels.ignore_label,
        )
        make_reproducible(pipeline)
        return pipeline

    def loader(self, *, with_maps, pipeline=None):
        larger = [extent if self.dummy_2d and axis == 0 else extent + 8 for axis, extent in enumerate(self.patch)]
        dataset, pipeline = self.dataset, pipeline or self.pipeline()
        if with_maps:
            dataset, pipeline = WithMaps(dataset, self.maps), CarryMaps(pipeline, self.labels.num_segmentation_heads)
        return nnUNetDataLoader(dataset, 3, larger, self.patch, self.labels, 0.33, transforms=pipeline)

    def batches(self, number, **options):
        loader = self.loader(**options)
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        return [next(loader) for _ in range(number)]


@pytest.mark.parametrize("name", KINDS)
def test_batches_with_and_without_maps_are_equal_bit_for_bit(name, tmp_path):
    kind = Kind(tmp_path, **KINDS[name])
    channels, found, voxels = kind.labels.num_segmentation_heads, 0, 0
    pairs = zip(kind.batches(8, with_maps=False), kind.batches(8, with_maps=True), strict=True)
    for plain, carried in pairs:
        assert plain["keys"].tolist() == carried["keys"].tolist()
        assert torch.equal(plain["data"], carried["data"][:, :-channels])
        assert len(plain["target"]) == len(carried["target"]) == 2
        assert all(map(torch.equal, plain["target"], carried["target"]))
        maps, target = decode(carried["data"][:, -channels:], kind.labels.has_regions), carried["target"][0]
        if kind.labels.has_regions:
            ignored = target[:, 2:].any(dim=1, keepdim=True).expand_as(maps)
            same = (maps > 0) == target[:, :2].bool()
        else:
            ignored = target == 3
            same = maps.argmax(dim=1, keepdim=True) == target
        found += int(same[~ignored].sum())
        voxels += int((~ignored).sum())
        assert target.float().std() > 0
    assert found / voxels > 0.999


def test_what_is_outside_the_image_is_background(tmp_path):
    kind = Kind(tmp_path, size=(5, 12, 10))
    [batch] = kind.batches(1, with_maps=True)
    corners = probabilities(decode(batch["data"][:, -3:], regions=False), 1.0, regions=False)[..., 0, 0]
    torch.testing.assert_close(corners, torch.tensor([[1.0, 0, 0]] * 3))


@pytest.mark.parametrize("dataset_class", [nnUNetDatasetBlosc2, nnUNetDatasetNumpy])
def test_a_stacked_case_is_cut_like_one_array(dataset_class, tmp_path):
    kind = Kind(tmp_path, dataset_class)
    dataset = WithMaps(kind.dataset, kind.maps)
    case, segmentation, previous, properties = dataset.load_case("case_1")
    image = kind.dataset.load_case("case_1")[0][:]
    whole = np.concatenate([image, open_maps(maps_file(kind.maps, "case_1"))[:]])
    assert (case.shape, case.ndim, case.dtype) == (whole.shape, 4, whole.dtype)
    for key in ((slice(None), slice(0, 20), slice(3, 9), slice(0, 1)), (slice(None),) * 4):
        np.testing.assert_array_equal(case[key], whole[key])
    assert (segmentation.shape, previous) == ((1, *case.shape[1:]), None)
    assert "class_locations" in properties
    with pytest.raises(IndexError, match="Expected all channels"):
        case[(slice(0, 1), slice(None), slice(None), slice(None))]


def test_an_image_of_another_type_is_cut_as_float32():
    case = StackedCase(np.ones((1, 2, 2, 2)), np.full((2, 2, 2, 2), 255, np.uint8))
    assert case[(slice(None),) * 4].dtype == np.float32
    assert case[(slice(None),) * 4].max() == 255


def test_loader_and_pipeline_can_be_sent_to_other_processes(tmp_path):
    kind = Kind(tmp_path)
    loader = kind.loader(with_maps=True)
    next(loader)  # opened files would not survive
    [expected] = kind.batches(1, with_maps=True)
    for other in (pickle.loads(pickle.dumps(loader)), copy.deepcopy(loader)):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        assert torch.equal(next(other)["data"], expected["data"])
