"""Weights and preprocessed images with NaN or infinite values are refused by name, wherever they come in."""

import shutil

import blosc2
import numpy as np
import pytest
import torch
from helpers import load, make_trainer

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.utilities.errors import UserError

DATASET = "Dataset901_Phantom"
RUN = (DATASET, "2d", "0", "-p", "nnUNetPlans_short", "-device", "cpu")


@pytest.fixture(scope="module")
def broken(teacher_2d, tmp_path_factory):
    """The 2d teacher with a single NaN in the bias of its last layer, and the name of that weight."""
    model = shutil.copytree(teacher_2d.parent, tmp_path_factory.mktemp("broken") / DATASET / teacher_2d.parent.name)
    file = model / "fold_0/checkpoint_final.pth"
    content = load(file)
    name = [name for name in content["network_weights"] if name.endswith("seg_layers.0.bias")][-1]
    content["network_weights"][name][1] = float("nan")
    torch.save(content, file)
    return model, name


@pytest.mark.faults("NaN, infinite values and impossible sizes")
@pytest.mark.parametrize(
    "command",
    [
        ("predict", "-m", "MODEL", "-i", "IMAGES", "-o", "OUT", "-device", "cpu"),
        ("predict", "-m", "MODEL", "-i", "IMAGES", "-o", "OUT", "-device", "cpu", "-backend", "openvino"),
        ("export", "-m", "MODEL", "-o", "OUT"),
        ("export", "-m", "MODEL", "-o", "OUT", "-to", "onnx"),
        ("export", "-m", "MODEL", "-o", "OUT", "-to", "openvino"),
        ("compress", "-m", "MODEL", "-i", "IMAGES", "-o", "OUT", "-device", "cpu"),
        ("teach", *RUN),
        ("train", *RUN, "-tr", "nnUNetTrainerKD"),
        ("train", *RUN, "-tr", "nnUNetTrainerTeacher", "-pretrained_weights", "CHECKPOINT", "--dry_run"),
    ],
    ids=lambda command: " ".join(command[:1] + command[7:]),
)
def test_weights_that_are_not_finite_are_refused(broken, nnunet, tmp_path, monkeypatch, capsys, command):
    model, name = broken
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(model))
    places = {
        "MODEL": model,
        "IMAGES": nnunet / "raw" / DATASET / "imagesTr",
        "OUT": tmp_path / "out",
        "CHECKPOINT": model / "fold_0/checkpoint_final.pth",
    }
    before = set(nnunet.rglob("*"))
    assert main([str(places.get(word, word)) for word in command]) == 2
    message = capsys.readouterr().err
    assert f"{places['CHECKPOINT']} is of no use: the weight " in message
    assert f"{name.rpartition('.')[2]} has NaN or infinite values" in message
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    written = {path for path in set(nnunet.rglob("*")) - before if path.is_file()}
    assert all(path.name.startswith("training_log_") for path in written)


@pytest.fixture
def case_with_nan(nnunet):
    """A training case of fold 0 with one infinite voxel, which is whole again after the test."""
    folder = nnunet / "preprocessed" / DATASET / "nnUNetPlans_2d"
    case = make_trainer(nnunet, "nnUNetTrainerStudent", "nnUNetPlans").do_split()[0][-1]
    file = folder / f"{case}.b2nd"
    whole = file.read_bytes()
    image = np.array(blosc2.open(str(file), mode="r")[:])
    image[0, -1, -1, -1] = np.inf
    file.unlink()
    blosc2.asarray(image, urlpath=str(file))
    yield case
    file.write_bytes(whole)


@pytest.mark.faults("NaN, infinite values and impossible sizes")
def test_preprocessed_images_that_are_not_finite_are_refused_before_training(
    nnunet, variant, teacher_2d, case_with_nan, monkeypatch, capsys
):
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
    plans = variant("unclean")
    for name in ("nnUNetTrainerStudent", "nnUNetTrainerTeacher"):
        trainer = make_trainer(nnunet, name, plans)
        with pytest.raises(UserError, match=rf"^The preprocessed images of {case_with_nan} in .* have NaN or infinite"):
            trainer.run_training()
    assert main(["teach", DATASET, "2d", "0", "-p", plans, "-device", "cpu"]) == 2
    message = f"The teacher cannot predict {case_with_nan}: its preprocessed image has NaN or infinite values."
    assert message in capsys.readouterr().err
    for folder in (nnunet / "preprocessed" / DATASET).glob("*_teacher_*"):  # the maps of the cases before it
        shutil.rmtree(folder)
