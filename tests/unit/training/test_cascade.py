"""The previous stage's predictions, on small data sets in nnU-Net's two file formats."""

from pathlib import Path

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy

from nnunetv2_hlfd.training.cascade import check_predictions

SHAPE, CASES = (3, 4, 5), [f"case_{index}" for index in range(5)]
MODEL = "nnUNetTrainerX__nnUNetPlans_y__3d_lowres"


@pytest.fixture(params=[nnUNetDatasetBlosc2, nnUNetDatasetNumpy])
def dataset(request, tmp_path):
    """Five preprocessed cases with their predictions of the previous stage."""
    data, predictions = tmp_path / "data", tmp_path / MODEL / "predicted_next_stage" / "3d_cascade_fullres"
    for folder in (data, predictions):
        folder.mkdir(parents=True)
    for case in CASES:
        image, segmentation = np.zeros((1, *SHAPE), np.float32), np.zeros((1, *SHAPE), np.int8)
        request.param.save_case(image, segmentation, {}, str(data / case))
        request.param.save_seg(np.zeros(SHAPE, np.uint8), str(predictions / case))
    return request.param(str(data), list(CASES), str(predictions))


def refusal(dataset):
    with pytest.raises(ValueError, match="previous stage") as caught:
        check_predictions(dataset, "Dataset001_X")
    return str(caught.value)


def predictions(dataset):
    return Path(dataset.folder_with_segs_from_previous_stage)


def test_predictions_of_all_cases_on_their_grids_are_accepted(dataset):
    check_predictions(dataset, "Dataset001_X")


@pytest.mark.parametrize(
    ("missing", "named"), [(1, "case_0"), (3, "case_0, case_1, case_2"), (5, "case_0, case_1, case_2 and 2 more")]
)
def test_missing_predictions_are_named_with_the_command_that_writes_them(dataset, missing, named):
    for case in CASES[:missing]:
        [file] = predictions(dataset).glob(f"{case}.*")
        file.unlink()
    assert refusal(dataset) == (
        f"Expected predictions of the previous stage in {predictions(dataset)}, found none for {named}. Each fold of "
        f"that model writes those of its validation cases. Train all its folds F: nnUNetv2_train Dataset001_X "
        f"3d_lowres F -tr nnUNetTrainerX -p nnUNetPlans_y (a trained one: the same with --val). Or name another "
        f"trained model by the setting previous_stage: nnUNetv2_hlfd plan -previous_stage "
        f"TRAINER__PLANS__3d_lowres ..."
    )


def test_a_model_that_has_predicted_nothing_is_refused(dataset):
    for file in predictions(dataset).glob("*"):
        file.unlink()
    predictions(dataset).rmdir()
    assert "found none for case_0, case_1, case_2 and 2 more" in refusal(dataset)


def test_only_the_cases_that_are_needed_are_looked_at(dataset):
    for file in predictions(dataset).glob("case_4.*"):
        file.unlink()
    dataset.identifiers.remove("case_4")
    check_predictions(dataset, "Dataset001_X")


def test_a_prediction_on_another_grid_is_refused(dataset):
    """nnU-Net would crop both at the same voxels and train on a segmentation that lies elsewhere."""
    for file in predictions(dataset).glob("case_3.*"):
        file.unlink()
    dataset.save_seg(np.zeros((3, 4, 6), np.uint8), str(predictions(dataset) / "case_3"))
    message = refusal(dataset)
    assert message.startswith(
        f"The previous stage's prediction for case_3 in {predictions(dataset)} has the shape (3, 4, 6), the "
        f"preprocessed image (3, 4, 5): the data have been preprocessed anew since."
    )
    assert "nnUNetv2_train Dataset001_X 3d_lowres F" in message


@pytest.mark.faults("truncated and damaged files")
def test_a_damaged_prediction_is_named(dataset):
    [file] = predictions(dataset).glob("case_2.*")
    file.write_bytes(b"no prediction")
    message = refusal(dataset)
    assert message.startswith(
        f"The previous stage's prediction for case_2 in {predictions(dataset)}, or the preprocessed case, is damaged ("
    )
    assert "nnUNetv2_train Dataset001_X 3d_lowres F" in message
