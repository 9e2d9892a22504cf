"""`nnUNetv2_hlfd export -to onnx | openvino`: networks that run without torch and without nnU-Net."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import SimpleITK
from damage import SAMPLES
from faults import held_by_another_process
from helpers import PREDICT, prediction, stock, train_once
from machine_paths import machine_paths
from network_series import main as open_damaged_networks
from network_series import read_descriptions
from phantom_data import REGIONS_DATASET
from processes import run

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.deploy.runtime.errors import UserError
from nnunetv2_hlfd.deploy.runtime.hidden_folder import _HOST
from nnunetv2_hlfd.deploy.runtime.network import find_networks, open_network
from nnunetv2_hlfd.utilities.errors import UserError as PackageError
from nnunetv2_hlfd.utilities.lock import locked

DATASET = "Dataset901_Phantom"
PREDICTED = (0, 3)  # 3: with warnings, since what a hardly trained network finds has other intensities
WITHOUT = """
import importlib.abc, runpy, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "nnunetv2", "nnunetv2_hlfd", "scipy", "skimage", "batchgenerators"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def model(train, variant, teacher_2d):
    """Model folder of a 2d student."""
    return train("nnUNetTrainerHLFD", plans=variant("networks", base="nnUNetPlans_short")).parent


@pytest.fixture(scope="module")
def regions_3d(nnunet, variant, train):
    """Model folder of a 3d network with region labels."""
    plans = variant("short", dataset=REGIONS_DATASET)
    options = {"dataset": REGIONS_DATASET, "configuration": "3d_fullres", "plans": plans}
    return train_once(nnunet, train, "nnUNetTrainerTeacher", **options).parent


@pytest.fixture(scope="module")
def as_onnx(model, tmp_path_factory):
    """The 2d student as ONNX."""
    output = tmp_path_factory.mktemp("onnx")
    assert export(model, output, "-to", "onnx") == 0
    return exported(output)


@pytest.fixture(scope="module")
def as_openvino(model, tmp_path_factory):
    """The 2d student as OpenVINO, without mirroring."""
    output = tmp_path_factory.mktemp("openvino")
    assert export(model, output, "-to", "openvino", "--no_mirroring") == 0
    return exported(output)


@pytest.fixture
def damaged(tmp_path):
    """A copy of an export to damage."""

    def copy(folder):
        return Path(shutil.copytree(folder, tmp_path / folder.name))

    return copy


def export(model, output, *more):
    return main(["export", "-m", str(model), "-o", str(output), *map(str, more)])


def exported(output):
    [folder] = output.glob("Dataset*/nnUNetTrainer*")
    return folder


