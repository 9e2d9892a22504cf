"""The log of the loss terms: its rows, its table and its plot."""

import csv

import numpy as np
import pytest
from matplotlib import image

from nnunetv2_hlfd.distillation.log import CSV_FILE, PLOT_FILE, DistillationLog

FACTORS = {"ufd": 0.9, "ipd": 0.0}


def filled(epochs):
    log = DistillationLog(FACTORS)
    for epoch in range(epochs):
        log.add(epoch, [1.0 / (epoch + 1), 0.5, 2.0], FACTORS)
    return log


def read(folder):
    with (folder / CSV_FILE).open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_holds_the_segmentation_loss_and_every_term_raw_and_weighted():
    log = DistillationLog(FACTORS)
    values = log.add(0, np.array([0.25, 0.5, 2.0], dtype=np.float32), FACTORS)
    assert values == {"segmentation": 0.25, "ufd": 0.5, "ufd_weighted": 0.45, "ipd": 2.0, "ipd_weighted": 0.0}
    assert log.rows == [{"epoch": 0, **values}]
    assert all(type(value) is float for value in values.values()), "the rows travel in checkpoints: no NumPy scalars"


@pytest.mark.parametrize("means", [[0.25, 0.5], [0.25, 0.5, 2.0, 1.0]])
def test_a_wrong_number_of_terms_is_an_error(means):
    with pytest.raises(ValueError, match=r"zip\(\)"):
        DistillationLog(FACTORS).add(0, means, FACTORS)


def test_an_epoch_trained_again_after_a_resume_replaces_its_row_and_all_later_ones():
    log = filled(5)
    log.add(2, [9.0, 9.0, 9.0], FACTORS)
    assert [row["epoch"] for row in log.rows] == [0, 1, 2]
    assert log.rows[2]["segmentation"] == 9.0


def test_the_table_holds_all_rows(tmp_path):
    log = filled(3)
    log.write(tmp_path)
    rows = read(tmp_path)
    assert list(rows[0]) == ["epoch", "segmentation", "ufd", "ufd_weighted", "ipd", "ipd_weighted"]
    assert [{name: float(text) for name, text in row.items()} for row in rows] == log.rows


def test_a_resumed_log_continues_the_files_of_the_first_run(tmp_path):
    first = filled(2)
    first.write(tmp_path)
    resumed = DistillationLog(FACTORS)
    resumed.rows = list(first.rows)
    resumed.add(2, [0.1, 0.2, 0.3], FACTORS)
    resumed.write(tmp_path)
    assert [row["epoch"] for row in read(tmp_path)] == ["0", "1", "2"]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([CSV_FILE, PLOT_FILE])


@pytest.mark.parametrize("epochs", [1, 2, 3, 20])
def test_both_panels_of_the_plot_show_the_curves(tmp_path, epochs):
    filled(epochs).write(tmp_path)
    pixels = image.imread(tmp_path / PLOT_FILE)[..., :3]
    assert pixels.shape[:2] == (450, 1200)
    colored = pixels.max(axis=-1) - pixels.min(axis=-1) > 0.2  # the terms' curves are the only color besides the legend
    raw, weighted = colored[:, :600], colored[:, 600:]
    assert weighted.any(), "nothing is drawn in the panel of the weighted terms"
    assert raw.any()


def test_values_that_a_logarithm_cannot_show_do_not_break_the_plot(tmp_path):
    log = DistillationLog(FACTORS)
    for epoch in range(3):
        log.add(epoch, [-0.5, 0.0, 1.0], FACTORS)
    log.write(tmp_path)
    assert (tmp_path / PLOT_FILE).stat().st_size > 0
