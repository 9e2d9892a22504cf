"""Data sets of other formats all the way: planned by nnU-Net, a teacher, its student, every way to predict."""

import json

import numpy as np
import pytest
from color_model import FORMATS, LABELS, make_scene
from helpers import train_once
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from phantom_data import narrow, plan
from predictions import assert_same_segmentations, exported_folder, predict, run_program, stock_predict

from nnunetv2_hlfd.cli.main import main

CHANNELS = {"png": ["rgb_to_0_1"] * 3, "3d tif": ["noNorm"] * 3, "sheared": ["R", "G", "B"], "bmp": ["R", "G", "B"]}
SETTINGS = {"num_epochs": 2, "num_iterations_per_epoch": 50, "initial_lr": 3e-3, "recipe": "paper"}


def make_data_set(root, number, name):
    """Raw, planned for its format by nnU-Net itself, and preprocessed in 2d; returns its folder."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess

    _, ending, shape, write = FORMATS[name]
    folder = root / "raw" / f"Dataset{number}_Format"
    for part in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / part).mkdir(parents=True)
    for seed in range(6):
        image, labels = make_scene(shape, seed)
        write(image, folder / "imagesTr", f"case {seed}")
        write_label(labels, folder, f"case {seed}", name)
    write(make_scene(shape, seed=9)[0], folder / "imagesTs", "unseen")
    content = {
        "channel_names": {str(index): channel for index, channel in enumerate(CHANNELS[name])},
        "labels": LABELS,
        "numTraining": 6,
        "file_ending": ending,
    }
    if name == "sheared":  # nnU-Net chooses it itself, after errors of SimpleITK
        content["overwrite_image_reader_writer"] = "NibabelIO"
    (folder / "dataset.json").write_text(json.dumps(content))
    plan([number])
    plans_file = root / "preprocessed" / folder.name / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    assert plans["image_reader_writer"] == FORMATS[name][0]
    narrow(plans)
    plans_file.write_text(json.dumps(plans))
    preprocess([number], configurations=("2d",), num_processes=(1,))
    return folder


def write_label(labels, folder, case, name):
    reader, ending, *_ = FORMATS[name]
    nnunets = recursive_find_reader_writer_by_name(reader)()
    files = sorted((folder / "imagesTr").glob(f"{case}_*{ending}"))
    _, properties = nnunets.read_images([str(file) for file in files])
    nnunets.write_seg(labels, str(folder / "labelsTr" / f"{case}{ending}"), properties)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [(911, "png"), (912, "3d tif"), (913, "sheared"), (914, "bmp")])
def test_a_data_set_teaches_is_exported_quantized_and_predicted_as_by_stock_nnunet(
    nnunet, train, variant, tmp_path, number, name
):
    reader, ending, *_ = FORMATS[name]
    raw = make_data_set(nnunet, number, name)
    plans = variant("short", dataset=raw.name, **SETTINGS)
    teacher = train_once(nnunet, train, "nnUNetTrainerTeacher", dataset=raw.name, plans=plans).parent
    stored = variant("stored", dataset=raw.name, base=plans, **SETTINGS, teacher_maps="stored")
    assert main(["teach", raw.name, "2d", "0", "-p", stored, "-device", "cpu"]) == 0
    student = train_once(nnunet, train, "nnUNetTrainerKD", dataset=raw.name, plans=stored).parent
    validation = json.loads((teacher / "fold_0/validation/summary.json").read_text())
    assert validation["foreground_mean"]["Dice"] > 0.7
    images, stocks = raw / "imagesTs", tmp_path / "stock"
    stock_predict(teacher, images, stocks)
    assert predict(teacher, images, tmp_path / "ours") == 0
    assert_same_segmentations(tmp_path / "ours", stocks, reader, ending)
    for to, more in (("onnx", ()), ("openvino", ()), ("openvino", ("--int8",))):
        folder = "-".join([to, *more])
        arguments = ["export", "-m", teacher, "-o", tmp_path / folder, "-to", to, *more]
        assert main([str(argument) for argument in arguments]) == 0
        assert run_program(exported_folder(tmp_path / folder), images, tmp_path / f"by {folder}") in (0, 3)
        least = 0.95 if more else 0.999
        assert_same_segmentations(tmp_path / f"by {folder}", stocks, reader, ending, least=least)
    stock_predict(student, images, tmp_path / "stock student")
    assert predict(student, images, tmp_path / "student") == 0
    assert_same_voxels(tmp_path / "student", tmp_path / "stock student", reader, ending)


def assert_same_voxels(folder, expected, reader, ending):
    """The student has learned too little for the Dice of each label."""
    read = recursive_find_reader_writer_by_name(reader)().read_seg
    [file] = expected.glob(f"*{ending}")
    assert (read(str(file))[0] == read(str(folder / file.name))[0]).mean() > 0.999


@pytest.mark.slow
def test_color_images_are_benchmarked(nnunet, train, variant, tmp_path):
    raw = make_data_set(nnunet, 915, "png")
    plans = variant("short", dataset=raw.name, **SETTINGS)
    teacher = train_once(nnunet, train, "nnUNetTrainerTeacher", dataset=raw.name, plans=plans).parent
    arguments = ["benchmark", "-device", "cpu", "-m", teacher, teacher, "-i", raw / "imagesTr", "-gt", raw / "labelsTr"]
    assert main([str(argument) for argument in [*arguments, "-o", tmp_path / "ladder", "-max_dice_drop", 1]]) == 0
    rungs = json.loads((tmp_path / "ladder/ladder.json").read_text())["rungs"]
    dice = {name: rung["dice"] for name, rung in rungs.items()}
    assert len(dice) == 11
    np.testing.assert_allclose(list(dice.values()), dice["nnU-Net, teacher"], atol=0.05)
    assert dice["our tile loop"] == pytest.approx(dice["no mirroring"], abs=1e-3)
