"""Whatever nnU-Net reads, beside stock nnU-Net: labels and geometry of `predict` and of an export's predict.pyz."""

import gzip
import json
import re
import shutil

import imageio.v3
import nibabel
import numpy as np
import pytest
from color_model import FORMATS, SHEARED, by_nibabel, make_scene, rename_reader, write_model
from helpers import load
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from predictions import (
    assert_same_segmentations,
    describe_again,
    exported_folder,
    predict,
    run_program,
    stock_predict,
)

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.deploy.runtime.network import Network, open_network
from nnunetv2_hlfd.deploy.runtime.predict import predict_labels
from nnunetv2_hlfd.deploy.runtime.readers.reader import Image
from nnunetv2_hlfd.models.checkpoints import write_checkpoint
from nnunetv2_hlfd.utilities.dice import dice

SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def model(nnunet, tmp_path_factory):
    """Model folder, whose reader each test names."""
    plans = json.loads((nnunet / "preprocessed/Dataset901_Phantom/nnUNetPlans.json").read_text())
    return write_model(tmp_path_factory.mktemp("model") / "Dataset910_Colors", plans)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """Its export to ONNX, as written for png."""
    output = tmp_path_factory.mktemp("exported")
    rename_reader(model, "NaturalImage2DIO", ".png")
    assert main(["export", "-m", str(model), "-o", str(output), "-to", "onnx"]) == 0
    return exported_folder(output)


QUICK = ("png", "3d tif", "sheared")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=SLOW) for name in FORMATS])
def test_every_format_is_predicted_as_by_stock_nnunet(model, exported, tmp_path, name):
    reader, ending, shape, write = FORMATS[name]
    images = tmp_path / "images"
    images.mkdir()
    write(make_scene(shape, seed=2)[0], images, "Müller 1.2.840")
    rename_reader(model, reader, ending)
    describe_again(exported, model)
    stock_predict(model, images, tmp_path / "stock")
    assert predict(model, images, tmp_path / "ours") == 0
    assert run_program(exported, images, tmp_path / "program") == 0
    for folder in ("ours", "program"):
        assert_same_segmentations(tmp_path / folder, tmp_path / "stock", reader, ending)


NAMES = (
    "1.2.840.1",
    "p",
    "p.1",
    "a b (c) & d",
    "Mu\u0308ller",
    "a_0000",
    "x.nii.gz",
    "[1]*",
    "-dash",
    "$HOME 'x'",
    "日本",
)


def test_cases_of_any_name_are_predicted_as_by_stock_nnunet(model, exported, tmp_path):
    reader, ending, _, write = FORMATS["png"]
    images = tmp_path / "images"
    images.mkdir()
    for seed, name in enumerate(NAMES):
        write(make_scene((1, 48, 64), seed=seed)[0], images, name)
    rename_reader(model, reader, ending)
    describe_again(exported, model)
    stock_predict(model, images, tmp_path / "stock")
    assert predict(model, images, tmp_path / "ours") == 0
    assert run_program(exported, images, tmp_path / "program") == 0
    names = sorted(f"{name}.png" for name in NAMES)
    for folder in ("stock", "ours", "program"):
        assert sorted(file.name for file in (tmp_path / folder).glob("*.png")) == names
    for folder in ("ours", "program"):
        assert_same_segmentations(tmp_path / folder, tmp_path / "stock", reader, ending)


@pytest.mark.parametrize(("axes", "flipped"), [(None, [()]), ((), [()]), ((1,), [(), (3,)]), ((0,), [(), (2,)])])
def test_the_program_mirrors_along_the_models_axes_alone(model, exported, tmp_path, axes, flipped):
    """A model with left and right labels is trained without mirroring, or along some axes."""
    shutil.copytree(model, tmp_path / model.name)
    checkpoint = tmp_path / model.name / "fold_0/checkpoint_final.pth"
    write_checkpoint({**load(checkpoint), "inference_allowed_mirroring_axes": axes}, checkpoint)
    rename_reader(tmp_path / model.name, *FORMATS["png"][:2])
    describe_again(exported, tmp_path / model.name)
    network = open_network(exported / "fold_0/network.onnx")
    seen = []

    def run(batch):
        seen.append(batch.copy())
        return network.run(batch)

    image, _ = make_scene((1, 48, 64), seed=2)
    recording = Network(run=run, description=network.description)
    predict_labels(Image(data=image.astype(np.float32), spacing=(999, 1, 1)), [recording])
    assert len(seen) == len(flipped)
    for batch, along in zip(seen, flipped, strict=True):
        np.testing.assert_array_equal(batch, np.flip(seen[0], along))


