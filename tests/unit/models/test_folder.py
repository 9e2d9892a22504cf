"""Opening a model folder: what says which model it is, and the networks in it."""

import json
import shutil

import pytest
import torch
from plain_trainer import write_trainers

from nnunetv2_hlfd.models.fold import BEST, FINAL
from nnunetv2_hlfd.models.folder import ModelFolder


@pytest.fixture
def folder(tmp_path, teacher_2d):
    """A copy of a trained teacher under another name."""
    target = tmp_path / "our best model"
    shutil.copytree(teacher_2d.parent, target, ignore=shutil.ignore_patterns("validation"))
    return target


def edit_checkpoint(file, **changes):
    content = torch.load(file, weights_only=False)
    content.update(changes)
    torch.save(content, file)


@pytest.mark.parametrize("checkpoint", [None, FINAL, BEST])
def test_a_renamed_folder_says_what_it_is(folder, checkpoint):
    model = ModelFolder.open(folder, folder / "fold_0" / checkpoint if checkpoint else None)
    assert (model.trainer, model.network_trainer) == ("nnUNetTrainerTeacher", "nnUNetTrainer")
    assert (model.plans.plans_name, model.configuration) == ("nnUNetPlans_short", "2d")
    assert (model.mirror_axes, model.input_shape) == ((0, 1), (1, 48, 48))
    assert model.name == "our best model"
    assert model.train_command(3, "--val") == (
        "nnUNetv2_train Dataset901_Phantom 2d 3 -tr nnUNetTrainerTeacher -p nnUNetPlans_short --val"
    )


def test_the_checkpoint_is_believed_not_the_name(folder):
    lying = folder.rename(folder.with_name("nnUNetTrainerHLFD__nnUNetPlans__3d_fullres"))
    model = ModelFolder.open(lying)
    assert (model.trainer, model.plans.plans_name, model.configuration) == (
        "nnUNetTrainerTeacher",
        "nnUNetPlans_short",
        "2d",
    )


def test_the_named_checkpoint_says_what_the_model_is(folder):
    edit_checkpoint(folder / "fold_0" / BEST, init_args={"configuration": "3d_fullres"}, hlfd=None)
    assert ModelFolder.open(folder).configuration == "2d"
    model = ModelFolder.open(folder, folder / "fold_0" / BEST)
    assert (model.configuration, model.trainer) == ("3d_fullres", "nnUNetTrainer")


@pytest.mark.faults("truncated and damaged files")
def test_a_damaged_checkpoint_is_passed_over_unless_it_is_meant(folder):
    damaged = folder / "fold_0" / FINAL
    damaged.write_bytes(damaged.read_bytes()[:1000])
    assert ModelFolder.open(folder).configuration == "2d", "of checkpoint_best"
    with pytest.raises(ValueError, match=f"{FINAL} is damaged"):
        ModelFolder.open(folder, damaged)


def test_without_checkpoints_the_name_says_what_the_model_is(folder):
    for checkpoint in folder.glob("fold_0/*.pth"):
        checkpoint.unlink()
    with pytest.raises(ValueError, match="or the name that nnU-Net gave the folder, TRAINER__PLANS__CONFIGURATION"):
        ModelFolder.open(folder)
    named = folder.rename(folder.with_name("nnUNetTrainerX__nnUNetPlans_short__3d_fullres"))
    model = ModelFolder.open(named)
    assert (model.trainer, model.configuration) == ("nnUNetTrainerTeacher", "3d_fullres"), "the trainer by plans.json"
    plans = json.loads((named / "plans.json").read_text())
    del plans["hlfd"]
    (named / "plans.json").write_text(json.dumps(plans))
    assert ModelFolder.open(named).trainer == "nnUNetTrainerX"
    with pytest.raises(ValueError, match="TRAINER__PLANS__CONFIGURATION"):
        ModelFolder.open(named.rename(named.with_name("nnUNetTrainerX__nnUNetPlans_short__4d")))


def test_other_folders_are_refused_in_the_same_words(folder, tmp_path):
    for other, missing in ((tmp_path, "plans.json"), (folder / "plans.json", "plans.json"), (folder, "dataset.json")):
        (folder / "dataset.json").unlink(missing_ok=True)
        with pytest.raises(ValueError, match="Expected a model folder of nnU-Net with plans") as caught:
            ModelFolder.open(other)
        assert str(caught.value).endswith(f"no {other / missing}.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer_name": "../x"}, "expected a folder's name as 'trainer_name', got '../x'"),
        ({"hlfd": {"trainer": 3}}, "expected a folder's name as 'trainer', got 3"),
        ({"init_args": {"configuration": ".."}}, "expected a folder's name as 'configuration', got '..'"),
        ({"init_args": {}}, "is damaged: KeyError: 'configuration'"),
        ({"inference_allowed_mirroring_axes": "x"}, "is damaged: ValueError"),
        ({"inference_allowed_mirroring_axes": (0, 0)}, "expected different axes of an image"),
        ({"inference_allowed_mirroring_axes": (3,)}, "expected different axes of an image"),
    ],
)
def test_a_checkpoint_that_says_something_else_is_refused(folder, changes, message):
    file = folder / "fold_0" / FINAL
    edit_checkpoint(file, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        ModelFolder.open(folder, file)
    assert str(caught.value).startswith(f"{file} is damaged")


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_a_network_is_restored_with_and_without_deep_supervision(folder, deep_supervision):
    model = ModelFolder.open(folder)
    network = model.network(folder / "fold_0" / FINAL, deep_supervision=deep_supervision)
    outputs = network(torch.zeros(1, *model.input_shape))
    assert isinstance(outputs, list) == deep_supervision
    assert (outputs[0] if deep_supervision else outputs[:1])[0].shape == (3, 48, 48)
    assert not any(weight.requires_grad for weight in network.parameters())


@pytest.mark.parametrize("trainer", ["nnUNetTrainerPlain", "nnUNetTrainerListing"])
def test_a_network_without_decoder_gives_its_logits_in_full_resolution(folder, tmp_path, monkeypatch, trainer):
    """Also one that returns a list whatever it is told."""
    plain = write_trainers(tmp_path, monkeypatch)
    model = ModelFolder.open(folder)
    network = plain.PlainNetwork(2, 1, 3, as_list=False)
    file = folder / "fold_0" / FINAL
    edit_checkpoint(file, trainer_name=trainer, network_weights=network.state_dict())
    image = torch.rand(2, *model.input_shape)
    restored = ModelFolder.open(folder, file).network(file)
    assert torch.equal(restored(image), network(image))
    supervised = model.network(file, deep_supervision=True)(image)
    assert isinstance(supervised, list) == (trainer == "nnUNetTrainerListing")
