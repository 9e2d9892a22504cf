"""Surface Dice and HD95 on small label maps, against distances computed by hand and between all pairs of voxels."""

from functools import partial

import numpy as np
import pytest
import SimpleITK
from report_folders import volume, write_scene
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.surfaces import measure_surfaces, surfaces_section

SIZE = (12, 12, 12)
CUBE = (1, (2, 8), (2, 8), (2, 8))


@pytest.fixture
def scene(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return partial(write_scene, tmp_path)


def hd95(first, second, spacing):
    """Between all pairs of border voxels."""
    borders = [np.argwhere(mask ^ binary_erosion(mask)) * spacing for mask in (first, second)]
    distances = cdist(*borders)
    return max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))


def set_spacing(parent, spacing):
    """Of all label maps, x first as in SimpleITK."""
    for file in parent.rglob("*.nii.gz"):
        image = SimpleITK.ReadImage(str(file))
        image.SetSpacing(spacing)
        SimpleITK.WriteImage(image, str(file))


@pytest.mark.parametrize(("tolerance", "within"), [(0.5, 5 / 6), (1.5, 1.0)])
def test_of_a_cube_whose_one_face_is_moved_the_other_five_are_right(scene, tolerance, within):
    """The moved face lies 1 mm away; the sides that became longer touch the truth's or lie within that."""
    moved = volume((1, (2, 9), (2, 8), (2, 8)), size=SIZE)
    [row] = measure_surfaces(scene(volume(CUBE, size=SIZE), moved), [0], tolerance).itertuples()
    assert row.surface_dice == pytest.approx(within, abs=0.02)
    assert row.hd95 == 1


def test_the_same_border_is_1_and_0_mm(scene):
    [row] = measure_surfaces(scene(volume(CUBE), volume(CUBE)), [0], 1).itertuples()
    assert (row.surface_dice, row.hd95) == (1, 0)


def test_distances_are_in_mm_along_the_axes_of_the_file(scene, tmp_path):
    """Spacing 1, 2 and 5 mm along x, y and z, which is the first axis of the array."""
    random = np.random.default_rng(0)
    truth, predicted = (np.zeros((10, 14, 14), dtype=int) for _ in range(2))
    for array in (truth, predicted):
        for z, y, x in random.integers(1, 8, (4, 3)):
            array[z : z + 3, y : y + 5, x : x + 4] = 1
    models = scene(truth, predicted)
    set_spacing(tmp_path, (1, 2, 5))
    [row] = measure_surfaces(models, [0], 1).itertuples()
    assert row.hd95 == pytest.approx(hd95(truth == 1, predicted == 1, (5, 2, 1)))
    assert 0 < row.surface_dice < 1


def test_a_wider_tolerance_forgives_more(scene):
    models = scene(volume(CUBE, size=SIZE), volume((1, (4, 10), (2, 8), (4, 10)), size=SIZE))
    values = [measure_surfaces(models, [0], tolerance)["surface_dice"].item() for tolerance in (0.1, 1.5, 3)]
    assert values == sorted(values)
    assert values[0] < values[2] == 1


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        (volume(), volume(), (1, 0)),
        (volume(CUBE), volume(), (0, np.sqrt(4**2 + 12**2 + 12**2))),
        (volume(), volume(CUBE), (0, np.sqrt(4**2 + 12**2 + 12**2))),
    ],
)
def test_without_the_label_there_is_the_best_or_the_worst_value(scene, truth, predicted, expected):
    [row] = measure_surfaces(scene(truth, predicted), [0], 1).itertuples()
    assert (row.surface_dice, row.hd95) == pytest.approx(expected)


def test_the_border_of_an_image_with_one_slice_is_a_line(scene):
    """Two squares, one pixel apart: in three dimensions their faces would coincide and outweigh the rest."""
    truth, predicted = (volume((1, (0, 1), (2, 8), (start, start + 6)), size=(1, 12, 12)) for start in (2, 3))
    [row] = measure_surfaces(scene(truth, predicted), [0], 0.5).itertuples()
    assert row.hd95 == 1
    assert 0.3 < row.surface_dice < 0.7


def test_ignored_voxels_have_no_border(scene):
    truth = volume(CUBE, (7, (0, 12), (0, 12), (9, 12)), size=SIZE)
    predicted = volume(CUBE, (1, (0, 12), (0, 12), (9, 12)), size=SIZE)
    [row] = measure_surfaces(scene(truth, predicted, ignore=7), [0], 1).itertuples()
    assert (row.surface_dice, row.hd95) == (1, 0)


def test_the_table_has_the_mean_of_labels_and_differences_to_the_student_alone(scene):
    truth = volume((1, (0, 4), (0, 8), (0, 8)), (2, (1, 3), (1, 4), (1, 4)))
    models = scene(truth, truth, volume((1, (0, 4), (0, 8), (0, 8))), truth, kind="labels")
    arms = [Arm(name=name, models=[model]) for name, model in zip(("teacher", "alone", "HLFD"), models, strict=True)]
    object.__setattr__(models[1].folder, "trainer", "nnUNetTrainerStudent")
    section = surfaces_section(measure_surfaces(models, [0], 1.0), arms, 1.0)
    [table] = section.content
    assert table.head == [
        "Label",
        "Arm",
        "Compared with",
        "Runs",
        "Surface Dice, 1 mm",
        "Difference",
        "HD95, mm",
        "Difference",
    ]
    assert [row[0] for row in table.rows] == ["mean of labels"] * 3 + ["kidney"] * 3 + ["tumor"] * 3
    assert table.rows[6] == ["tumor", "teacher", "alone", "1", "1.000", "+1.000 (one case)", "0.0", "-17.4 (one case)"]
    assert table.rows[7] == ["tumor", "alone", "-", "1", "0.000", "-", "17.4", "-"]
    kidney, mean = (float(table.rows[place][4]) for place in (4, 1))
    assert mean == pytest.approx(kidney / 2, abs=1e-3)
    assert float(table.rows[2][5].split()[0]) == pytest.approx(1 - mean, abs=2e-3)


def test_the_command_adds_the_section_and_a_table(scene, tmp_path):
    models = scene(volume(CUBE), volume(CUBE), volume((1, (0, 3), (2, 8), (2, 8))))
    folders = [str(model.folder.path) for model in models]
    assert main(["report", "-m", *folders, "-o", str(tmp_path / "out"), "--surfaces"]) == 0
    assert "Surface Dice, 2 mm" in (tmp_path / "out/report.md").read_text()
    assert (tmp_path / "out/surfaces.csv").is_file()


@pytest.mark.parametrize(("arguments", "message"), [(["0"], "Expected a --surfaces above 0 mm, got 0.0."), ([], "no ")])
def test_what_cannot_be_measured_is_refused_first(scene, tmp_path, capsys, arguments, message):
    models = scene(volume(CUBE), volume(CUBE), volume(CUBE))
    (models[1].folder.path / "fold_0/validation/case_000.nii.gz").unlink()
    folders = [str(model.folder.path) for model in models]
    assert main(["report", "-m", *folders, "-o", str(tmp_path / "out"), "--surfaces", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
