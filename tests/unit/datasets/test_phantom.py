"""The CT phantom: what it guarantees about anatomy, labels and the written nnU-Net data set."""

import json

import numpy as np
import pytest
import SimpleITK
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy.ndimage import center_of_mass, distance_transform_edt, label

from nnunetv2_hlfd.datasets import anatomy
from nnunetv2_hlfd.datasets.phantom import simulate_case, write_phantom_dataset

KIDNEY, TUMOR, IGNORE = 1, 2, 3
TINY = ((8, 48, 48), (20.0, 7.5, 7.5))
SMALL = ((24, 64, 64), (7.0, 5.5, 5.5))


@pytest.fixture(scope="module")
def cases():
    return [simulate_case(*SMALL, seed) for seed in range(8)]


def air_outside(hu):
    regions, _ = label(hu < -500)
    return regions == regions[0, 0, 0]


def write_tiny(folder, **options):
    return write_phantom_dataset(folder, **{"num_training": 2, "size": TINY[0], "spacing": TINY[1]} | options)


def read(folder, name):
    return SimpleITK.ReadImage(str(folder / f"{name}.nii.gz"))


def test_arrays_have_the_requested_shape_and_the_documented_types():
    hu, labels = simulate_case((9, 40, 52), (10.0, 8.0, 7.0), seed=3)
    assert hu.shape == labels.shape == (9, 40, 52)
    assert (hu.dtype, labels.dtype) == (np.int16, np.uint8)


def test_one_seed_always_gives_the_same_case():
    first, again = simulate_case(*TINY, seed=5), simulate_case(*TINY, seed=5)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_other_seeds_give_other_anatomy():
    masks = {simulate_case(*TINY, seed)[1].tobytes() for seed in range(10)}
    assert len(masks) == 10


