"""Attention and intermediate outputs stored for HLFD and others by `teach --needs_of`."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import assert_same, load, make_trainer, run_epoch, started
from phantom_data import DATASET, REGIONS_DATASET

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.teacher.stored.folder import MapsFolder

STORABLE = ("HLFD", "HLFD_pixelTruth", "AT", "EMKD", "DSKD")


def teach(plans, trainer, dataset=DATASET, configuration="2d"):
    return main(
        ["teach", dataset, configuration, "0", "-p", plans, "-device", "cpu", "--needs_of", f"nnUNetTrainer{trainer}"]
    )


SETTINGS = {"base": "nnUNetPlans_short", "teacher_maps": "stored", "attention_exponent": 3.0}


@pytest.fixture(scope="module", autouse=True)
def _only_here(nnunet):
    """Tests of the same teacher find no maps of these."""
    before = set(nnunet.glob("preprocessed/*/*_teacher_*"))
    yield
    for folder in set(nnunet.glob("preprocessed/*/*_teacher_*")) - before:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def plans(variant, teacher_2d):
    return variant("storedhlfd", **SETTINGS)


@pytest.fixture(scope="module")
def maps(nnunet, plans):
    """The folder of all that HLFD needs; there are final maps alone as well."""
    before = set((nnunet / "preprocessed" / DATASET).glob("*_teacher_*"))
    assert main(["teach", DATASET, "2d", "0", "-p", plans, "-device", "cpu"]) == 0
    with pytest.raises(ValueError, match=r"with all that nnUNetTrainerHLFD needs .* --needs_of nnUNetTrainerHLFD"):
        make_trainer(nnunet, "nnUNetTrainerHLFD", plans).check_start()
    finals = set((nnunet / "preprocessed" / DATASET).glob("*_teacher_*"))
    assert teach(plans, "HLFD") == 0
    [folder] = set((nnunet / "preprocessed" / DATASET).glob("*_teacher_*")) - finals - before
    return folder


def whole_slices(trainer, case):
    """Images and codes (B, C + channels, y, x) of all slices of a training case."""
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, [case])
    stored = trainer.distiller.stored
    stacked = (stored.with_maps(dataset) if stored else dataset).load_case(case)[0]
    return torch.from_numpy(np.asarray(stacked[:, :, :, :], dtype=np.float32)).moveaxis(1, 0)


@pytest.mark.parametrize(("name", "source"), [*((name, "encoder") for name in STORABLE), ("HLFD", "decoder")])
def test_stored_and_live_teacher_teach_the_same(nnunet, variant, teacher_2d, name, source):
    """On whole slices, which are one tile of the teacher and are not augmented."""
    more = {"teacher_features": source, "attention_exponent": 2.0}
    both = [
        variant(f"same.{maps}.{source}", base="nnUNetPlans_short", teacher_maps=maps, **more)
        for maps in ("stored", "live")
    ]
    assert teach(both[0], name) == 0
    stored, live = (make_trainer(nnunet, f"nnUNetTrainer{name}", plans) for plans in both)
    for trainer in (stored, live):
        trainer.check_start()
    case = stored.do_split()[0][0]
    image = whole_slices(live, case)
    patch = live.configuration_manager.patch_size
    assert list(image.shape[2:]) == list(patch)
    target = torch.zeros(len(image), 1, *patch)
    terms = []
    for trainer, batch in ((stored, whole_slices(stored, case)), (live, image)):
        data, shown = trainer.distiller.split(batch)
        assert torch.equal(data, image)
        with torch.no_grad():
            outputs = live.distiller.run_student(live.network, data)
            live.distiller.method.load_state_dict(stored.distiller.method.state_dict())
            terms.append(trainer.distiller.terms(outputs, trainer.distiller.ask_teacher(shown), target))
    for term, value in terms[1].items():
        assert terms[0][term].item() == pytest.approx(value.item(), abs=0.01, rel=0.02), term


def test_with_factor_zero_the_student_is_the_student_alone_bit_for_bit(nnunet, variant, plans, maps):
    zero = variant("storedhlfd.zero", **SETTINGS, beta=0, **{"lambda": 0})
    trainers = [make_trainer(nnunet, name, zero) for name in ("nnUNetTrainerHLFD", "nnUNetTrainerStudent")]
    for trainer in trainers:
        trainer.run_training()
    distilled, alone = (load(Path(trainer.output_folder) / "checkpoint_final.pth") for trainer in trainers)
    assert_same(distilled["network_weights"], alone["network_weights"])
    assert_same(distilled["optimizer_state"]["state"], alone["optimizer_state"]["state"])
    for term in ("ufd", "ifd", "upd", "ipd"):
        assert min(row[term] for row in trainers[0].distiller.log.rows) > 0


def test_a_continued_run_equals_the_uninterrupted_one(nnunet, variant, plans, maps):
    whole, parts = (make_trainer(nnunet, "nnUNetTrainerHLFD", variant(f"storedhlfd.{n}", **SETTINGS)) for n in "ab")
    whole.run_training()
    parts.on_train_start()
    run_epoch(parts)
    second = make_trainer(nnunet, "nnUNetTrainerHLFD", variant("storedhlfd.b", **SETTINGS), continue_training=True)
    second.load_checkpoint(str(Path(parts.output_folder) / "checkpoint_latest.pth"))
    second.run_training()
    expected, got = (load(Path(trainer.output_folder) / "checkpoint_final.pth") for trainer in (whole, second))
    for key in ("network_weights", "optimizer_state"):
        assert_same(got[key], expected[key])
    assert got["hlfd"]["teacher"] == expected["hlfd"]["teacher"]


def test_batches_are_those_of_a_live_teacher_and_carry_all_maps(nnunet, variant, plans, maps):
    batches = []
    for name in (variant("livehlfd", base="nnUNetPlans_short"), plans):
        stored = started(make_trainer(nnunet, "nnUNetTrainerHLFD", name))
        batches.insert(0, next(stored.dataloader_train))
    data, shown = stored.distiller.split(batches[0]["data"])
    assert torch.equal(data, batches[1]["data"])
    assert_same(batches[0]["target"], batches[1]["target"])
    assert shown.shape[1] == sum(MapsFolder.read(maps).description.all_channels)
    assert "late" in stored.describe()


def test_least_is_read_of_several_folders(nnunet, plans, maps):
    kd = make_trainer(nnunet, "nnUNetTrainerKD", plans)
    kd.check_start()
    assert kd.distiller.stored.channels == 3
    hlfd = make_trainer(nnunet, "nnUNetTrainerHLFD", plans)
    hlfd.check_start()
    assert str(hlfd.distiller.stored) == f"StoredTeacher({maps.name})"


@pytest.mark.parametrize(
    ("name", "needed"), [("CWD", "logits"), ("FitNet", "features"), ("SKD", "features"), ("EMKD_region", "features")]
)
def test_what_cannot_be_stored_is_refused(nnunet, plans, maps, capsys, name, needed):
    message = f"{name} needs the teacher's {needed}, which cannot be stored. Set teacher_maps to live."
    assert teach(plans, name) == 2
    assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match=message):
        make_trainer(nnunet, f"nnUNetTrainer{name}", plans).check_start()


@pytest.mark.parametrize(
    ("dataset", "configuration"),
    [(DATASET, "3d_fullres"), pytest.param(REGIONS_DATASET, "2d", marks=pytest.mark.slow)],
    ids=["3d", "regions with ignore label"],
)
def test_maps_of_other_data_are_learned_from(nnunet, variant, monkeypatch, dataset, configuration):
    plans = variant("untrainedhlfd", dataset=dataset)
    teacher = make_trainer(nnunet, "nnUNetTrainerTeacher", plans, dataset=dataset, configuration=configuration)
    teacher.on_train_start()
    for layer in teacher.network.decoder.seg_layers:
        torch.nn.init.constant_(layer.bias, 0.1)  # as if it were trained
    teacher.save_checkpoint(str(Path(teacher.output_folder) / "checkpoint_final.pth"))
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(Path(teacher.output_folder_base)))
    stored = variant(
        "storedhlfd", dataset=dataset, base="nnUNetPlans_untrainedhlfd", teacher_maps="stored", teacher_fold=0
    )
    assert teach(stored, "HLFD", dataset, configuration) == 0
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", stored, dataset=dataset, configuration=configuration)
    trainer.on_train_start()
    run_epoch(trainer)
    assert all(trainer.distiller.log.rows[0][term] > 0 for term in ("ufd", "ifd", "upd", "ipd"))
