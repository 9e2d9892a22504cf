"""Checking and loading a teacher: every refusal on an altered copy of a really trained model folder."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from architectures import RESIDUAL, architecture
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunetv2_hlfd.distillation.method import ALL_NEEDS, ATTENTION, FINAL, OF_ANY_NETWORK, TeacherShape
from nnunetv2_hlfd.distillation.registry import METHODS, find_method
from nnunetv2_hlfd.models.checkpoints import sha256
from nnunetv2_hlfd.networks.size import build_network
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.teacher.checkpoint import check_same_teacher
from nnunetv2_hlfd.teacher.search import StudentSide
from nnunetv2_hlfd.teacher.teacher import load_teacher

VARIABLE = "nnUNet_hlfd_teacher"
OWN, BASE = "nnUNetPlans_short_x", "nnUNetPlans_short"
MODEST = [name for name in METHODS if find_method(name).needs <= OF_ANY_NETWORK]


@dataclass
class Model:
    """A model folder that a test may alter, and the student that wants to learn from it."""

    folder: Path
    student: StudentSide

    @property
    def fold(self):
        return self.folder / "fold_0"

    @property
    def checkpoint(self):
        return self.fold / "checkpoint_final.pth"

    def edit(self, file, change):
        """Change plans.json or dataset.json in place."""
        content = json.loads((self.folder / file).read_text())
        change(content)
        (self.folder / file).write_text(json.dumps(content))

    def edit_configuration(self, key, value):
        self.edit("plans.json", lambda plans: plans["configurations"][self.student.configuration].update({key: value}))

    def edit_checkpoint(self, change):
        content = torch.load(self.checkpoint, weights_only=False)
        change(content)
        torch.save(content, self.checkpoint)

    def load(self, needs=ALL_NEEDS, **settings):
        return load_teacher(self.student, Settings.from_dict(settings), {"HLFD": needs})

    def refusal(self, needs=ALL_NEEDS, **settings):
        with pytest.raises(ValueError, match=r"\w") as caught:
            self.load(needs, **settings)
        return str(caught.value)


def model_in(tmp_path, fold_folder):
    """Copy a trained model without its predictions into a results folder of the test's own, under the base plans."""
    configuration = fold_folder.parent.name.split("__")[-1]
    folder = tmp_path / "results" / f"nnUNetTrainer__{BASE}__{configuration}"
    shutil.copytree(
        fold_folder.parent, folder, ignore=shutil.ignore_patterns("*.nii.gz", "*.png", "checkpoint_best.pth")
    )
    summary = json.loads((fold_folder / "validation" / "summary.json").read_text())
    cases = [Path(each["prediction_file"]).name.removesuffix(".nii.gz") for each in summary["metric_per_case"]]
    student = StudentSide(
        plans=PlansManager(json.loads((folder / "plans.json").read_text())),
        plans_names=[OWN, BASE],
        configuration=configuration,
        dataset_json=json.loads((folder / "dataset.json").read_text()),
        fold=0,
        validation_cases=cases,
        results_folder=tmp_path / "results",
    )
    return Model(folder, student)


@pytest.fixture
def model(tmp_path, teacher_2d):
    return model_in(tmp_path, teacher_2d)


# Loading


@pytest.mark.parametrize("which", ["teacher_2d", "teacher_3d"])
def test_a_trained_teacher_is_frozen_and_returns_all_its_maps_without_gradients(request, tmp_path, which):
    model = model_in(tmp_path, request.getfixturevalue(which))
    teacher = model.load()
    [loaded] = teacher.networks
    weights = torch.load(model.checkpoint, weights_only=False)["network_weights"]
    assert all(torch.equal(value, weights[name]) for name, value in loaded.network.state_dict().items())
    assert not any(module.training for module in loaded.network.modules())
    assert not any(each.requires_grad for each in loaded.network.parameters())
    patch = model.student.plans.get_configuration(model.student.configuration).patch_size
    taught = teacher(torch.rand(2, 1, *patch, requires_grad=True))
    [outputs] = taught.networks
    stages = model.student.plans.get_configuration(model.student.configuration).configuration["architecture"]
    number = stages["arch_kwargs"]["n_stages"]
    assert (len(outputs.features), len(outputs.logits)) == (number, number - 1)
    assert outputs.logits[0].shape == (2, 3, *patch)
    stages, taps = loaded.shape.stages, loaded.shape.taps
    assert [tuple(each.shape[2:]) for each in outputs.features] == [stage.size(patch) for stage in stages]
    assert not any(each.requires_grad for each in (*outputs.features, *outputs.logits))
    assert teacher.shape == loaded.shape
    assert (taps.mids, taps.late) == ((1, 2), 3)
    assert taps.heads == (1,), "4 stages: one intermediate output, which training has given a bias"


