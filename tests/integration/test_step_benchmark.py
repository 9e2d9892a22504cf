"""`nnUNetv2_hlfd benchmark -training` on real trainers of the tiny data set."""

import csv

import pytest

from nnunetv2_hlfd.benchmark.training_step import STUDENT, TEACHER
from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.training.distiller import STEP_PARTS

DATASET = "Dataset901_Phantom"


def benchmark(configuration, *more, plans="nnUNetPlans_short"):
    arguments = ["-d", DATASET, "-c", configuration, "-p", plans, "-device", "cpu", *more]
    return main(["benchmark", "-training", *arguments])


def files(folder):
    return sorted(each for each in folder.rglob("*") if "pycache" not in each.name)


@pytest.mark.parametrize("configuration", ["2d", pytest.param("3d_fullres", marks=pytest.mark.slow)])
def test_every_trainer_stands_beside_the_student_alone_and_the_teacher(
    configuration, nnunet, request, tmp_path, capsys
):
    request.getfixturevalue("teacher_2d" if configuration == "2d" else "teacher_3d")
    before = files(nnunet)
    output = tmp_path / "new" / "steps.csv"
    trainers = ("nnUNetTrainerHLFD", "nnUNetTrainerKD")
    assert benchmark(configuration, "-tr", *trainers, "-o", str(output)) == 0
    assert files(nnunet) == before
    printed = capsys.readouterr().out
    with output.open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == [STUDENT, TEACHER, *trainers]
    for name, row in rows.items():
        cells = [f"| {name}", f"| {float(row['seconds']):.3f}", f"| {float(row['to_student']):.2f}"]
        assert any(all(cell in line for cell in cells) for line in printed.splitlines())
        assert float(row["seconds"]) > 0
        assert int(row["memory"]) >= 0
    assert float(rows[STUDENT]["to_student"]) == 1
    for name in trainers:
        parts = [float(rows[name][part]) for part in STEP_PARTS]
        assert sum(parts) == pytest.approx(100)
        assert min(parts) > 0
    assert [rows[name]["adapters"] == "0" for name in rows] == [True, True, False, True]


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ("nnUNetTrainerStudent", "Expected distillation trainers for -tr, such as nnUNetTrainerHLFD, got "),
        ("nnUNetTrainer", "Expected a trainer of this package, such as -tr nnUNetTrainerHLFD, got nnUNetTrainer."),
        ("nnUNetTrainerNothing", "nnUNetTrainerNothing"),
    ],
)
@pytest.mark.usefixtures("teacher_2d")
def test_what_does_not_distil_is_refused(trainer, message, nnunet, capsys):
    before = files(nnunet)
    assert benchmark("2d", "-tr", trainer) == 2
    assert message in capsys.readouterr().err
    assert files(nnunet) == before


def test_without_a_teacher_the_places_are_named(variant, nnunet, capsys):
    assert benchmark("2d", plans=variant("benchmark.lonely")) == 2
    assert "No teacher found. Looked at:" in capsys.readouterr().err
