"""Which model `-m` means: a folder, a zip, or a data set of nnUNet_results."""

import json
import zipfile

import pytest

from nnunetv2_hlfd.compress.model import with_model_folder
from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.models.model_archive import unpack_models
from nnunetv2_hlfd.utilities.errors import UserError

DATASET = "Dataset901_Phantom"
MODEL_2D, MODEL_3D = (f"nnUNetTrainer__nnUNetPlans__{configuration}" for configuration in ("2d", "3d_fullres"))


@pytest.fixture
def results(tmp_path, monkeypatch):
    """nnUNet_results with two models of a data set."""
    results = tmp_path / "results"
    for name in (MODEL_2D, MODEL_3D):
        fold = results / DATASET / name / "fold_0"
        fold.mkdir(parents=True)
        (fold / "checkpoint_final.pth").write_bytes(b"weights")
        (fold.parent / "plans.json").write_text(json.dumps({"name": name}))
    (results / DATASET / "ensembles").mkdir()
    monkeypatch.setenv("nnUNet_results", str(results))
    return results


def pack(file, entries):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file


@pytest.fixture
def archive(results, tmp_path):
    files = [file for file in sorted(results.rglob("*")) if file.is_file()]
    return pack(tmp_path / "model.zip", [(str(file.relative_to(results)), file.read_bytes()) for file in files])


def find(model, tmp_path, dry_run=False, **more):
    options = CompressOptions(model=model, images=tmp_path, output=tmp_path / "work", **more)
    with with_model_folder(options, dry_run=dry_run) as found:
        assert (found.model / "plans.json").is_file()
        return found.model


def test_a_folder_is_taken_as_it_is(results, tmp_path):
    folder = results / DATASET / MODEL_2D
    assert find(folder, tmp_path) == folder
    with pytest.raises(UserError, match="is the folder of one model: leave out -c"):
        find(folder, tmp_path, configuration="2d")


def test_a_model_is_named_as_nnunet_names_it(results, tmp_path):
    from pathlib import Path

    folder = results / DATASET / MODEL_2D
    assert find(Path(DATASET), tmp_path, configuration="2d") == folder
    assert find(Path("901"), tmp_path, configuration="2d", plans="nnUNetPlans", trainer="nnUNetTrainer") == folder
    assert find(Path(DATASET) / MODEL_2D, tmp_path) == folder
    with pytest.raises(UserError, match=f"2 fit.*There are: {DATASET}/{MODEL_2D}, {DATASET}/{MODEL_3D}"):
        find(Path("901"), tmp_path)
    with pytest.raises(UserError, match="0 fit"):
        find(Path("901"), tmp_path, trainer="another")
    for missing in ("/no/such/folder", "no/such/folder", "misspelled"):
        with pytest.raises(UserError, match=f"or number of a data set in nnUNet_results for -m; there is no {missing}"):
            find(Path(missing), tmp_path)


def test_a_zip_is_unpacked_once_into_the_work_folder(archive, tmp_path):
    model = find(archive, tmp_path, configuration="3d_fullres")
    assert model.parent.name == DATASET
    assert model.parents[2] == tmp_path / "work"
    assert (model / "fold_0/checkpoint_final.pth").read_bytes() == b"weights"
    time = (model / "plans.json").stat().st_mtime_ns
    assert find(archive, tmp_path, configuration="3d_fullres") == model
    assert (model / "plans.json").stat().st_mtime_ns == time


def test_a_dry_run_leaves_nothing_of_a_zip(archive, tmp_path):
    model = find(archive, tmp_path, dry_run=True, configuration="2d")
    assert not model.exists()
    assert not (tmp_path / "work").exists()


PLANS = (f"{DATASET}/{MODEL_2D}/plans.json", "{}")


@pytest.mark.faults("hostile files")
def test_nothing_is_written_outside_and_nothing_but_the_model(tmp_path):
    others = ("../evil.json", "/evil.json", f"{DATASET}/../../plans.json", f"{DATASET}/{MODEL_2D}/evil.py", "a/b/c.pkl")
    archive = pack(tmp_path / "model.zip", [PLANS, *((name, "evil") for name in others)])
    folder = unpack_models(archive, tmp_path / "inside/work")
    assert [file for file in (tmp_path / "inside").rglob("*") if file.is_file()] == [folder / PLANS[0]]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["inside", "model.zip"]


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("readme.txt", "")], "Expected a zip of nnUNetv2_export_model_to_zip"),
        ([PLANS, (PLANS[0].replace("plans", "PLANS"), "{}"), (PLANS[0], "{}")], "holds the same file twice"),
        ([PLANS, (PLANS[0].replace("plans", "dataset"), bytes(2**27))], "no trained model is packed so densely"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zips_of_something_else_are_refused(entries, message, tmp_path):
    with pytest.raises(UserError, match=message):
        unpack_models(pack(tmp_path / "model.zip", entries), tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.faults("truncated and damaged files")
def test_a_damaged_zip_is_refused_and_leaves_nothing(tmp_path):
    archive = pack(tmp_path / "model.zip", [PLANS, (PLANS[0].replace("plans", "dataset"), bytes(range(256)) * 9)])
    content = bytearray(archive.read_bytes())
    content[150] ^= 255
    archive.write_bytes(content)
    with pytest.raises(UserError, match="is no zip of a model, or damaged"):
        unpack_models(archive, tmp_path / "work")
    assert not any((tmp_path / "work").iterdir())
    archive.write_bytes(b"no zip")
    with pytest.raises(UserError, match="is no zip of a model, or damaged"):
        unpack_models(archive, tmp_path / "work")
