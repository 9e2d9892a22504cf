"""A model folder that was renamed or copied teaches, predicts, is exported and is reported as under its own name."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import SimpleITK
import torch
from helpers import make_trainer, report_students

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.deploy.source import read_source

DATASET = "Dataset901_Phantom"


@pytest.fixture(scope="module")
def folders(nnunet, train, variant, teacher_2d):
    """A teacher and three students."""
    return [teacher_2d.parent, *report_students(nnunet, train, variant)]


@pytest.fixture(scope="module")
def renamed(folders, tmp_path_factory):
    """Copies under other names, outside nnU-Net's folders."""
    root = tmp_path_factory.mktemp("copies")
    names = ["the teacher", "a__b", "nnUNetTrainerKD__nnUNetPlans__3d_fullres", "x__y__z"]
    return [shutil.copytree(folder, root / name) for folder, name in zip(folders, names, strict=True)]


def test_it_teaches(nnunet, variant, renamed, folders, monkeypatch):
    plans, teachers = variant("renamed"), []
    for folder in (renamed[0], folders[0]):
        monkeypatch.setenv("nnUNet_hlfd_teacher", str(folder))
        trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", plans)
        trainer.check_start()
        teachers.append(trainer.distiller.teacher)
    [copy], [original] = (teacher.networks for teacher in teachers)
    assert copy.origin == {**original.origin, "folder": str(renamed[0])}
    assert copy.shape == original.shape
    weights = original.network.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in copy.network.state_dict().items())


def test_it_predicts(nnunet, renamed, folders, tmp_path):
    images = nnunet / "raw" / DATASET / "imagesTs"
    for name, folder in (("copy", renamed[3]), ("original", folders[3])):
        arguments = ["-m", folder, "-i", images, "-o", tmp_path / name, "-device", "cpu", "--disable_progress_bar"]
        assert main(["predict", *map(str, arguments)]) == 0
    files = sorted((tmp_path / "original").glob("*.nii.gz"))
    assert files
    for file in files:
        one, other = (
            SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
            for path in (file, tmp_path / "copy" / file.name)
        )
        assert (one == other).all()
    plans = [json.loads((tmp_path / name / "plans.json").read_text()) for name in ("copy", "original")]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("index", [0, 3])
def test_it_is_exported_under_the_name_that_nnunet_gave_it(renamed, folders, index, tmp_path):
    for name, folder in (("copy", renamed[index]), ("original", folders[index])):
        assert main(["export", "-m", str(folder), "-o", str(tmp_path / name)]) == 0
    copy, original = (_files(tmp_path / name) for name in ("copy", "original"))
    assert copy.keys() == original.keys()
    same = [name for name in copy if name.suffix in (".pth", ".json") and name.name != "export.json"]
    assert len(same) == 4
    assert all(copy[name] == original[name] for name in same)
    [provenance] = [json.loads(content) for name, content in copy.items() if name.name == "export.json"]
    assert provenance["source"] == renamed[index].name


def _files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_is_benchmarked(renamed, folders):
    copy, original = (read_source(folder[3], ["0"], "checkpoint_final.pth") for folder in (renamed, folders))
    assert copy.model.input_shape == original.model.input_shape
    image = torch.rand(1, *copy.model.input_shape)
    assert torch.equal(copy.network("0")(image), original.network("0")(image))


def test_it_is_reported(renamed, folders, tmp_path):
    for name, models in (("copy", renamed), ("original", folders)):
        assert main(["report", "-m", *map(str, models), "-o", str(tmp_path / name)]) == 0
    own_names = {copy.name: folder.name for copy, folder in zip(renamed, folders, strict=True)}
    for table in ("arms", "runs", "cases", "comparisons", "lesions", "networks"):
        copy, original = (_read(tmp_path / name / f"{table}.csv") for name in ("copy", "original"))
        for row in copy + original:
            row.pop("latency_seconds", None)
        for row in copy:
            if "run" in row:
                row["run"] = own_names[row["run"]]
        assert original
        assert _sorted(copy) == _sorted(original)


def _read(file: Path):
    with file.open() as opened:
        return list(csv.DictReader(opened))


def _sorted(rows):
    return sorted(rows, key=lambda row: list(row.values()))
