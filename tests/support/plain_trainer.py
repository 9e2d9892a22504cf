"""Trainers as a user writes them, found through nnUNet_extTrainer: their network has neither encoder nor decoder."""

import os
import runpy
from types import SimpleNamespace

SOURCE = '''
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn


class PlainNetwork(nn.Module):
    """Two convolutions; `as_list`: their logits and smaller ones, whatever is asked for."""

    def __init__(self, dimension, channels, heads, as_list):
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dimension]
        self.first = convolution(channels, 4, kernel_size=3, padding=1)
        self.last = convolution(4, heads, kernel_size=3, padding=1)
        self.as_list = as_list

    def forward(self, image):
        logits = self.last(torch.relu(self.first(image)))
        return [logits, logits[..., ::2, ::2]] if self.as_list else logits


class nnUNetTrainerPlain(nnUNetTrainer):
    as_list = False

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1
        self.enable_deep_supervision = False

    @classmethod
    def build_network_architecture(cls, plans_manager, configuration_manager, num_input_channels,
                                   num_output_channels, enable_deep_supervision=True):
        dimension = len(configuration_manager.patch_size)
        return PlainNetwork(dimension, num_input_channels, num_output_channels, cls.as_list)

    def set_deep_supervision_enabled(self, enabled):
        pass


class nnUNetTrainerListing(nnUNetTrainerPlain):
    as_list = True
'''


def write_trainers(folder, monkeypatch):
    """Write the trainers into a folder that nnUNet_extTrainer then names too.

    Returns:
        The names of their module, and the folder as `TRAINERS`.
    """
    trainers = folder / "trainers"
    trainers.mkdir()
    file = trainers / "plain_trainers.py"
    file.write_text(SOURCE)
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([os.environ["nnUNet_extTrainer"], str(trainers)]))
    return SimpleNamespace(**runpy.run_path(str(file)), TRAINERS=trainers)
