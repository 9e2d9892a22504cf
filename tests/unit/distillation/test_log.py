"""The log of the loss terms: its rows, its table and its plot."""

import csv

import numpy as np
import pytest
import torch
from matplotlib import image

from nnunetv2_hlfd.distillation.log import BALANCE_FILE, CSV_FILE, PLOT_FILE, DistillationLog, mean_of_known
from nnunetv2_hlfd.training.balance import BalanceRecord

FACTORS = {"ufd": 0.9, "ipd": 0.0}
NAN = float("nan")


def filled(epochs):
    log = DistillationLog(FACTORS)
    for epoch in range(epochs):
        log.add(epoch, [1.0 / (epoch + 1), 0.5, 2.0], FACTORS)
    return log


def read(folder, name=CSV_FILE):
    with (folder / name).open(newline="") as file:
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


# Terms that are not there in every step


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1.0, NAN], [3.0, 5.0]], [2.0, 5.0]),
        ([[1.0, NAN], [3.0, NAN]], [2.0, NAN]),
        ([[1.0, 2.0]], [1.0, 2.0]),
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")  # NumPy's of a mean of nothing
def test_means_over_the_steps_that_the_teacher_taught(values, expected):
    assert mean_of_known(values).tolist() == pytest.approx(expected, nan_ok=True)


def test_an_epoch_without_the_teacher_leaves_gaps_in_table_and_plot(tmp_path):
    log = filled(2)
    log.add(2, [0.5, NAN, NAN], FACTORS)
    log.write(tmp_path)
    assert {name for name, text in read(tmp_path)[2].items() if text == "nan"} == {
        "ufd",
        "ufd_weighted",
        "ipd",
        "ipd_weighted",
    }
    assert (tmp_path / PLOT_FILE).stat().st_size > 0


# Balanced gradients


def record(share, ratio=1.0, cosine=0.5):
    """Two parts, the second of which `ufd` does not reach."""
    values = [torch.tensor([[value, value], [NAN, value]]) for value in (share, ratio, cosine)]
    return BalanceRecord(
        parts=("encoder.stem", "decoder"), terms=("ufd", "ipd"), share=values[0], ratio=values[1], cosine=values[2]
    )


def test_shares_of_an_epoch_are_means_over_steps_and_parts(tmp_path):
    log = filled(1)
    assert log.add_balance(0, [record(0.25), record(0.75, ratio=3.0)]) == {"ufd_share": 0.5, "ipd_share": 0.5}
    assert log.rows[0]["ufd_share"] == 0.5
    log.write(tmp_path)
    [row] = read(tmp_path)
    assert list(row)[-2:] == ["ufd_share", "ipd_share"]
    rows = read(tmp_path, BALANCE_FILE)
    assert [list(row.values()) for row in rows] == [
        ["0", "encoder.stem", "ufd", "0.5", "2.0", "0.5"],
        ["0", "encoder.stem", "ipd", "0.5", "2.0", "0.5"],
        ["0", "decoder", "ufd", "nan", "nan", "nan"],
        ["0", "decoder", "ipd", "0.5", "2.0", "0.5"],
    ]
    assert list(rows[0]) == ["epoch", "part", "term", "share", "ratio", "cosine"]
    assert all(type(value) is float for value in list(log.balance_rows[0].values())[3:]), "as those of the log"


@pytest.mark.parametrize("fault", [{"ratio": float("inf")}, {"cosine": NAN}, {"share": NAN}])
def test_a_step_that_grad_scaler_skips_is_left_out(fault):
    log = filled(1)
    assert log.add_balance(0, [record(0.25), record(**{"share": 0.0, **fault})])["ipd_share"] == 0.25
    assert {row["ratio"] for row in log.balance_rows if row["part"] == "encoder.stem"} == {1.0}


def test_an_epoch_without_the_teacher_has_no_shares_but_the_columns(tmp_path):
    log = filled(1)
    log.add_balance(0, [record(0.25)])
    log.add(1, [0.5, NAN, NAN], FACTORS)
    assert log.add_balance(1, []) == pytest.approx({"ufd_share": NAN, "ipd_share": NAN}, nan_ok=True)
    log.write(tmp_path)
    assert [row["ipd_share"] for row in read(tmp_path)] == ["0.25", "nan"]
    assert {row["epoch"] for row in read(tmp_path, BALANCE_FILE)} == {"0"}


def test_a_term_of_weight_0_has_no_share():
    log = filled(1)
    one = BalanceRecord(
        parts=("decoder",), terms=("ufd",), **dict.fromkeys(("share", "ratio", "cosine"), torch.ones(1, 1))
    )
    shares = log.add_balance(0, [one])
    assert shares == pytest.approx({"ufd_share": 1.0, "ipd_share": NAN}, nan_ok=True)


def test_an_epoch_trained_again_after_a_resume_replaces_its_balance_and_all_later_ones():
    log = filled(1)
    for epoch, share in [(0, 0.1), (1, 0.2), (2, 0.3), (1, 0.4)]:
        log.add(epoch, [1.0, 1.0, 1.0], FACTORS)
        log.add_balance(epoch, [record(share)])
    assert [row["epoch"] for row in log.balance_rows] == [0] * 4 + [1] * 4
    assert log.balance_rows[-1]["share"] == pytest.approx(0.4)
