"""Two processes on the halves of a batch learn what one process learns on the whole: real DDP, on CPUs over gloo.

What it does not show: NCCL, GPUs, mixed precision under DDP.
"""

import contextlib
import json
import os

import pytest
import torch
from ddp_worker import STEPS, train, trainer_class, work
from helpers import assert_same, make_trainer
from phantom_data import DATASET, REGIONS_DATASET
from processes import Process

from nnunetv2_hlfd.distillation.registry import METHODS

# every method's terms beside HLFD's, each at a weight that counts
HEAVY = ("FitNet", "SKD", "DSKD")
ALL = {
    name: 0.1 if name in HEAVY else 0.5
    for name in METHODS
    if not name.startswith("HLFD") and name != "EMKD"  # which EMKD_region contains
}


@pytest.fixture(scope="module")
def taught(variant, train, teacher_2d):
    """Teachers of both data sets under plans of the name nnUNetPlans_short."""
    train("nnUNetTrainerTeacher", dataset=REGIONS_DATASET, plans=variant("short", dataset=REGIONS_DATASET))


def plans_of(nnunet, variant, dataset, batch_dice, **settings):
    variant_name = ".".join([f"ddp{batch_dice}", *settings]).replace("_", "")  # each case is a run of its own
    name = variant(variant_name, dataset=dataset, base="nnUNetPlans_short", batch_size=4, **settings)
    file = nnunet / "preprocessed" / dataset / f"{name}.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d"]["batch_dice"] = batch_dice
    file.write_text(json.dumps(plans))
    return name


def ignore_a_part(batch):
    """Of the first sample alone: halves with as many ignored voxels would not test the mean over the others."""
    for target in batch["target"]:
        target[0, -1, : target.shape[2] // 3] = 1  # the ignore channel


@pytest.mark.parametrize(
    ("dataset", "batch_dice", "settings"),
    [
        pytest.param(DATASET, True, {}, id="batch dice"),
        pytest.param(DATASET, False, {"weights": ALL}, id="sample dice, all methods"),
        pytest.param(DATASET, False, {"balance": "project", "balance_ratio": 0.1}, id="balanced"),
        pytest.param(REGIONS_DATASET, True, {"distill_ignored": False, "weights": ALL}, id="regions, ignored voxels"),
    ],
)
def test_two_processes_equal_one_on_the_whole_batch(
    nnunet, variant, taught, tmp_path, monkeypatch, dataset, batch_dice, settings
):
    plans = plans_of(nnunet, variant, dataset, batch_dice, **settings)
    trainer = "nnUNetTrainerHLFD"
    loader = make_trainer(nnunet, trainer, plans, dataset=dataset, trainer_class=trainer_class(trainer))
    loader.initialize()
    batch = next(loader.get_dataloaders()[0])
    if dataset == REGIONS_DATASET:
        ignore_a_part(batch)
    torch.save({"data": batch["data"], "target": batch["target"]}, tmp_path / "batch.pt")
    one = train(nnunet, trainer, plans, dataset, batch)
    arguments = (str(tmp_path), str(nnunet), trainer, plans, dataset)
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(Process(work, (rank, *arguments), os.environ, tmp_path / str(rank)))
            for rank in range(2)
        ]
        for process in processes:
            assert process.wait() == 0, process.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    assert (one["wrapped"], first["wrapped"]) == ("ResidualEncoderUNet", "DistributedDataParallel")
    assert (one["batch_size"], first["batch_size"], second["batch_size"]) == (4, 2, 2)
    taught_parameters = [name for name, gradient in one["gradients"][0].items() if gradient.abs().max() > 1e-4]
    assert len(taught_parameters) > 0.5 * len(one["gradients"][0])
    assert any(name.startswith("adapter") for name in taught_parameters)
    for name, gradient in one["gradients"][0].items():
        for each in (first, second):
            torch.testing.assert_close(each["gradients"][0][name], gradient, rtol=1e-5, atol=1e-5)
    for key in ("adapters", "network", "log", "loss"):
        assert_same(first[key], second[key])
    for step in range(STEPS):
        assert_same(first["gradients"][step], second["gradients"][step])
    assert not torch.equal(first["terms"], second["terms"]), "each process sees its half"
    [expected], [row] = one["log"], first["log"]
    assert row == pytest.approx(expected, rel=1e-3), "terms are gathered"
    torch.testing.assert_close((first["terms"][0] + second["terms"][0]) / 2, one["terms"][0], rtol=1e-4, atol=1e-6)