def run_program(folder, images, output, *more):
    """`predict.pyz` where neither torch nor nnU-Net can be imported."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, folder / "predict.pyz", "-i", images, "-o", output, *map(str, more)],
        capture_output=True,
        text=True,
        check=False,
    )


def labels(file):
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def assert_program_predicts_as_nnunet(folder, model, images, tmp_path, *more):
    done = run_program(folder, images, tmp_path / "a")
    assert done.returncode in PREDICTED, done.stderr
    stock(PREDICT, *prediction(model, images, tmp_path / "b"), *more)
    [file] = (tmp_path / "b").glob("*.nii.gz")
    assert (labels(tmp_path / "a" / file.name) == labels(file)).mean() > 0.998
    ours, theirs = (SimpleITK.ReadImage(str(each)) for each in (tmp_path / "a" / file.name, file))
    assert ours.GetSpacing() == theirs.GetSpacing()
    assert ours.GetDirection() == theirs.GetDirection()


def test_the_program_predicts_what_nnunet_predicts_without_torch(model, as_onnx, nnunet, tmp_path):
    assert_program_predicts_as_nnunet(as_onnx, model, nnunet / "raw" / DATASET / "imagesTs", tmp_path)


def test_so_does_an_export_without_mirroring(model, as_openvino, nnunet, tmp_path):
    images = nnunet / "raw" / DATASET / "imagesTs"
    assert_program_predicts_as_nnunet(as_openvino, model, images, tmp_path, "--disable_tta")


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_3d_and_regions(to, regions_3d, nnunet, tmp_path):
    """Beside our own command: nnU-Net's float16 sums are 0 at a patch's corners, which is the threshold of a region."""
    assert export(regions_3d, tmp_path / "out", "-to", to) == 0
    images = nnunet / "raw" / REGIONS_DATASET / "imagesTs"
    assert run_program(exported(tmp_path / "out"), images, tmp_path / "a").returncode in PREDICTED
    assert main(["predict", "-m", str(regions_3d), "-i", str(images), "-o", str(tmp_path / "b"), "-device", "cpu"]) == 0
    [file] = (tmp_path / "b").glob("*.nii.gz")
    assert (labels(tmp_path / "a" / file.name) == labels(file)).mean() > 0.998


def test_an_onnx_file_takes_other_batches_and_patches_and_tells_its_preprocessing(as_onnx):
    [file] = find_networks(as_onnx)
    onnx.checker.check_model(str(file), full_check=True)
    network = open_network(file)
    assert network.description.channels == 1
    assert network.description.mirror_axes == (0, 1)
    for batch, extents in ((1, (48, 48)), (5, (32, 96))):
        assert network.run(np.zeros((batch, 1, *extents), np.float32)).shape == (batch, 3, *extents)


def test_an_export_is_predicted_with_by_our_own_command_too(model, as_openvino, nnunet, tmp_path, capsys):
    images = str(nnunet / "raw" / DATASET / "imagesTs")
    arguments = ["predict", "-m", str(as_openvino), "-i", images, "-device", "cpu"]
    assert main([*arguments, "-o", str(tmp_path / "a")]) == 2
    assert "holds no torch networks. Choose -backend onnxruntime or openvino" in capsys.readouterr().err
    assert main([*arguments, "-o", str(tmp_path / "a"), "-backend", "openvino"]) == 0
    own = ["predict", "-m", str(model), "-i", images, "-device", "cpu", "--disable_tta", "-o", str(tmp_path / "b")]
    assert main(own) == 0
    [file] = (tmp_path / "b").glob("*.nii.gz")
    assert (labels(tmp_path / "a" / file.name) == labels(file)).mean() > 0.998


def test_eight_bits_cost_what_is_reported_and_the_limit_holds(model, as_openvino, tmp_path, capsys):
    assert export(model, tmp_path / "small", "-to", "openvino", "--int8", "-max_dice_drop", "1") == 0
    output = capsys.readouterr().out
    assert "in float32, " in output
    assert "Fold 0: 8 bits are calibrated on patches of the 4 cases of its training" in output
    assert "WARNING" not in output
    folders = (as_openvino, exported(tmp_path / "small"))
    full, small = (each / "fold_0/network.bin" for each in folders)
    assert small.stat().st_size < full.stat().st_size / 2
    record = json.loads((folders[1] / "export.json").read_text())["int8_fold_0"]
    assert {name: value for name, value in record.items() if not name.startswith("dice_")} == {
        "cases": 2,
        "cases_that_may_have_been_trained_on": 0,
        "calibration_cases": 4,
    }
    image = np.random.default_rng(0).normal(size=(1, 1, 48, 48)).astype(np.float32)
    logits = [open_network(find_networks(each)[0]).run(image) for each in folders]
    assert not np.array_equal(*logits)
    assert export(model, tmp_path / "none", "-to", "openvino", "--int8", "-max_dice_drop", "-2") == 2
    assert "is above the limit of -2.0 (-max_dice_drop); nothing was written" in capsys.readouterr().err
    assert not [each for each in (tmp_path / "none").rglob("*") if each.is_file()]


def test_no_file_names_a_folder_of_the_machine_that_made_it(as_onnx, as_openvino, nnunet):
    for export in (as_onnx, as_openvino):
        assert machine_paths(export.parents[1], [nnunet, export.parents[1]]) == []


def test_half_precision_halves_the_weights(model, as_openvino, tmp_path):
    assert export(model, tmp_path, "-to", "openvino", "--half") == 0
    full, half = ((each / "fold_0/network.bin").stat().st_size for each in (as_openvino, exported(tmp_path)))
    assert half < 0.6 * full


def test_the_program_names_a_bad_case_finishes_the_others_and_goes_on(as_onnx, nnunet, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(nnunet / "raw" / DATASET / "imagesTs", images)
    [good] = images.iterdir()
    (images / "broken_0000.nii.gz").write_text("not an image")
    done = run_program(as_onnx, images, tmp_path / "a")
    assert done.returncode == 1
    assert "broken FAILED: " in done.stderr
    assert "1 of 2 cases failed: broken" in done.stderr
    result = tmp_path / "a" / good.name.replace("_0000", "")
    modified = result.stat().st_mtime_ns
    (images / "broken_0000.nii.gz").unlink()
    done = run_program(as_onnx, images, tmp_path / "a", "--continue_prediction")
    assert done.returncode == 0
    assert result.stat().st_mtime_ns == modified


@pytest.mark.faults("two processes on one target")
def test_two_programs_do_not_work_in_one_folder(as_onnx, nnunet, tmp_path):
    output = tmp_path / "a"
    with held_by_another_process(output):
        done = run_program(as_onnx, nnunet / "raw" / DATASET / "imagesTs", output)
        assert done.returncode == 2
        assert f"{output} is in use by the other work (process " in done.stderr
    assert list(output.iterdir()) == []


@pytest.mark.faults("killed processes")
@pytest.mark.skipif(sys.platform != "linux", reason="signals are POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)])
def test_a_program_that_is_ended_leaves_nothing_or_the_next_one_removes_it(as_onnx, nnunet, tmp_path, number, code):
    """While it works, another is told of it; the next start needs no more than the option to go on."""
    images, output = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    source = next((nnunet / "raw" / DATASET / "imagesTs").glob("*.nii.gz"))
    for index in range(2000):
        (images / f"case{index:04d}_0000.nii.gz").symlink_to(source)
    command = [sys.executable, as_onnx / "predict.pyz", "-i", images, "-o", output, "-threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        threading.Thread(target=process.stderr.read, daemon=True).start()
        while not output.is_dir() or len(list(output.glob("*.nii.gz"))) < 3:
            assert process.poll() is None
            time.sleep(0.01)
        with (
            pytest.raises(PackageError, match=rf"in use by predict.pyz \(process {process.pid} on "),
            locked(output, ""),
        ):
            pass
        process.send_signal(number)
        assert process.wait(20) == code
    hidden = [path.name for path in output.glob(".*")]
    assert hidden == [] or number == signal.SIGKILL
    (output / f".partial-{_HOST}-{process.pid}-00000000").mkdir(exist_ok=True)  # as a kill in a write leaves it
    for file in sorted(images.iterdir())[4:]:
        file.unlink()
    assert run_program(as_onnx, images, output, "--continue_prediction").returncode in PREDICTED
    assert not list(output.glob(".*"))


def test_the_program_refuses_what_cannot_work(as_onnx, damaged, nnunet, tmp_path):
    folder, images = damaged(as_onnx), nnunet / "raw" / DATASET / "imagesTs"

    def refused(message, *arguments):
        done = run_program(folder, images, tmp_path / "a", *arguments)
        assert done.returncode == 2
        assert message in done.stderr

    refused("Expected a -step_size above 0, at most 1, got 0.0.", "-step_size", "0")
    refused("Expected network.onnx or network.xml in fold_7 of", "-f", "7")
    refused("Expected network.onnx or network.xml in fold_* of", "-m", tmp_path / "a")
    (folder / "fold_0/network.onnx").write_bytes(b"no network")
    refused("network.onnx is damaged or no ONNX file")


@pytest.mark.faults("hostile files")
def test_a_damaged_openvino_file_is_refused(as_openvino, damaged):
    [file] = find_networks(damaged(as_openvino))
    file.write_text(file.read_text()[:3000])
    with pytest.raises(ValueError, match="damaged or no OpenVINO file"):
        open_network(file)


def test_what_only_nnunet_can_prepare_is_refused(model, tmp_path, capsys):
    copy = tmp_path / model.name
    shutil.copytree(model, copy)
    plans = json.loads((copy / "plans.json").read_text())
    plans["image_reader_writer"] = "DicomIO"
    plans["configurations"]["2d"]["resampling_fn_data"] = "resample_torch_fornnunet"
    (copy / "plans.json").write_text(json.dumps(plans))
    assert export(copy, tmp_path / "out", "-to", "onnx") == 2
    message = capsys.readouterr().err
    assert "images read by DicomIO (expected SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, " in message
    assert "resampling by resample_torch_fornnunet (expected resample_data_or_seg_to_shape)" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-to", "onnx", "--int8"), "--half and --int8 are for -to openvino"),
        (("-to", "nnunet", "--int8"), "nnU-Net itself has no 8-bit networks"),
        (("-to", "openvino", "--int8", "--half"), "Choose --half or --int8"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(model, tmp_path, capsys, arguments, message):
    assert export(model, tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err


def test_eight_bits_need_the_preprocessed_cases(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    assert export(model, tmp_path / "out", "-to", "openvino", "--int8") == 2
    assert "expected Dataset901_Phantom in the folder that the environment variable nnUNet_preprocessed names" in (
        capsys.readouterr().err
    )


def test_a_missing_extra_is_named_with_its_command(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert export(model, tmp_path / "out", "-to", "openvino") == 2
    assert "This needs openvino: pip install 'nnunetv2-hlfd[openvino]'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_unet_plus_plus_is_exported(train, variant, tmp_path, to, nnunet):
    fold = train("nnUNetTrainerUNetPlusPlus", plans=variant("plus"))
    assert export(fold.parent, tmp_path / "out", "-to", to) == 0
    images = nnunet / "raw" / DATASET / "imagesTs"
    done = run_program(exported(tmp_path / "out"), images, tmp_path / "a", "--disable_tta")
    assert done.returncode in PREDICTED, done.stderr


# Files from strangers


def refusal(file):
    with pytest.raises(UserError) as caught:
        open_network(file)
    return str(caught.value)


def changed(file, change):
    model = onnx.load(file)
    change(model)
    onnx.save(model, file)


@pytest.mark.faults("hostile files")
def test_a_network_that_would_read_other_files_is_refused(as_onnx, damaged):
    for location in ("../../secret", "/etc/passwd", "weights.bin"):
        [file] = find_networks(damaged(as_onnx))

        def name_a_file(model, location=location):
            weight = next(entry for entry in model.graph.initializer if entry.raw_data)
            weight.ClearField("raw_data")
            weight.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", location), ("offset", "0")):
                entry = weight.external_data.add()
                entry.key, entry.value = key, value

        model = onnx.load(file)
        name_a_file(model)
        file.write_bytes(model.SerializeToString())
        assert "it names other files with its weights" in refusal(file)
        shutil.rmtree(file.parents[1])


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("heads", 5),
        ("patch_size", [64, 64, 64]),
        ("heads", 10**9),
        ("file_ending", "/../x.nii.gz"),
        ("spacing", [0, 0]),
    ],
)
def test_a_description_that_does_not_fit_the_network_is_refused(as_onnx, damaged, key, value):
    [file] = find_networks(damaged(as_onnx))

    def describe_wrongly(model):
        [entry] = [entry for entry in model.metadata_props if entry.key == "nnunet"]
        entry.value = json.dumps({**json.loads(entry.value), key: value})

    changed(file, describe_wrongly)
    assert "is damaged" in refusal(file)


@pytest.mark.faults("hostile files")
def test_a_network_with_two_outputs_is_refused(as_onnx, damaged):
    [file] = find_networks(damaged(as_onnx))
    changed(file, lambda model: model.graph.output.append(model.graph.output[0]))
    assert "is damaged" in refusal(file)


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize(
    ("samples", "seed"), [pytest.param(40, 1, id="quick"), pytest.param(SAMPLES, 2, id="full", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("runtime", "parts"), [("as_onnx", 1), ("as_openvino", 2)])
def test_damaged_networks_are_refused_or_opened_and_end_no_process(
    runtime, parts, request, damaged, samples, seed, record_property
):
    [file] = find_networks(damaged(request.getfixturevalue(runtime)))
    counts = json.loads(run(open_damaged_networks, (file, samples, seed), os.environ))
    print(runtime, counts)
    record_property("tried", {f"damaged {file.name}, predict.pyz": [parts * samples, sum(counts.values())]})
    assert counts["refused"] > 0
    assert sum(counts.values()) == parts * samples


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize(
    ("samples", "seed"), [pytest.param(300, 1, id="quick"), pytest.param(SAMPLES, 2, id="full", marks=pytest.mark.slow)]
)
def test_damaged_descriptions_are_refused_or_predicted_with(samples, seed, record_property):
    counts = read_descriptions(samples, seed)
    print(counts)
    record_property("tried", {"damaged description of a network, predict.pyz": [samples, sum(counts.values())]})
    assert min(counts["refused"], counts["read"]) > samples / 50
