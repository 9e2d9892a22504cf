"""Trainers and methods of somebody's installed package, whose folder nnUNet_extTrainer names as well."""

import importlib
import os
import sys

import pytest
import torch
from helpers import make_trainer, run_epoch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_hlfd.training.trainers_path import trainers_path

PACKAGE = {
    "networks.py": """
import torch
from torch import nn


class ForgeNet(nn.Module):
    def __init__(self, dimension, channels, heads):
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dimension]
        self.first, self.last = convolution(channels, 4, 3, padding=1), convolution(4, heads, 3, padding=1)

    def forward(self, image):
        return self.last(torch.relu(self.first(image)))
""",
    "trainers.py": """
from forge.networks import ForgeNet
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerForge(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1
        self.enable_deep_supervision = False

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, num_input_channels, num_output_channels,
                                   enable_deep_supervision=True):
        return ForgeNet(len(configuration_manager.patch_size), num_input_channels, num_output_channels)

    def set_deep_supervision_enabled(self, enabled):
        pass
""",
    "methods.py": """
from forge.networks import ForgeNet
from nnunetv2_hlfd.methods.kd import KD


class Forged(KD):
    title = "KD of the forge"
""",
}


@pytest.fixture
def forge(tmp_path, monkeypatch):
    """Install the package as pip does, with the entry point of its method; nothing of it is left afterwards."""
    folder = tmp_path / "site" / "forge"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    for name, source in PACKAGE.items():
        (folder / name).write_text(source)
    described = folder.with_name("forge-1.0.dist-info")
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: forge\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[nnunetv2_hlfd.methods]\nForged = forge.methods:Forged\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "forge"]:
        del sys.modules[name]


@pytest.mark.parametrize("first", [pytest.param("ours", marks=pytest.mark.slow), "theirs"])
def test_its_network_teaches_and_its_method_is_trained(nnunet, variant, train, teacher_2d, forge, monkeypatch, first):
    """nnU-Net imports its modules once more under other names, and forgets them, at every search for a trainer."""
    folders = [str(trainers_path()), str(forge)]
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join(folders if first == "ours" else folders[::-1]))
    fold = train("nnUNetTrainerForge", plans="nnUNetPlans_short")
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(fold.parent))
    plans = variant(f"forge.{first}", num_epochs=1)
    trainer = make_trainer(nnunet, "nnUNetTrainerForged", plans)
    trainer.on_train_start()
    data = torch.rand(1, 1, 48, 48)
    stock = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    stock.initialize_from_trained_model_folder(str(fold.parent), (0,))
    with torch.no_grad():
        taught = trainer.distiller.teacher(data)
        assert torch.equal(taught.networks[0].logits[0], stock.network.eval()(data))
    run_epoch(trainer)
    assert trainer.distiller.method.title == "KD of the forge"
    assert trainer.distiller.log.rows[0]["kd"] > 0