def test_the_origin_of_a_teacher_is_recorded(model):
    [loaded] = model.load().networks
    assert loaded.origin == {
        "folder": str(model.folder),
        "checkpoint": "fold_0/checkpoint_final.pth",
        "sha256": sha256(model.checkpoint),
        "trainer": "nnUNetTrainer",
        "plans_name": BASE,
        "mirroring_axes": (0, 1),
        "may_have_seen_validation_cases": False,
    }


@pytest.mark.parametrize(("held_out", "suspicious"), [("same", False), ("others", True)])
def test_an_explicit_fold_is_accepted_and_suspected_only_where_it_held_out_other_cases(model, held_out, suspicious):
    cases = model.student.validation_cases if held_out == "same" else ["case_of_another_fold"]
    model.student = replace(model.student, fold=1, validation_cases=cases)
    [loaded] = model.load(teacher_fold=0).networks
    assert loaded.origin["may_have_seen_validation_cases"] is suspicious


def test_fold_all_is_suspected_though_it_was_validated_on_these_cases(model):
    """nnU-Net validates fold `all` on its training cases, under whatever name its folder has now."""
    shutil.copytree(model.fold, model.folder / "fold_all")
    assert model.load(teacher_fold="all").networks[0].origin["may_have_seen_validation_cases"]
    assert not model.load().networks[0].origin["may_have_seen_validation_cases"]
    model.edit("dataset.json", lambda content: content.update(numTraining=len(model.student.validation_cases)))
    assert model.load(teacher_fold=0).networks[0].origin["may_have_seen_validation_cases"]


def test_a_teacher_whose_split_trains_on_the_validation_cases_is_suspected(model, tmp_path, monkeypatch):
    cases = model.student.validation_cases
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    dataset = tmp_path / "preprocessed" / model.student.plans.dataset_name
    dataset.mkdir(parents=True)
    for train, suspicious in ((["other"], False), (["other", cases[0]], True)):
        (dataset / "splits_final.json").write_text(json.dumps([{"train": train, "val": cases}]))
        assert model.load().networks[0].origin["may_have_seen_validation_cases"] is suspicious


def test_a_teacher_from_windows_with_files_of_another_kind_teaches(model):
    """Its summary.json has its own paths, and names with its own ending."""
    summary = json.loads((model.fold / "validation/summary.json").read_text())
    for case, name in zip(summary["metric_per_case"], model.student.validation_cases, strict=True):
        case["prediction_file"] = f"D:\\results\\fold_0\\validation\\{name}.nrrd"
    (model.fold / "validation/summary.json").write_text(json.dumps(summary))
    model.edit("dataset.json", lambda content: content.update(file_ending=".nrrd"))
    assert not model.load().networks[0].origin["may_have_seen_validation_cases"]


def test_a_setting_decides_how_deep_the_late_stage_lies(model):
    assert model.load(late_max_stride=4).networks[0].shape.taps.late == 2
    assert model.load(late_max_stride=None).networks[0].shape.taps.late == 3
    assert "Raise the setting late_max_stride" in model.refusal(late_max_stride=2)


def test_five_folds_teach_together_and_their_validation_does_not_matter_for_fold_all(model):
    for fold in range(1, 5):
        shutil.copytree(model.fold, model.folder / f"fold_{fold}")
    shutil.rmtree(model.folder / "fold_3" / "validation")
    model.student = replace(model.student, fold="all", validation_cases=["case_000"])
    teacher = model.load()
    assert [each.origin["checkpoint"] for each in teacher.networks] == [
        f"fold_{fold}/checkpoint_final.pth" for fold in range(5)
    ]
    assert len(teacher(torch.rand(1, 1, 48, 48)).networks) == teacher.shape.networks == 5
    assert repr(teacher) == "Teacher(5 networks)"


