"""The folder of a fold: what is read of it, and which folds a model has."""

import json

import pytest
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_hlfd.models.fold import BEST, FINAL, LATEST, SUMMARY, FoldFolder, folds_with
from nnunetv2_hlfd.models.record import source_networks


def make(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return FoldFolder(folder)


@pytest.mark.parametrize(
    ("files", "flags"),
    [
        ((), []),
        (("training_log_1.txt",), []),
        ((BEST,), ["--c"]),
        ((LATEST,), ["--c"]),
        ((LATEST, BEST, FINAL), ["--val"]),
    ],
)
def test_a_training_goes_on_from_what_is_there(tmp_path, files, flags):
    assert make(tmp_path / "fold_0", *files).continuation() == flags


def test_the_first_of_several_files_is_found(tmp_path):
    fold = make(tmp_path / "fold_0", BEST, LATEST)
    assert fold.first_file(FINAL, BEST, LATEST) == tmp_path / "fold_0" / BEST
    assert fold.first_file(FINAL) is None


def test_only_numbered_folds_count_and_all_where_there_is_no_other(tmp_path):
    for fold in ("fold_10", "fold_2", "fold_all", "fold_x"):
        make(tmp_path / fold, FINAL)
    make(tmp_path / "fold_all", SUMMARY)
    make(tmp_path / "fold_0", BEST)
    make(tmp_path / "other_1", FINAL)
    assert folds_with(tmp_path, FINAL) == ["2", "10"]
    (tmp_path / "fold_x" / FINAL).unlink()  # stock nnU-Net fails on it
    stock = nnUNetPredictor.auto_detect_available_folds(str(tmp_path), FINAL)
    assert sorted(map(str, stock), key=int) == folds_with(tmp_path, FINAL)
    assert folds_with(tmp_path, SUMMARY) == ["all"]
    assert folds_with(tmp_path, BEST) == ["0"]
    assert folds_with(tmp_path, LATEST) == []
    assert folds_with(tmp_path / "nowhere", FINAL) == []


def test_a_fold_without_a_record_has_an_empty_one(tmp_path):
    fold = make(tmp_path / "fold_0")
    assert fold.record() == {}
    tmp_path.joinpath("fold_0").mkdir()
    (fold.path / "distillation.json").write_text('{"trainer": "nnUNetTrainerHLFD"}')
    assert fold.record() == {"trainer": "nnUNetTrainerHLFD"}
    (fold.path / "distillation.json").write_text("[")
    with pytest.raises(ValueError, match=r"distillation\.json is damaged"):
        fold.record()


def test_the_networks_that_a_record_names_are_teachers_and_whose_weights_it_started_with():
    assert source_networks({}) == []
    record = {"teacher": {"networks": [{"sha256": "a"}]}, "initial_weights": {"sha256": "b"}}
    assert source_networks(record) == [{"sha256": "a"}, {"sha256": "b"}]


def test_results_are_named_by_the_files_of_their_predictions(tmp_path):
    fold = make(tmp_path / "fold_0")
    assert not fold.is_validated
    with pytest.raises(ValueError, match=r"Run nnUNetv2_train again with --val"):
        fold.results()
    fold = make(tmp_path / "fold_0", SUMMARY)
    assert fold.is_validated
    cases = [{"prediction_file": f"/elsewhere/{name}.nii.gz", "metrics": {}} for name in ("b.1", "a")]
    fold.file(SUMMARY).write_text(json.dumps({"metric_per_case": cases}))
    assert fold.results() == {"b.1.nii.gz": cases[0], "a.nii.gz": cases[1]}
