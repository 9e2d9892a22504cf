"""`nnUNetv2_hlfd predict` beside nnUNetv2_predict: the same files, faults of one case, kills, cascades."""

import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from faults import run_on_disk
from helpers import PREDICT, prediction, stock, train_once
from phantom_data import REGIONS_DATASET
from processes import Process, run_script

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.deploy.predictor import Predictor

DATASET = "Dataset901_Phantom"
CPU = ("-device", "cpu", "--disable_progress_bar")
ENDINGS = (".nii.gz", ".npz", ".pkl")


@pytest.fixture(scope="module")
def images(nnunet, tmp_path_factory):
    """Four cases: three of the data set and a thin, large one."""
    folder = tmp_path_factory.mktemp("images")
    raw = sorted((nnunet / "raw" / DATASET / "imagesTr").glob("*.nii.gz"))[:3]
    for file in raw:
        shutil.copy(file, folder)
    image = SimpleITK.ReadImage(str(raw[0]))
    data = np.pad(SimpleITK.GetArrayFromImage(image)[:3], ((0, 0), (0, 40), (10, 30)), mode="reflect")
    larger = SimpleITK.GetImageFromArray(data)
    larger.SetSpacing([each * 1.3 for each in image.GetSpacing()])
    SimpleITK.WriteImage(larger, str(folder / "larger_0000.nii.gz"))
    return folder


@pytest.fixture(scope="module")
def model(train, variant, teacher_2d):
    """Model folder of a 2d student."""
    return train("nnUNetTrainerHLFD", plans=variant("predicted", base="nnUNetPlans_short")).parent


def predict(model, images, output, *more):
    return main(["predict", "-m", str(model), "-i", str(images), "-o", str(output), *CPU, *map(str, more)])


def stock_predict(model, images, output, *more):
    stock(PREDICT, *prediction(model, images, output), *more, nnUNet_results=str(model.parents[1]))


def labels(file):
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def assert_same_segmentations(folder, expected, margin=0):
    """Every case, its geometry and type, and (nearly) all voxels: float16 sums in nnU-Net, float32 in ours.

    nnU-Net's sums are 0 at a patch's corners, which is the threshold of a region: `margin` voxels are left out.
    """
    files = sorted(expected.glob("*.nii.gz"))
    assert [each.name for each in files] == sorted(each.name for each in folder.glob("*.nii.gz"))
    for file in files:
        ours, theirs = (SimpleITK.ReadImage(str(each)) for each in (folder / file.name, file))
        assert ours.GetPixelID() == theirs.GetPixelID()
        for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(ours, geometry)() == getattr(theirs, geometry)()
        equal = SimpleITK.GetArrayFromImage(ours) == SimpleITK.GetArrayFromImage(theirs)
        inside = slice(margin, -margin or None)
        assert equal[:, inside, inside].mean() > 0.998, file.name


@pytest.fixture(scope="module")
def expected(model, images, tmp_path_factory):
    """What nnUNetv2_predict writes, probabilities as well."""
    output = tmp_path_factory.mktemp("stock")
    stock_predict(model, images, output, "--save_probabilities")
    return output


@pytest.mark.parametrize("backend", ["torch", pytest.param("onnxruntime", marks=pytest.mark.slow), "openvino"])
def test_the_files_are_those_of_nnunet(model, images, expected, tmp_path, backend):
    assert predict(model, images, tmp_path, "-backend", backend, "--save_probabilities") == 0
    assert {each.name for each in tmp_path.iterdir()} == {each.name for each in expected.iterdir()}
    assert_same_segmentations(tmp_path, expected)
    for file in expected.glob("*.npz"):
        ours, theirs = (np.load(each)["probabilities"] for each in (tmp_path / file.name, file))
        np.testing.assert_allclose(ours, theirs, atol=2e-2)  # nnU-Net's window is 0.0001 at corners, in float16


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--disable_tta",), ("-step_size", "1")], ids=" ".join)
def test_choices_mean_what_they_mean_in_nnunet(model, images, tmp_path, more):
    stock_predict(model, images, tmp_path / "stock", *more)
    assert predict(model, images, tmp_path / "ours", *more) == 0
    assert_same_segmentations(tmp_path / "ours", tmp_path / "stock")