def test_a_teacher_of_other_plans_another_network_and_another_data_set_name_is_welcome(model, tmp_path, monkeypatch):
    """A ResidualEncoderUNet that was put together by hand, with nnU-Net's checkpoint keys."""
    block = architecture("2d", 5, name=RESIDUAL, features=[4, 8, 8, 12, 12])
    network = build_network(block, 1, 3)
    for head in list(network.decoder.seg_layers)[1:]:  # all but the deepest were trained
        nn.init.constant_(head.bias, 0.1)
    plans = json.loads((model.folder / "plans.json").read_text())
    del plans["hlfd"]
    plans |= {"plans_name": "nnUNetResEncUNetMPlans", "dataset_name": "Dataset777_Other"}
    plans["configurations"]["2d"] |= {"architecture": block, "batch_size": 12, "patch_size": [96, 96]}
    other = tmp_path / "Dataset777_Other" / "nnUNetTrainer__nnUNetResEncUNetMPlans__2d"
    shutil.copytree(model.fold / "validation", other / "fold_0" / "validation")
    (other / "plans.json").write_text(json.dumps(plans))
    (other / "dataset.json").write_text(json.dumps({**model.student.dataset_json, "name": "other", "numTraining": 99}))
    torch.save(
        {
            "network_weights": network.state_dict(),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "logging": {},
            "_best_ema": 0.5,
            "current_epoch": 1000,
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1),
            "init_args": {"plans": plans, "configuration": "2d", "fold": 0, "dataset_json": {}, "device": "cuda:0"},
        },
        other / "fold_0" / "checkpoint_final.pth",
    )
    monkeypatch.setenv(VARIABLE, str(other))
    teacher = model.load()
    [loaded] = teacher.networks
    assert type(loaded.network).__name__ == RESIDUAL
    assert loaded.origin["plans_name"] == "nnUNetResEncUNetMPlans"
    taps = loaded.shape.taps
    assert (taps.mids, taps.late, taps.heads) == ((1, 2, 3), 4, (1, 2))
    data = torch.rand(1, 1, 48, 48)
    with torch.no_grad():
        expected = network.eval()(data)
    torch.testing.assert_close(teacher(data).networks[0].logits, expected)


# Refusals


CONTRACT = {
    "other labels": (lambda m: m.edit("dataset.json", lambda d: d["labels"].update(cyst=3)), "labels"),
    "regions": (
        lambda m: m.edit(
            "dataset.json",
            lambda d: d.update(labels={"background": 0, "kidney": [1, 2], "tumor": [2]}, regions_class_order=[1, 2]),
        ),
        "regions_class_order: the student has None, the teacher [1, 2]",
    ),
    "other channels": (
        lambda m: m.edit("dataset.json", lambda d: d.update(channel_names={"0": "MR"})),
        "channel_names",
    ),
    "more channels": (
        lambda m: m.edit("dataset.json", lambda d: d["channel_names"].update({"1": "PET"})),
        "channel_names",
    ),
    "spacing": (lambda m: m.edit_configuration("spacing", [1.0, 7.5]), "the teacher [1.0, 7.5]"),
    "normalization": (
        lambda m: m.edit_configuration("normalization_schemes", ["ZScoreNormalization"]),
        "normalization_schemes",
    ),
    "mask": (lambda m: m.edit_configuration("use_mask_for_norm", [True]), "use_mask_for_norm"),
    "transpose": (
        lambda m: m.edit("plans.json", lambda p: p.update(transpose_forward=[2, 0, 1])),
        "transpose_forward",
    ),
    "intensities": (
        lambda m: m.edit("plans.json", lambda p: p["foreground_intensity_properties_per_channel"]["0"].update(mean=0)),
        "CT intensity properties",
    ),
    "dimension": (
        lambda m: m.edit_checkpoint(lambda c: c["init_args"].update(configuration="3d_fullres")),
        "dimension: the student has 2d, the teacher 3d",
    ),
}


@pytest.mark.parametrize(("alter", "expected"), CONTRACT.values(), ids=CONTRACT)
def test_a_teacher_that_sees_or_predicts_something_else_is_refused(model, alter, expected):
    alter(model)
    message = model.refusal()
    assert message.startswith(f"The teacher in {model.folder} does not fit this student:\n")
    assert expected in message


@pytest.mark.parametrize("patch", [[40, 44], [4, 48], [48, 4]])
def test_a_patch_that_does_not_go_through_the_teacher_is_refused(model, patch):
    model.student.plans.plans["configurations"]["2d"]["patch_size"] = patch
    model.student = replace(model.student, plans=PlansManager(model.student.plans.plans))
    assert f"The student's patch {patch} is too small or not divisible by the total strides [8, 8]" in model.refusal()


def test_a_teacher_validated_on_other_cases_is_refused(model):
    model.student = replace(model.student, validation_cases=["case_900"])
    assert "case_900 only in the student's" in model.refusal()