def reasons(error):
    """Case -> reason, of the lines `CASE FAILED: REASON` of predict and predict.pyz."""
    return dict(re.findall(r"(\w+) FAILED: (.+)$", error, re.MULTILINE))


def test_colors_that_are_not_the_models_are_refused_by_name(model, exported, tmp_path, capsys):
    reader, ending, shape, write = FORMATS["png"]
    images = tmp_path / "images"
    images.mkdir()
    image, _ = make_scene(shape, seed=2)
    write(image, images, "good")
    write(np.concatenate([image, image[:1]]), images, "alpha")
    imageio.v3.imwrite(images / "gray_0000.png", image[0, 0])
    rename_reader(model, reader, ending)
    describe_again(exported, model)
    wanted = {
        "alpha": "expected 3 channels, got 4: alpha_0000.png",
        "gray": "expected 3 channels, got 1: gray_0000.png",
    }
    assert predict(model, images, tmp_path / "ours") == 1
    assert reasons(capsys.readouterr().err) == wanted
    assert run_program(exported, images, tmp_path / "program") == 1
    assert reasons(capsys.readouterr().err) == wanted
    for folder in ("ours", "program"):
        assert [file.name for file in (tmp_path / folder).glob("*.png")] == ["good.png"]


@pytest.mark.faults("truncated and damaged files")
def test_what_is_whole_is_predicted_and_what_is_not_fails_by_name(model, exported, tmp_path, capsys):
    """nnU-Net's NibabelIO refuses a `.nii.gz` file that is not compressed."""
    reader, ending, shape, write = FORMATS["sheared"]
    images = tmp_path / "images"
    images.mkdir()
    image, _ = make_scene(shape, seed=2)
    for case in ("whole", "plain", "other", "nan"):
        write(image, images, case)
    for file in images.glob("plain*"):
        file.write_bytes(gzip.decompress(file.read_bytes()))
    by_nibabel(SHEARED)(image[1, :, 1:].astype(np.int16), images / "other_0001.nii.gz")
    by_nibabel(SHEARED)(np.full(shape, np.nan, np.float32), images / "nan_0002.nii.gz")
    rename_reader(model, reader, ending)
    describe_again(exported, model)
    assert predict(model, images, tmp_path / "ours") == 1
    found = reasons(capsys.readouterr().err)
    assert found["other"] == (
        "nnU-Net refuses other_0000.nii.gz, other_0001.nii.gz, other_0002.nii.gz; what differs is printed above"
    )
    assert found["nan"].startswith("nan_0002.nii.gz has NaN or infinite voxels")
    assert run_program(exported, images, tmp_path / "program") == 1
    found = reasons(capsys.readouterr().err)
    assert found["other"].startswith("other_0001.nii.gz has another shape or spacing than other_0000.nii.gz")
    assert found["nan"].startswith("nan_0002.nii.gz has NaN or infinite voxels")
    for folder in ("ours", "program"):
        assert sorted(file.name for file in (tmp_path / folder).glob("*.nii.gz")) == ["plain.nii.gz", "whole.nii.gz"]
        one, two = (nibabel.load(tmp_path / folder / f"{case}.nii.gz") for case in ("plain", "whole"))
        np.testing.assert_array_equal(one.dataobj, two.dataobj)


def test_the_scene_is_found_at_all(model, tmp_path):
    """Otherwise the comparison would compare noise."""
    reader, ending, shape, write = FORMATS["png"]
    (tmp_path / "images").mkdir()
    image, labels = make_scene(shape, seed=2)
    write(image, tmp_path / "images", "a")
    rename_reader(model, reader, ending)
    assert predict(model, tmp_path / "images", tmp_path / "ours") == 0
    found = recursive_find_reader_writer_by_name(reader)().read_seg(str(tmp_path / "ours/a.png"))[0][0]
    assert min(dice(found == label, labels == label) for label in (1, 2)) > 0.9