@pytest.mark.parametrize(
    ("size", "spacing"),
    [
        TINY,
        ((8, 32, 32), (5.0, 5.0, 5.0)),
        ((24, 48, 48), (8.0, 7.0, 7.0)),
        ((12, 48, 64), (1.0, 1.0, 1.0)),
        ((16, 56, 40), (20.0, 4.0, 4.0)),
    ],
)
def test_every_case_has_two_kidneys_and_a_tumor_of_two_voxels_or_more_across(size, spacing):
    for seed in range(30):
        labels = simulate_case(size, spacing, seed)[1]
        assert set(np.unique(labels)) == {0, KIDNEY, TUMOR}
        for half in np.split(labels, [size[2] // 2], axis=2):
            assert np.count_nonzero(half) >= 20
        tumor = labels == TUMOR
        assert tumor.sum() >= 8
        for axes in ((1, 2), (0, 2), (0, 1)):
            assert tumor.any(axis=axes).sum() >= 2


def test_kidneys_enhance_on_average_more_than_tumors(cases):
    kidney = [np.median(hu[labels == KIDNEY]) for hu, labels in cases]
    tumor = [np.median(hu[labels == TUMOR]) for hu, labels in cases]
    assert all(60 < value < 220 for value in kidney)
    assert all(10 < value < 220 for value in tumor)
    assert np.mean(tumor) < np.mean(kidney)


def test_tumors_vary_in_size_and_in_contrast_to_the_kidney(cases):
    sizes = [np.count_nonzero(labels == TUMOR) for _, labels in cases]
    contrast = [np.median(hu[labels == KIDNEY]) - np.median(hu[labels == TUMOR]) for hu, labels in cases]
    assert max(sizes) > 5 * min(sizes)
    assert min(contrast) < 20 < 40 < max(contrast)


def test_air_surrounds_the_body_and_fat_the_organs(cases):
    for hu, _ in cases:
        corners = np.stack([hu[:, y, x] for y in (0, 1, -2, -1) for x in (0, 1, -2, -1)])
        assert corners.min() >= -1024
        assert corners.max() <= -900
        fat = np.mean((hu > -150) & (hu < -50)) / np.mean(hu > -300)
        assert 0.15 < fat < 0.75


def test_bone_and_bowel_gas_are_present(cases):
    for hu, _ in cases:
        assert np.count_nonzero(hu > 200) > 100
        gas = (hu < -500) & ~air_outside(hu)
        assert gas.any()


def test_kidneys_lie_left_and_right_of_the_spine_in_the_back_half(cases):
    for hu, labels in cases:
        body = center_of_mass(hu > -300)
        kidneys = labels > 0
        middle = int(body[2])
        right, left = (center_of_mass(side) for side in (kidneys[:, :, :middle], kidneys[:, :, middle:]))
        assert right[1] > body[1] - 3
        assert left[1] > body[1] - 3
        assert 0.15 * middle < middle - right[2] < 0.75 * middle
        assert 0.15 * middle < left[2] < 0.75 * middle


def test_kidneys_and_tumors_never_grow_into_muscle_bone_or_large_vessels():
    for seed in range(20):
        scene = anatomy.new_scene(*SMALL, seed)
        anatomy.place_spine_and_vessels(scene)
        distance_to_walls_mm = scene.occupied.copy()
        labels = anatomy.place_kidneys(scene)
        assert distance_to_walls_mm[labels > 0].min() >= 2


def test_kidneys_and_tumors_lie_deep_inside_the_body(cases):
    for hu, labels in cases:
        depth_mm = distance_transform_edt(~air_outside(hu), sampling=SMALL[1])
        assert depth_mm[labels > 0].min() > 25


def test_the_anatomy_follows_the_field_of_view():
    labels = simulate_case((16, 48, 48), (10.0, 8.0, 8.0), seed=2)[1]
    half_patient = simulate_case((16, 48, 48), (5.0, 4.0, 4.0), seed=2)[1]
    np.testing.assert_array_equal(labels, half_patient)


def test_the_anatomy_does_not_depend_on_the_resolution():
    coarse = simulate_case((16, 48, 48), (12.0, 8.0, 8.0), seed=4)[1]
    fine = simulate_case((32, 96, 96), (6.0, 4.0, 4.0), seed=4)[1]
    assert np.count_nonzero(coarse) * 8 == pytest.approx(np.count_nonzero(fine), rel=0.15)
    np.testing.assert_allclose(2 * np.array(center_of_mass(coarse > 0)), center_of_mass(fine > 0), atol=2.5)


def test_image_and_labels_share_the_geometry_in_itk_order(tmp_path):
    folder = write_phantom_dataset(
        tmp_path / "Dataset001_Geometry", num_training=1, size=(8, 40, 48), spacing=(20.0, 8.0, 7.5)
    )
    for image in (read(folder / "imagesTr", "case_000_0000"), read(folder / "labelsTr", "case_000")):
        assert image.GetSize() == (48, 40, 8)
        assert image.GetSpacing() == (7.5, 8.0, 20.0)
        assert image.GetOrigin() == (0.0, 0.0, 0.0)


def test_training_and_test_cases_are_numbered_in_a_row_and_all_differ(tmp_path):
    folder = write_tiny(tmp_path / "Dataset002_Cases", num_training=2, num_test=2, seed=7)
    files = {part: sorted(f.name for f in (folder / part).iterdir()) for part in ("imagesTr", "imagesTs")}
    assert files["imagesTr"] == ["case_000_0000.nii.gz", "case_001_0000.nii.gz"]
    assert files["imagesTs"] == ["case_002_0000.nii.gz", "case_003_0000.nii.gz"]
    assert sorted(f.name for f in (folder / "labelsTs").iterdir()) == ["case_002.nii.gz", "case_003.nii.gz"]
    images = {(folder / part / name).read_bytes() for part, names in files.items() for name in names}
    assert len(images) == 4


def test_test_cases_stay_the_same_when_training_cases_are_added(tmp_path):
    few = write_tiny(tmp_path / "Dataset003_Few", num_training=1, num_test=1)
    more = write_tiny(tmp_path / "Dataset004_More", num_training=2, num_test=1)
    arrays = [
        SimpleITK.GetArrayFromImage(read(folder / "imagesTs", f"{name}_0000"))
        for folder, name in ((few, "case_001"), (more, "case_002"))
    ]
    np.testing.assert_array_equal(*arrays)


@pytest.mark.parametrize(
    ("label_mode", "labels", "regions_class_order"),
    [
        ("labels", {"background": 0, "kidney": 1, "tumor": 2}, None),
        ("regions", {"background": 0, "kidney": [1, 2], "tumor": 2}, [1, 2]),
        ("ignore", {"background": 0, "kidney": 1, "tumor": 2, "ignore": 3}, None),
        ("regions_ignore", {"background": 0, "kidney": [1, 2], "tumor": 2, "ignore": 3}, [1, 2]),
    ],
)
def test_dataset_json_describes_the_labels_as_nnunet_wants_them(tmp_path, label_mode, labels, regions_class_order):
    folder = write_tiny(tmp_path / "Dataset005_Modes", label_mode=label_mode)
    description = json.loads((folder / "dataset.json").read_text())
    assert description.pop("regions_class_order", None) == regions_class_order
    assert description == {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    manager = LabelManager(labels, regions_class_order)
    assert manager.has_regions == label_mode.startswith("regions")
    assert manager.has_ignore_label == label_mode.endswith("ignore")
    assert manager.num_segmentation_heads == (2 if manager.has_regions else 3)


def test_ignore_covers_half_of_the_training_slices_and_spares_a_tumor(tmp_path):
    folder = write_tiny(tmp_path / "Dataset006_Ignore", num_training=4, num_test=1, label_mode="ignore")
    for file in (folder / "labelsTr").iterdir():
        labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
        ignored = (labels == IGNORE).all(axis=(1, 2))
        assert ignored.sum() == len(labels) // 2
        assert not (labels[~ignored] == IGNORE).any()
        assert (labels == TUMOR).any()
    test_labels = SimpleITK.GetArrayFromImage(read(folder / "labelsTs", "case_004"))
    assert set(np.unique(test_labels)) == {0, KIDNEY, TUMOR}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Phantom", {}, "DatasetXXX_Name.*got 'Phantom'"),
        ("Dataset1_Phantom", {}, "DatasetXXX_Name.*got 'Dataset1_Phantom'"),
        ("Dataset001_A", {"num_training": 0}, "num_training >= 1.*got 0"),
        ("Dataset001_A", {"num_test": -1}, "num_test >= 0.*got 2 and -1"),
        ("Dataset001_A", {"label_mode": "region"}, "labels, regions, ignore, regions_ignore, got 'region'"),
        ("Dataset001_A", {"size": (8, 0, 48)}, r"at least \(8, 32, 32\) voxels, got \(8, 0, 48\)"),
        ("Dataset001_A", {"size": (48, 48)}, r"three integers \(z, y, x\).*got \(48, 48\)"),
        ("Dataset001_A", {"spacing": (1.0, -1.0, 1.0)}, r"three positive numbers.*got \(1.0, -1.0, 1.0\)"),
        ("Dataset001_A", {"seed": -1}, "seed must not be negative, got -1"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        write_tiny(tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_contents_is_never_mixed_with_new_cases(tmp_path):
    folder = write_tiny(tmp_path / "Dataset007_Twice")
    with pytest.raises(FileExistsError, match="new or empty"):
        write_tiny(folder)