def test_a_teacher_without_validation_is_refused_but_not_where_its_fold_is_named(model):
    shutil.rmtree(model.fold / "validation")
    assert "it has no validation results. Run its nnUNetv2_train command again with --val" in model.refusal()
    assert len(model.load(teacher_fold=0).networks) == 1


def set_architecture(model, **changes):
    def change(plans):
        plans["configurations"]["2d"]["architecture"]["arch_kwargs"].update(changes)

    model.edit("plans.json", change)


@pytest.mark.parametrize("name", ["os.system", "torch.nn.functional.torch.os.system"])
def test_plans_that_would_run_code_are_refused_before_they_do(model, tmp_path, name):
    marker = tmp_path / "marker"
    set_architecture(model, nonlin=name, nonlin_kwargs={"command": f"touch {marker}"})
    message = model.refusal()
    assert not marker.exists()
    assert f"{model.folder / 'plans.json'} asks to import '{name}'" in message


@pytest.mark.parametrize("file", ["plans.json", "dataset.json"])
@pytest.mark.parametrize("text", ["", '{"plans_name": ', "[]", "3"])
def test_a_damaged_json_file_is_named(model, file, text):
    (model.folder / file).write_text(text)
    assert model.refusal().startswith(f"{model.folder / file} is damaged: ")


@pytest.mark.parametrize("file", ["plans.json", "dataset.json"])
def test_a_missing_json_file_is_named(model, file):
    (model.folder / file).unlink()
    message = model.refusal()
    assert message.startswith("Expected a model folder of nnU-Net with plans.json and dataset.json, ")
    assert message.endswith(f"no {model.folder / file}.")


LACKING = {
    "empty plans": lambda m: (m.folder / "plans.json").write_text("{}"),
    "no configurations": lambda m: m.edit("plans.json", lambda p: p.update(configurations={})),
    "configurations a list": lambda m: m.edit("plans.json", lambda p: p.update(configurations=[])),
    "no spacing": lambda m: m.edit("plans.json", lambda p: p["configurations"]["2d"].pop("spacing")),
    "no transpose": lambda m: m.edit("plans.json", lambda p: p.pop("transpose_forward")),
    "no architecture": lambda m: m.edit("plans.json", lambda p: p["configurations"]["2d"].pop("architecture")),
    "architecture null": lambda m: m.edit_configuration("architecture", None),
    "architecture kwargs null": lambda m: m.edit(
        "plans.json", lambda p: p["configurations"]["2d"]["architecture"].update(arch_kwargs=None)
    ),
    "stages and channels disagree": lambda m: set_architecture(m, features_per_stage=[8, 16]),
    "unknown argument": lambda m: set_architecture(m, surprise=1),
    "no intensities": lambda m: m.edit("plans.json", lambda p: p.pop("foreground_intensity_properties_per_channel")),
    "empty data set": lambda m: (m.folder / "dataset.json").write_text("{}"),
    "labels a list": lambda m: m.edit("dataset.json", lambda d: d.update(labels=["background", "kidney"])),
    "channels null": lambda m: m.edit("dataset.json", lambda d: d.update(channel_names=None)),
    "no configuration named": lambda m: m.edit_checkpoint(lambda c: c["init_args"].pop("configuration")),
    "no arguments": lambda m: m.edit_checkpoint(lambda c: c.update(init_args=None)),
}


@pytest.mark.parametrize("alter", LACKING.values(), ids=LACKING)
def test_plans_or_descriptions_that_lack_something_are_refused_naming_the_folder(model, alter):
    alter(model)
    message = model.refusal()
    assert str(model.folder) in message
    assert "damaged" in message


def test_a_damaged_checkpoint_is_named(model):
    model.checkpoint.write_bytes(model.checkpoint.read_bytes()[:1000])
    assert model.refusal().startswith(f"{model.checkpoint} is damaged or no torch checkpoint")


@pytest.mark.parametrize(
    ("alter", "culprit"),
    [
        (lambda m: set_architecture(m, features_per_stage=[8, 16, 32, 40]), "encoder.stages.3"),
        (lambda m: set_architecture(m, n_conv_per_stage=[3, 2, 2, 2]), "encoder.stages.0.0.convs.2"),
        (lambda m: m.edit_checkpoint(lambda c: c.update(network_weights={})), "encoder.stages.0.0.convs.0"),
    ],
)
def test_weights_that_do_not_fit_the_plans_are_refused_with_the_first_that_does_not(model, alter, culprit):
    alter(model)
    message = model.refusal()
    assert message.startswith(f"The weights in {model.checkpoint} do not fit the network of its plans.json: ")
    assert culprit in message