def test_a_model_by_its_names(model, images, tmp_path, nnunet):
    arguments = ["-d", "901", "-c", "2d", "-tr", "nnUNetTrainerHLFD", "-p", "nnUNetPlans_short_predicted", "-f", "0"]
    assert main(["predict", *arguments, "-i", str(images), "-o", str(tmp_path / "a"), *CPU]) == 0
    assert predict(model, images, tmp_path / "b") == 0
    for file in (tmp_path / "b").glob("*.nii.gz"):
        np.testing.assert_array_equal(labels(tmp_path / "a" / file.name), labels(file))


@pytest.mark.slow
def test_folds_are_averaged_as_in_nnunet(model, images, tmp_path):
    """A second fold of other weights."""
    both = tmp_path / DATASET / model.name
    shutil.copytree(model, both)
    shutil.copytree(both / "fold_0", both / "fold_1")
    file = both / "fold_1/checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    for name, weight in content["network_weights"].items():
        if "seg_layers" in name:
            weight *= -0.5
    torch.save(content, file)
    arguments = prediction(both, images, tmp_path / "stock", folds=(0, 1))
    stock(PREDICT, *arguments, nnUNet_results=str(tmp_path))
    assert predict(both, images, tmp_path / "ours", "-f", 0, 1) == 0
    assert_same_segmentations(tmp_path / "ours", tmp_path / "stock")


@pytest.mark.faults("truncated and damaged files")
def test_a_bad_case_is_named_and_the_others_are_finished(model, images, tmp_path, capsys):
    cases = tmp_path / "cases"
    shutil.copytree(images, cases)
    whole = sorted(cases.glob("*.nii.gz"))
    (cases / "broken_0000.nii.gz").write_bytes(whole[0].read_bytes()[:500])
    (cases / "text_0000.nii.gz").write_text("not an image")
    shutil.copy(whole[0], cases / f"{whole[0].name[:-12]}_0001.nii.gz")  # a channel too many
    assert predict(model, cases, tmp_path / "out") == 1
    message = capsys.readouterr().err
    for case in ("broken", "text", whole[0].name[:-12]):
        assert f"{case} FAILED: " in message
    assert "expected 1 channels, got 2" in message
    assert "3 cases failed; the others, if any, are in" in message
    assert {each.name for each in (tmp_path / "out").glob("*.nii.gz")} == {
        each.name.replace("_0000", "") for each in whole[1:]
    }


