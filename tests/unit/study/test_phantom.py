"""A study on the built-in phantom: its data set, and its runs before there is any data."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults import held_by_another_process, is_alive

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.study.phantom import Phantom, make_phantom, read_phantom
from nnunetv2_hlfd.utilities.errors import UserError

STUDY = Path(__file__).parents[3] / "studies/phantom.yaml"
DATASET = "Dataset905_PaperPhantom"
TINY = Phantom(cases=2, size=(8, 32, 32), spacing=(10.0, 10.0, 10.0))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """nnU-Net's three folders, empty."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path


def files(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_the_papers_grid_is_listed_before_there_is_a_data_set(folders, capsys):
    before = files(folders)
    assert main(["study", str(STUDY), "-device", "cpu", "--dry_run"]) == 0
    output = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines() if " x " in line]
    arms = ["UNetPlusPlus", "alone", "SKD", "IMF", "EMKD", "DSKD", "HLFD", "HLFD.beta1.8", "HLFD.lambda0.2"]
    assert [row[0] for row in rows] == arms
    assert [row[4] for row in rows] == ["-", "-", *["UNetPlusPlus"] * 7]
    assert "9 runs. The data set does not exist yet" in output
    assert "It is simulated, planned and preprocessed when the study starts." in output
    assert files(folders) == before


def test_a_study_of_missing_data_says_what_is_missing_and_refuses_a_misspelt_trainer(folders, tmp_path, capsys):
    file = tmp_path / "study.yaml"
    content = {"study": "s", "dataset": "Dataset019_KiTS19", "configuration": "2d"}
    file.write_text(json.dumps({**content, "arms": {"a": {"trainer": "nnUNetTrainerKD"}}}))
    assert main(["study", str(file), "--dry_run"]) == 0
    assert "nnUNetv2_plan_and_preprocess -d 019" in capsys.readouterr().out
    file.write_text(json.dumps({**content, "arms": {"a": {"trainer": "nnUNetTrainerKDD"}}}))
    assert main(["study", str(file), "--dry_run"]) == 2
    assert "Did you mean 'nnUNetTrainerKD'?" in capsys.readouterr().err


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize(
    ("value", "dataset", "message"),
    [
        ({"case": 3}, DATASET, "phantom: unknown key 'case'. Did you mean 'cases'?"),
        ({}, "905", "phantom: expected the full name of the data set"),
        ({}, "Dataset905_../x", "phantom: expected the full name of the data set"),
        ({"size": [100_000] * 3}, DATASET, "phantom: expected a size of at most 16777216 voxels, got (100000, "),
        ({"size": "x"}, DATASET, "phantom: expected a size of at most 16777216 voxels, got 'x'"),
        ({"cases": 10**9}, DATASET, "phantom: expected cases of at most 1000, got 1000000000"),
        ({"seed": 10**30}, DATASET, "phantom: expected a seed of at most 4294967295, got 1000"),
    ],
)
def test_a_wrong_entry_is_refused(value, dataset, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}"):
        read_phantom(value, dataset)


def preprocess(folders, *cases):
    """The last files that nnU-Net's preprocessing writes of cases."""
    folder = folders / "preprocessed" / DATASET / "nnUNetPlans_2d"
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        (folder / f"{case}.pkl").touch()


NNUNET = """#!/bin/sh
echo $$ > {folder}/started
sleep {seconds} &
wait
"""


@pytest.fixture
def preprocessing(folders, monkeypatch):
    """A command in the place of nnU-Net's, which notes its process and takes as long as it is told."""

    def write(seconds):
        script = folders / "preprocess.sh"
        script.write_text(NNUNET.format(folder=folders, seconds=seconds))
        script.chmod(0o755)
        monkeypatch.setattr("nnunetv2_hlfd.study.phantom.executable", lambda _: str(script))
        return folders / "started"

    return write


@pytest.mark.faults("killed processes")
def test_a_killed_preprocessing_is_done_again(folders, preprocessing):
    started = preprocessing(0)
    preprocess(folders, "case_000")
    make_phantom(TINY, DATASET, "2d")
    assert started.is_file()


@pytest.mark.faults("two processes on one target")
def test_a_study_that_makes_a_phantom_keeps_others_out(folders, preprocessing):
    started = preprocessing(0)
    with (
        held_by_another_process(folders / "raw", f".{DATASET}.lock"),
        pytest.raises(UserError, match=f"^{folders / 'raw'} is in use by the other work"),
    ):
        make_phantom(TINY, DATASET, "2d")
    assert files(folders / "raw") == []
    assert not started.exists()


MAKE = """
import sys
from nnunetv2_hlfd.study import phantom
phantom.executable = lambda _: sys.argv[1]
phantom.make_phantom(phantom.Phantom(cases=2, size=(8, 32, 32), spacing=(10.0, 10.0, 10.0)), sys.argv[2], "2d")
"""


@pytest.mark.faults("killed processes")
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_study_leaves_no_preprocessing_behind(folders, preprocessing):
    started = preprocessing(60)
    command = [sys.executable, "-c", MAKE, folders / "preprocess.sh", DATASET]
    with subprocess.Popen(command) as process:
        while not started.exists() or not started.read_text():
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
    end = time.monotonic() + 10
    while is_alive(int(started.read_text())):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_numbers_that_make_no_phantom_leave_nothing_behind(folders):
    with pytest.raises(UserError, match="phantom: size must be three integers"):
        make_phantom(Phantom(size=(4, 4, 4)), DATASET, "2d")
    assert files(folders / "raw") == []


def test_an_id_that_another_data_set_has_is_refused(folders):
    (folders / "preprocessed" / "Dataset905_Other").mkdir()
    with pytest.raises(UserError, match="Dataset905_Other has the ID 905 of the phantom"):
        make_phantom(TINY, DATASET, "2d")


def test_cases_that_are_there_are_kept_and_those_of_other_numbers_refused(folders):
    preprocess(folders, "case_000", "case_001")
    make_phantom(TINY, DATASET, "2d")
    before = {path: path.stat().st_mtime_ns for path in (folders / "raw").rglob("*.nii.gz")}
    assert len(before) == 4
    make_phantom(TINY, DATASET, "2d")
    assert {path: path.stat().st_mtime_ns for path in (folders / "raw").rglob("*.nii.gz")} == before
    with pytest.raises(UserError, match="was made with other numbers than this study's phantom"):
        make_phantom(Phantom(cases=3), DATASET, "2d")
