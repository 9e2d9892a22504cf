"""`nnUNetv2_hlfd report --pictures` on models that nnU-Net has trained, against maps that are computed without it."""

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
import torch
from helpers import make_trainer, report_students, train_once
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from PIL import Image

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.report.arms import group_models
from nnunetv2_hlfd.report.maps import restore_fold, see
from nnunetv2_hlfd.report.models import read_model
from nnunetv2_hlfd.report.overlays import original_slice, read_overlay
from nnunetv2_hlfd.report.patches import open_cases, read_patch
from nnunetv2_hlfd.report.target import choose_target

REGIONS = "Dataset903_PhantomRegions"
LABELS = "Dataset901_Phantom"
PICTURES = {f"{kind}_{case}.png" for kind in ("overlay", "layers") for case in ("worst", "best")}


def report(output, models, *arguments):
    return main(["report", "-m", *map(str, models), "-o", str(output), *arguments])


def read(file):
    with file.open() as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def models(nnunet, train, variant, teacher_2d):
    """A teacher, two students alone that differ in the seed, one with HLFD."""
    return [teacher_2d.parent, *report_students(nnunet, train, variant)]


@pytest.fixture(scope="module")
def written(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    assert report(folder, models, "--pictures") == 0
    return folder


def load_network(model):
    """By nnU-Net's own predictor."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
    return predictor.network.eval(), predictor.configuration_manager, predictor.label_manager


def reference_shares(model, case, labels, channel):
    """Grad-CAM of the encoder's ends and attention of its second stage, by hooks of torch and sums of numpy."""
    network, configuration, manager = load_network(model)
    folder = f"{model.parents[2]}/preprocessed/{model.parent.name}/{configuration.data_identifier}"
    image, segmentation, _, _ = nnUNetDatasetBlosc2(folder, [case]).load_case(case)
    image, lesion = np.asarray(image), np.isin(np.asarray(segmentation[0]), labels)
    size = configuration.patch_size
    if len(size) == 2:
        index = lesion.sum(axis=(1, 2)).argmax()
        image, lesion = image[:, index], lesion[index]
    assert all(have <= want for have, want in zip(lesion.shape, size, strict=True)), "the patch holds the whole image"
    before = [(want - have) // 2 for have, want in zip(lesion.shape, size, strict=True)]
    padding = [(b, want - have - b) for b, have, want in zip(before, lesion.shape, size, strict=True)]
    image, lesion = np.pad(image, [(0, 0), *padding]), np.pad(lesion, padding)

    kept = {}
    for index, stage in enumerate(network.encoder.stages):
        stage.register_forward_hook(lambda _module, _inputs, output, index=index: kept.update({index: output}))
    logits = network(torch.from_numpy(image[None]).float())[0]
    for output in kept.values():
        output.retain_grad()
    predicted = logits[channel] > 0 if manager.has_regions else logits.argmax(dim=0) == channel
    shares = {}
    last = len(kept) - 1
    if predicted.any():
        logits[channel][predicted].sum().backward()
    for index in (0, 1, last):
        activation = kept[index].detach().numpy()[0]
        shares["attention", index] = share(np.abs(activation).mean(axis=0), lesion)
        if predicted.any():
            weights = kept[index].grad.numpy()[0].reshape(len(activation), -1).mean(axis=1)
            shares["Grad-CAM", index] = share(np.maximum(np.tensordot(weights, activation, axes=1), 0), lesion)
    return {
        ("Grad-CAM", "first stage"): shares.get(("Grad-CAM", 0), np.nan),
        ("Grad-CAM", "last stage"): shares.get(("Grad-CAM", last), np.nan),
        ("attention", "early stage"): shares["attention", 1],
    }, lesion.mean()


def share(values, lesion):
    """Every voxel has the value of its cell."""
    for axis, extent in enumerate(lesion.shape):
        values = np.repeat(values, extent // values.shape[axis], axis=axis)
    return values[lesion].sum() / values.sum() if values.sum() > 0 else np.nan


def check_shares(models, folder, labels, channel):
    rows = {(row["run"], row["case"], row["map"], row["stage"]): row for row in read(folder / "focus.csv")}
    cases = sorted({case for _, case, _, _ in rows})
    assert len(cases) == 2
    found = []
    for model in models:
        for case in cases:
            expected, area = reference_shares(model, case, labels, channel)
            for (kind, stage), value in expected.items():
                row = rows[model.name, case, kind, stage]
                assert float(row["share"] or "nan") == pytest.approx(value, abs=1e-4, nan_ok=True)
                assert float(row["uniform"]) == pytest.approx(area, abs=1e-6)
                found.append(value)
    assert np.isfinite(found).sum() > len(found) * 2 / 3


def test_shares_are_those_of_hooks_on_nnunets_own_network(models, written):
    check_shares(models, written, [2], 2)


def test_pixel_maps_are_the_probabilities_of_the_heads_that_were_trained(models, nnunet):
    model = read_model(models[3])
    target, trained = choose_target(model, None), restore_fold(model, 0)
    case = sorted(model.cases["case"])[0]
    patch = read_patch(open_cases(model.folder), case, 2, None, model.folder.configuration_manager.patch_size)
    trainer = make_trainer(nnunet, "nnUNetTrainerHLFD", model.folder.plans.plans_name)
    trainer.load_checkpoint(str(models[3] / "fold_0/checkpoint_final.pth"))
    trainer.network.eval()
    with torch.no_grad():
        features = trainer.network.encoder(patch.data)
        heads = trainer.distiller.method.methods["HLFD"].heads
        expected = [heads[str(stage)](features[stage]).softmax(dim=1)[0, 2] for stage in (1, 2, 3)]

    def seen(**factors):
        settings = {**trained.checkpoint["settings"], "weights": factors}
        changed = replace(trained, checkpoint={**trained.checkpoint, "settings": settings})
        maps = see(changed, patch, target).maps
        return {pixel_map.stage: pixel_map.values for pixel_map in maps if pixel_map.kind == "pixel map"}

    stages = ["early stage", "middle stage 1", "middle stage 2"]
    found = seen()
    assert list(found) == stages
    for stage, values in zip(stages, expected, strict=True):
        assert torch.allclose(found[stage], values, atol=1e-6)
    assert list(seen(ipd=0)) == stages[2:], "Eq. 3 teaches the deepest map"
    assert list(seen(upd=0)) == stages[:2]
    assert seen(HLFD=0) == {}


def test_pictures_stand_in_the_page_and_beside_it(written):
    assert {each.name for each in written.iterdir()} >= PICTURES
    text = (written / "report.html").read_text()
    assert len(re.findall(r'<img src="data:image/png;base64,', text)) == 3 + len(PICTURES)
    markdown = (written / "report.md").read_text()
    assert all(f"]({name})" in markdown for name in PICTURES)
    assert "## Focus on tumor" in markdown
    for name in PICTURES:
        assert np.asarray(Image.open(written / name).convert("L")).std() > 10


def test_the_table_is_the_mean_of_the_cases_each_averaged_over_its_seeds(written):
    rows = read(written / "focus.csv")
    assert {row["run"] for row in rows if row["arm"] == "student alone"} == {
        f"nnUNetTrainerStudent__nnUNetPlans_short_report.s{seed}__2d" for seed in (1, 2)
    }
    for row in read(written / "focus_arms.csv"):
        shares = {}
        for each in rows:
            if each["share"] and all(each[key] == row[key] for key in ("arm", "map", "stage")):
                shares.setdefault(each["case"], []).append(float(each["share"]))
        assert int(row["cases"]) == len(shares) > 0
        assert float(row["share_mean"]) == pytest.approx(np.mean([np.mean(each) for each in shares.values()]))


def test_the_default_report_runs_no_network_on_images(models, tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed")
    assert report(tmp_path, models) == 0
    assert not (tmp_path / "focus.csv").exists()
    assert not PICTURES & {each.name for each in tmp_path.iterdir()}


def test_overlays_show_image_truth_and_segmentation_on_the_same_grid(models, nnunet):
    teacher, student = (read_model(folder) for folder in models[:2])
    case = sorted(teacher.cases["case"])[0]
    arms = group_models([teacher, student])
    overlay = read_overlay(case, arms, choose_target(teacher, "tumor"), open_cases(teacher.folder))

    def array(file):
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))

    truth = array(nnunet / "raw" / LABELS / "labelsTr" / f"{case}.nii.gz") == 2
    index = truth.sum(axis=(1, 2)).argmax()
    raw = array(nnunet / "raw" / LABELS / "imagesTr" / f"{case}_0000.nii.gz")[index]
    assert np.array_equal(overlay.truth, truth[index])
    window = teacher.folder.plans.plans["foreground_intensity_properties_per_channel"]["0"]
    clipped = np.clip(raw, window["percentile_00_5"], window["percentile_99_5"])  # as nnU-Net normalizes CT
    assert np.corrcoef(overlay.image.ravel(), clipped.ravel())[0, 1] > 0.999
    for model, (_, mask, dice) in zip((teacher, student), overlay.predictions, strict=True):
        segmentation = array(model.folder.path / "fold_0/validation" / f"{case}.nii.gz")
        assert np.array_equal(mask, segmentation[index] == 2)
        both = (segmentation == 2) & truth
        assert dice == pytest.approx(2 * both.sum() / ((segmentation == 2).sum() + truth.sum()))


def test_a_cropped_transposed_and_resampled_image_is_brought_back_to_its_label_maps_grid(nnunet):
    content = json.loads((nnunet / "preprocessed" / LABELS / "nnUNetPlans.json").read_text())
    content["transpose_forward"], content["transpose_backward"] = [1, 0, 2], [1, 0, 2]
    changed = {"spacing": [4.0, 3.0, 2.0], "normalization_schemes": ["ZScoreNormalization"]}
    content["configurations"]["3d_fullres"].update(changed)
    plans = PlansManager(content)
    rows, slices, columns = np.meshgrid(np.arange(30), np.arange(40), np.arange(50), indexing="ij")
    image = np.zeros((1, 40, 60, 70), dtype=np.float32)
    image[0, 4:34, 12:52, 7:57] = 100 + 5 * slices + 50 * np.sin(rows / 5) * np.cos(columns / 6)
    properties = {"spacing": [2.0, 2.5, 3.0]}
    data, _, properties = DefaultPreprocessor(verbose=False).run_case_npy(
        image,
        np.zeros((1, 40, 60, 70), dtype=np.int16),
        properties,
        plans,
        plans.get_configuration("3d_fullres"),
        {"labels": {"background": 0, "tumor": 1}, "channel_names": {"0": "MR"}},
    )
    assert data.shape != image.shape
    found = np.stack([original_slice(data, properties, index, (60, 40, 70)) for index in range(12, 52)])
    expected = image[0, :, 12:52].transpose(1, 0, 2)
    inside = expected > 0
    assert np.corrcoef(found[inside], expected[inside])[0, 1] > 0.995
    assert all(np.ptp(each[~where]) == 0 for each, where in zip(found, inside, strict=True))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("unset", "Set the environment variable nnUNet_preprocessed."),
        ("elsewhere", "expected "),
        ("identifier", "expected a folder's name as 'data_identifier', got '../"),
        ("case", "is not in "),
        ("segmentation", "--pictures needs the label map "),
        ("checkpoint", "--pictures needs a checkpoint in "),
    ],
)
def test_what_is_missing_is_named_before_any_network_runs(
    models, nnunet, tmp_path, monkeypatch, capsys, damage, message
):
    models = [shutil.copytree(each, tmp_path / each.name) for each in models]
    if damage == "unset":
        monkeypatch.delenv("nnUNet_preprocessed")
    elif damage == "elsewhere":
        monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    elif damage == "identifier":  # a stranger's plans must not lead to a pickle of theirs
        plans = json.loads((models[1] / "plans.json").read_text())
        plans["configurations"]["2d"]["data_identifier"] = "../../evil"
        (models[1] / "plans.json").write_text(json.dumps(plans))
    elif damage == "case":
        folder = shutil.copytree(nnunet / "preprocessed" / LABELS, tmp_path / "pre" / LABELS)
        case = sorted(read_model(models[0]).cases["case"])[0]
        for each in folder.glob(f"nnUNetPlans_2d/{case}*"):
            each.unlink()
        monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))
    else:
        pattern = {"segmentation": "fold_0/validation/*.nii.gz", "checkpoint": "fold_0/checkpoint_*.pth"}[damage]
        for each in models[3].glob(pattern):
            each.unlink()
    assert report(tmp_path / "out", models, "--pictures") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "pictures:   " not in error


@pytest.mark.slow
def test_shares_of_3d_region_models_are_those_of_hooks_on_nnunets_own_network(nnunet, train, variant, tmp_path):
    plans = variant("pictures", dataset=REGIONS, num_epochs=15, num_iterations_per_epoch=10)
    models = [
        train_once(nnunet, train, trainer, dataset=REGIONS, plans=plans, configuration="3d_fullres").parent
        for trainer in ("nnUNetTrainerTeacher", "nnUNetTrainerStudent", "nnUNetTrainerHLFD")
    ]
    assert report(tmp_path, models, "--pictures", "kidney") == 0
    check_shares(models, tmp_path, [1, 2], 0)
    assert {each.name for each in tmp_path.iterdir()} >= PICTURES
