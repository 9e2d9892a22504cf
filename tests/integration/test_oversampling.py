"""Patches around foreground in batches so small that nnU-Net rounds their share of a third to none."""

from pathlib import Path

import numpy as np
import pytest
from helpers import make_trainer


def loader(trainer):
    """nnU-Net's loader of training batches, below the augmenter."""
    trainer.initialize()
    return trainer.get_dataloaders()[0].data_loader


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_a_third_of_the_patches_is_taken_around_foreground(nnunet, variant, batch_size):
    plans = variant(f"batch{batch_size}", batch_size=batch_size)
    ours = make_trainer(nnunet, "nnUNetTrainerStudent", plans)
    stock = make_trainer(nnunet, "nnUNetTrainer", plans)
    stock.configuration_manager.configuration["batch_size"] = batch_size
    taken = {
        name: np.array([[batches.get_do_oversample(sample) for sample in range(batch_size)] for _ in range(1000)])
        for name, batches in (("ours", loader(ours)), ("stock", loader(stock)))
    }
    if batch_size == 1:
        assert taken["stock"].sum() == 0
        assert taken["ours"].mean() == pytest.approx(0.33, abs=0.06)
    else:
        assert np.array_equal(taken["ours"], taken["stock"])
        assert taken["ours"].any(axis=1).all()
    [log] = [file.read_text() for file in Path(ours.output_folder).glob("training_log_*.txt")]
    assert ("nnU-Net rounds 33% of a batch to no patch around foreground" in log) == (batch_size == 1)