@pytest.mark.parametrize("weights", [3, None, [1], torch.zeros(2)])
def test_weights_that_are_no_state_dict_are_refused(model, weights):
    model.edit_checkpoint(lambda content: content.update(network_weights=weights))
    message = f"{model.checkpoint} is no nnU-Net checkpoint: expected name -> tensor as network_weights, got "
    assert model.refusal() == f"{message}{type(weights).__name__}."


@pytest.mark.parametrize(
    ("prefix", "wrapper"), [("_orig_mod.", "torch.compile"), ("module.", "DistributedDataParallel")]
)
def test_weights_from_inside_a_wrapper_are_refused_with_the_line_that_mends_them(model, prefix, wrapper):
    """Stock nnU-Net does not load them either."""
    content = torch.load(model.checkpoint, weights_only=False)
    wrapped = {f"{prefix}{key}": value for key, value in content["network_weights"].items()}
    torch.save({**content, "network_weights": wrapped}, model.checkpoint)
    with pytest.raises(RuntimeError, match="Missing key"):
        nnUNetPredictor(device=torch.device("cpu")).initialize_from_trained_model_folder(str(model.folder), (0,))
    message = model.refusal()
    assert f" They were saved from inside {wrapper}. Take '{prefix}' off their names: " in message
    line = message.split("off their names: ")[1]
    content = torch.load(model.checkpoint, weights_only=False)
    exec(line, {"content": content})
    torch.save(content, model.checkpoint)
    assert len(model.load().networks) == 1


def test_an_unknown_trainer_is_named_with_the_variable_that_makes_it_known(model):
    model.edit_checkpoint(lambda content: content.update(trainer_name="nnUNetTrainerOfAColleague"))
    message = model.refusal()
    assert "nnUNetTrainerOfAColleague" in message
    assert "nnUNet_extTrainer" in message


OLD_FORMS = """
from torch import nn
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans


class nnUNetTrainerOld(nnUNetTrainer):
    @staticmethod
    def build_network_architecture(architecture_class_name, arch_init_kwargs, arch_init_kwargs_req_import,
                                   num_input_channels, num_output_channels, enable_deep_supervision=True):
        return get_network_from_plans(architecture_class_name, arch_init_kwargs, arch_init_kwargs_req_import,
                                      num_input_channels, num_output_channels,
                                      deep_supervision=enable_deep_supervision)


class nnUNetTrainerOlder(nnUNetTrainer):
    @staticmethod
    def build_network_architecture(plans_manager, dataset_json, configuration_manager, num_input_channels,
                                   enable_deep_supervision=True):
        return nn.Conv2d(num_input_channels, len(dataset_json["labels"]), 1)
"""


@pytest.fixture
def colleague(model, tmp_path, monkeypatch):
    """Let a trainer of a module in nnUNet_extTrainer have trained the model."""

    def use(trainer, source=OLD_FORMS):
        (tmp_path / "trainers").mkdir()
        (tmp_path / "trainers/trainers_of_a_colleague.py").write_text(source)
        monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "trainers"))
        model.edit_checkpoint(lambda content: content.update(trainer_name=trainer))
        return model

    return use


def test_a_trainer_that_builds_by_the_form_before_nnunet_2_7_teaches_as_stock_nnunet_loads_it(colleague):
    model = colleague("nnUNetTrainerOld")
    stock = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    with pytest.warns(DeprecationWarning, match="old build_network_architecture signature"):
        stock.initialize_from_trained_model_folder(str(model.folder), (0,))
    with pytest.warns(DeprecationWarning, match=r"nnUNetTrainerOld builds its network by the form before nnU-Net 2\.7"):
        [loaded] = model.load().networks
    data = torch.rand(1, 1, 48, 48)
    with torch.no_grad():
        assert torch.equal(loaded.network(data)[0], stock.network.eval()(data))


def test_a_trainer_of_a_form_that_stock_nnunet_cannot_call_either_is_refused(colleague):
    model = colleague("nnUNetTrainerOlder")
    with pytest.raises(TypeError):
        nnUNetPredictor(device=torch.device("cpu")).initialize_from_trained_model_folder(str(model.folder), (0,))
    message = model.refusal()
    assert message.startswith("nnUNetTrainerOlder could not build its network by its build_network_architecture(plans_")
    assert "nnU-Net calls build_network_architecture(plans_manager, configuration_manager," in message


