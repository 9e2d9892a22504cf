"""Predictions of any format, in this process: stock nnU-Net's, those of `predict` and of an export's predict.pyz."""

import numpy as np
import onnx
import torch
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.deploy.describe import describe
from nnunetv2_hlfd.deploy.runtime.cli import main as program
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.utilities.dice import dice


def exported_folder(output):
    [folder] = output.glob("Dataset*/nnUNetTrainer*")
    return folder


def describe_again(exported, model):
    """Write into the network of an export what an export of the model would say about its images now."""
    file = exported / "fold_0/network.onnx"
    network = onnx.load(file)
    [entry] = [entry for entry in network.metadata_props if entry.key == "nnunet"]
    entry.value = describe(ModelFolder.open(model), mirroring=True).to_json()
    onnx.save(network, file)


def stock_predict(model, images, output):
    output.mkdir(parents=True)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    predictor.predict_from_files_sequential(str(images), str(output))


def predict(model, images, output):
    return main(["predict", "-m", str(model), "-i", str(images), "-o", str(output), "-device", "cpu"])


def run_program(exported, images, output, *more):
    return program(["-m", str(exported), "-i", str(images), "-o", str(output), *more])


def assert_same_segmentations(folder, expected, reader, ending, least=0.999):
    """Every file, the Dice of every label, and the geometry."""
    read = recursive_find_reader_writer_by_name(reader)().read_seg
    files = sorted(expected.glob(f"*{ending}"))
    assert files
    for file in files:
        (ours, described), (theirs, wanted) = read(str(folder / file.name)), read(str(file))
        for label in (1, 2):
            assert (theirs == label).sum() > 100
            assert dice(ours == label, theirs == label) >= least
        np.testing.assert_allclose(described["spacing"], wanted["spacing"])
        if "sitk_stuff" in wanted:
            for key in ("origin", "direction"):
                np.testing.assert_allclose(described["sitk_stuff"][key], wanted["sitk_stuff"][key])
        if "nibabel_stuff" in wanted:
            key = "original_affine"
            np.testing.assert_allclose(described["nibabel_stuff"][key], wanted["nibabel_stuff"][key])