@pytest.mark.faults("NaN, infinite values and impossible sizes")
def test_images_with_values_or_sizes_that_cannot_be_are_refused_by_name(model, images, tmp_path, capsys):
    """The model clips as for CT, which hides infinite values; SimpleITK reads NaN as 0."""
    cases = tmp_path / "cases"
    cases.mkdir()
    source = sorted(images.glob("*.nii.gz"))[0]
    shutil.copy(source, cases)
    image = nibabel.load(source)
    beyond = image.get_fdata() * 1e300
    nan = image.get_fdata().astype(np.float32)
    nan[5, 6, 3] = np.nan
    for name, size in {"huge": 1e6, "flat": 1e-6}.items():  # resampled, they would fill every memory, or be nothing
        affine = np.diag([size, size, 1, 1])
        nibabel.save(nibabel.Nifti1Image(image.get_fdata(), affine), cases / f"{name}_0000.nii.gz")
    for name, values in {"nan": nan, "beyond": beyond}.items():
        nibabel.save(nibabel.Nifti1Image(values, image.affine), cases / f"{name}_0000.nii.gz")
    assert predict(model, cases, tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert "nan FAILED: nan_0000.nii.gz has NaN or infinite voxels" in message
    assert "beyond FAILED: beyond_0000.nii.gz: " in message
    for name in ("huge", "flat"):
        assert re.search(rf"{name} FAILED: the image has .* mm voxels and would have the size ", message)
    assert [file.name for file in (tmp_path / "out").glob("*.nii.gz")] == [source.name.replace("_0000", "")]


@pytest.mark.faults("killed processes")
def test_after_a_kill_it_goes_on_with_what_is_missing(model, images, tmp_path, expected):
    cases, output = tmp_path / "cases", tmp_path / "out"
    cases.mkdir()
    source = sorted(images.glob("*.nii.gz"))[0]
    for number in range(200):
        (cases / f"case{number:03d}_0000.nii.gz").symlink_to(source)
    arguments = ["predict", "-m", str(model), "-i", str(cases), "-o", str(output), *CPU]
    script = Path(sys.executable).parent / "nnUNetv2_hlfd"
    with Process(run_script, (script, arguments), os.environ, tmp_path) as process:
        while not list(output.glob("*.nii.gz")):
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    finished = {each: (each.stat().st_mtime_ns, labels(each)) for each in output.glob("*.nii.gz")}
    assert 0 < len(finished) < 200
    for file in sorted(cases.iterdir())[len(finished) + 3 :]:
        file.unlink()
    assert predict(model, cases, output, "--continue_prediction") == 0
    for file, (modified, content) in finished.items():
        assert file.stat().st_mtime_ns == modified
        np.testing.assert_array_equal(content, labels(expected / source.name.replace("_0000", "")))
    assert len(list(output.glob("*.nii.gz"))) >= len(finished) + 2
    assert not [each for each in output.iterdir() if each.name.startswith(".")]


@pytest.mark.faults("full, limited and read-only disks")
def test_on_a_full_disk_cases_fail_and_every_segmentation_that_is_there_is_whole(model, images, tmp_path, expected):
    """SimpleITK itself leaves half of a file and says nothing."""
    cases, output, copy = tmp_path / "cases", tmp_path / "out", tmp_path / "copy"
    for folder in (cases, output):
        folder.mkdir()
    source = sorted(images.glob("*.nii.gz"))[0]
    for number in range(8):
        (cases / f"case{number:03d}_0000.nii.gz").symlink_to(source)
    program = Path(sys.executable).parent / "nnUNetv2_hlfd"
    command = shlex.join(map(str, [program, "predict", "-m", model, "-i", cases, "-o", output, *CPU]))
    script = f"{command}; code=$?; cp -r {shlex.quote(str(output))} {shlex.quote(str(copy))}; exit $code"
    process = run_on_disk(output, "size=36k", ["sh", "-c", script])
    assert process.returncode == 1, process.stderr
    written = list(copy.glob("*.nii.gz"))
    assert 0 < len(written) < 8
    for file in written:
        np.testing.assert_array_equal(labels(file), labels(expected / source.name.replace("_0000", "")))
    reason = rf"^case\d+ FAILED: Could not write {output}/case\d+\.nii\.gz: .*The previous file, if any, is intact\.$"
    assert len(re.findall(reason, process.stderr, re.MULTILINE)) == 8 - len(written)
    assert not [file.name for file in copy.iterdir() if file.name.startswith(".")]


@pytest.mark.faults("truncated and damaged files")
def test_a_case_whose_files_are_not_whole_is_predicted_again(model, images, tmp_path):
    """As nnUNetv2_predict leaves them on a full disk."""
    assert predict(model, images, tmp_path, "--save_probabilities") == 0
    whole, *others = sorted(tmp_path.glob("*.nii.gz"))
    damaged = [Path(str(file).replace(".nii.gz", ending)) for file, ending in zip(others, ENDINGS, strict=True)]
    intact = [(labels(file), file.stat().st_mtime_ns) for file in others]
    for file in damaged:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    before = whole.stat().st_mtime_ns
    assert predict(model, images, tmp_path, "--continue_prediction", "--save_probabilities") == 0
    for file, (segmentation, modified) in zip(others, intact, strict=True):
        np.testing.assert_array_equal(labels(file), segmentation)
        assert file.stat().st_mtime_ns > modified
        assert np.load(str(file).replace(".nii.gz", ".npz"))["probabilities"].shape[0] == 3
    assert whole.stat().st_mtime_ns == before


def test_parts_share_the_work(model, images, tmp_path):
    for part in (0, 1):
        assert predict(model, images, tmp_path / str(part), "-num_parts", 2, "-part_id", part) == 0
    first, second = ({each.name for each in (tmp_path / part).glob("*.nii.gz")} for part in "01")
    assert len(first) == len(second) == 2
    assert not first & second


def test_bfloat16_is_near(model, images, tmp_path, expected):
    assert predict(model, images, tmp_path, "--bfloat16") == 0
    for file in expected.glob("*.nii.gz"):
        assert (labels(tmp_path / file.name) == labels(file)).mean() > 0.95


def test_where_memory_runs_out_it_takes_fewer_tiles_then_the_processors_memory(model, monkeypatch):
    """The ladder of a GPU, walked on the processor: no GPU is needed to see its order."""
    predictor = Predictor(model, device=torch.device("cpu"))
    tried = []

    def run(_image, _tiles, _run, place, batch):
        tried.append((place.type, batch))
        if len(tried) < 3:
            raise torch.OutOfMemoryError
        return torch.zeros(1)

    monkeypatch.setattr(predictor, "_run_tiles", run)
    predictor.device, predictor.perform_everything_on_device = torch.device("cuda"), True
    predictor._sliding_window(torch.zeros(1), [], predictor.runs[0])
    (first, many), *rest = tried
    assert first == "cuda"
    assert many > 1
    assert rest == [("cuda", 1), ("cpu", 1)]


def test_bad_arguments_are_refused_before_anything_is_loaded(model, images, tmp_path, capsys):
    def refused(message, *arguments):
        assert main(["predict", "-i", str(images), "-o", str(tmp_path / "out"), *arguments]) == 2
        assert message in capsys.readouterr().err

    one = ("-m", str(model), "-device", "cpu")
    refused("Expected a configuration with -d, such as -c 2d.", "-d", "901", "-device", "cpu")
    refused("Expected a -step_size above 0, at most 1, got 2.0.", *one, "-step_size", "2")
    refused("Expected -part_id from 0 to 1 (-num_parts - 1), got 2.", *one, "-num_parts", "2", "-part_id", "2")
    for given in ("555", "Phantom"):
        unknown = f"Expected the name or ID of a data set, got '{given}'. nnU-Net says: "
        refused(unknown, "-d", given, "-c", "2d", "-device", "cpu")
    refused("checkpoint_final.pth, found none. Folds with checkpoint_final.pth (-f): 0.", *one, "-f", "4")
    refused("Expected a model folder of nnU-Net", "-m", str(tmp_path), "-device", "cpu")
    if not torch.cuda.is_available():
        refused("PyTorch finds no GPU for -device cuda. Choose -device cpu.", "-m", str(model))
        refused("--bfloat16 is for -device cpu", *one, "-backend", "openvino", "--bfloat16")
    assert not (tmp_path / "out").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert predict(model, empty, tmp_path / "out") == 2
    assert "Expected images named CASE_0000.nii.gz" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_3d(teacher_3d, images, tmp_path, backend):
    stock_predict(teacher_3d.parent, images, tmp_path / "stock")
    assert predict(teacher_3d.parent, images, tmp_path / "ours", "-backend", backend) == 0
    assert_same_segmentations(tmp_path / "ours", tmp_path / "stock", margin=8)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_cascade_and_regions(nnunet, variant, train, tmp_path, backend, capsys):
    plans = variant("short", dataset=REGIONS_DATASET)
    options = {"dataset": REGIONS_DATASET, "plans": plans}
    train_once(nnunet, train, "nnUNetTrainerTeacher", configuration="3d_lowres", fold="all", **options)
    fold = train_once(nnunet, train, "nnUNetTrainerTeacher", configuration="3d_cascade_fullres", **options)
    lowres = nnunet / "results" / REGIONS_DATASET / f"nnUNetTrainerTeacher__{plans}__3d_lowres"
    images = nnunet / "raw" / REGIONS_DATASET / "imagesTs"
    assert predict(lowres, images, tmp_path / "lowres", "-f", "all") == 0
    assert predict(fold.parent, images, tmp_path / "refused") == 2
    assert "expected the folder with predictions of 3d_lowres for -prev_stage_predictions" in capsys.readouterr().err
    previous = ("-prev_stage_predictions", tmp_path / "lowres")
    stock_predict(fold.parent, images, tmp_path / "stock", *previous)
    assert predict(fold.parent, images, tmp_path / "ours", "-backend", backend, *previous) == 0
    assert_same_segmentations(tmp_path / "ours", tmp_path / "stock", margin=8)