def test_a_trainer_whose_module_cannot_be_imported_is_named_with_what_is_missing(colleague):
    message = colleague("nnUNetTrainerOld", "import a_package_that_is_not_there\n").refusal()
    assert "was trained by nnUNetTrainerOld. Looking for it, nnU-Net could not import a module" in message
    assert "No module named 'a_package_that_is_not_there'. Install what is missing" in message


def test_a_teacher_of_two_stages_has_nothing_to_teach(model):
    set_architecture(
        model,
        n_stages=2,
        features_per_stage=[8, 16],
        kernel_sizes=[[3, 3]] * 2,
        strides=[[1, 1], [2, 2]],
        n_conv_per_stage=[2, 2],
        n_conv_per_stage_decoder=[2],
    )
    plans = PlansManager(json.loads((model.folder / "plans.json").read_text()))
    block = plans.get_configuration("2d").configuration["architecture"]
    model.edit_checkpoint(lambda c: c.update(network_weights=build_network(block, 1, 3).state_dict()))
    refusal = model.refusal()
    assert refusal.startswith(
        f"The teacher in {model.folder} cannot teach this: HLFD needs its attention, features, he"
    )
    assert "No usable stages in the teacher: expected at least 3 stages" in refusal
    assert refusal.endswith(f"Any network can teach {', '.join(MODEST)}, which need only its final map.")
    final = model.load(needs=frozenset({FINAL})).networks[0]
    assert final.shape == TeacherShape()


# Networks that are no U-Net of dynamic_network_architectures


TRAINER = """
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn


class nnUNetTrainerOfATeacher(nnUNetTrainer):
    @staticmethod
    def build_network_architecture(
        plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision=True
    ):
        return nn.Sequential(nn.Conv2d(num_input_channels, num_output_channels, 3, padding=PADDING))
"""


@pytest.fixture
def plain(model, tmp_path, monkeypatch):
    """Give the model a single convolution of somebody's trainer as its network, with this padding."""

    def make(padding):
        folder = tmp_path / "somebodys_trainers"
        folder.mkdir()
        (folder / "trainer_of_a_teacher.py").write_text(TRAINER.replace("PADDING", str(padding)))
        monkeypatch.setenv("nnUNet_extTrainer", str(folder))
        network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=padding))
        weights = network.state_dict()
        model.edit_checkpoint(lambda c: c.update(network_weights=weights, trainer_name="nnUNetTrainerOfATeacher"))
        return network

    return make


def test_any_network_teaches_its_final_map(model, plain):
    network = plain(1)
    data = torch.rand(2, 1, 16, 16)
    taught = model.load(needs=frozenset({FINAL}))(data)
    with torch.no_grad():
        assert torch.equal(taught.probabilities(0, 4.0, False), (network(data) / 4).softmax(dim=1))
    assert taught.networks[0].features == ()


def test_a_network_without_stages_is_refused_for_what_needs_them(model, plain):
    plain(1)
    refusal = model.refusal(needs=frozenset({FINAL, ATTENTION}))
    assert refusal.startswith(
        f"The teacher in {model.folder} cannot teach this: HLFD needs its attention. Expected a U-"
    )
    assert "got Sequential." in refusal
    assert refusal.endswith(f"Any network can teach {', '.join(MODEST)}, which need only its final map.")


def test_a_final_map_of_another_size_is_refused(model, plain):
    plain(0)
    refusal = model.refusal(needs=frozenset({FINAL}))
    assert refusal.startswith("Expected a final map of the patch's size ")


# Resuming


def origin(digest):
    return {"folder": "/results/model", "checkpoint": "fold_0/checkpoint_final.pth", "sha256": digest * 32}


def test_a_run_is_continued_with_the_same_teacher_only():
    check_same_teacher([origin("ab")], [])
    check_same_teacher([origin("ab")], [{**origin("ab"), "folder": "/moved"}])
    with pytest.raises(ValueError, match=r"^This run was started with another teacher: expected") as caught:
        check_same_teacher([origin("ab")], [origin("cd")])
    message = str(caught.value)
    file = "/results/model/fold_0/checkpoint_final.pth"
    assert f"expected {file} (SHA-256 cdcdcdcdcdcd), found {file} (SHA-256 abababababab)." in message
    assert message.endswith("Put the recorded teacher back, or start again without --c.")
