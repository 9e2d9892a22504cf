"""Studies as jobs: submitit's own executors, on a Slurm of this machine that starts real processes."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import submitit
from fake_slurm import FakeSlurm
from quick_runs import quick
from submitit.slurm.slurm import SlurmInfoWatcher

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.study.cluster import ClusterLauncher
from nnunetv2_hlfd.study.local import LocalLauncher
from nnunetv2_hlfd.study.plan import plan_runs, study_folder, write_plans
from nnunetv2_hlfd.study.runner import Runner
from nnunetv2_hlfd.study.slurm import slurm_parameters
from nnunetv2_hlfd.study.spec import read_study
from nnunetv2_hlfd.utilities.errors import UserError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Slurm")

DATASET = "Dataset901_Phantom"
COMMAND = str(Path(sys.executable).parent / "nnUNetv2_hlfd")
SLURM = {"partition": "gpu", "time": 5, "gres": "gpu:1", "cpus_per_task": 3}
ARMS = {"alone": {"trainer": "nnUNetTrainerStudent"}, "HLFD": {"trainer": "nnUNetTrainerHLFD"}}
SETTINGS = {
    "student": "resnet18_w8",
    "num_epochs": 2,
    "num_iterations_per_epoch": 2,
    "num_val_iterations_per_epoch": 1,
    "save_every": 1,
}
DEADLINE = 60  # seconds


def wait_until(happens):
    end = time.monotonic() + DEADLINE
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_for_ended(launcher):
    ended = []
    wait_until(lambda: ended.extend(launcher.take_ended()) or ended)
    return ended


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """The commands on the PATH; submitit knows no jobs of other tests, whose numbers are the same."""
    cluster = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{cluster.folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(submitit.SlurmJob, "watcher", SlurmInfoWatcher(delay_s=600))
    yield cluster
    cluster.close()


@pytest.fixture
def study(nnunet, tmp_path, monkeypatch):
    """Write a study in folders of nnU-Net of the test's own, with splits as the first training would write them."""
    source, target = nnunet / "preprocessed" / DATASET, tmp_path / "preprocessed" / DATASET
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_dir() or path.name in ("nnUNetPlans.json", "dataset.json", "dataset_fingerprint.json"):
            (target / path.name).symlink_to(path)
    cases = [path.name.removesuffix(".nii.gz") for path in (source / "gt_segmentations").iterdir()]
    (target / "splits_final.json").write_text(json.dumps([{"train": cases[1:], "val": cases[:1]}]))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))

    def write(**more):
        content = {
            "study": "jobs",
            "dataset": 901,
            "configuration": "2d",
            "settings": SETTINGS,
            "arms": ARMS,
            "slurm": SLURM,
            **more,
        }
        file = tmp_path / "study.yaml"
        file.write_text(json.dumps(content))
        return file

    return write


@pytest.fixture
def cluster(study, slurm, tmp_path, monkeypatch):
    """What a test needs of a study on the cluster whose trainings take a moment."""
    monkeypatch.setattr(ClusterLauncher, "poll_seconds", 0.05)
    return Scene(study(), slurm, tmp_path / "control")


class Scene:
    def __init__(self, file, slurm, control):
        spec = read_study(file)
        runs = plan_runs(spec)
        self.folder, self.control, self.slurm = study_folder(spec, runs), control, slurm
        self.runs = quick(runs, control)
        self.teacher, self.alone, self.hlfd = self.runs
        self.parameters = slurm_parameters(spec.slurm)

    def launcher(self, parallel=None):
        return ClusterLauncher(self.folder, "cpu", parallel, self.parameters)

    def run(self, parallel=None):
        return Runner(self.runs, self.folder, self.launcher(parallel))()

    def rows(self):
        with (self.folder / "runs.csv").open() as opened:
            return [(row["arm"], row["result"]) for row in csv.DictReader(opened)]

    def let(self, arm, does):
        (self.control / arm / does).touch()

    def wait_for(self, arm):
        wait_until((self.control / arm / "begun").exists)

    def start_and_leave(self, *runs):
        """As Ctrl-C leaves them, once they have begun."""
        with suppress(KeyboardInterrupt), self.launcher() as launcher:
            for run in runs:
                launcher.start(run)
                self.wait_for(run.arm)
            raise KeyboardInterrupt

    def log(self, run, number):
        return (self.folder / "slurm" / run.name / f"{number}_0_log.out").read_text()


def test_teachers_come_first_and_every_job_has_the_entry_slurm(cluster, capsys):
    cluster.let("teacher", "waiting")
    cluster.start_and_leave(cluster.teacher)
    (cluster.control / "teacher" / "waiting").unlink()
    assert cluster.run() == {}
    assert all(run.is_finished for run in cluster.runs)
    assert sorted(cluster.rows()) == [("HLFD", "finished"), ("alone", "finished"), ("teacher", "finished")]
    assert cluster.slurm.names() == [run.name for run in cluster.runs]
    script = (cluster.slurm.folder / "jobs/1/script").read_text()
    for line in ("partition=gpu", "time=5", "gres=gpu:1", "cpus-per-task=3"):
        assert f"#SBATCH --{line}\n" in script
    assert "--cpus-per-task=3" in (cluster.slurm.folder / "jobs/1/srun").read_text()
    output = capsys.readouterr().out
    assert f"finished {cluster.hlfd.name} in 0.0 min" in output
    started = cluster.folder / "slurm" / cluster.alone.name / "2_0_log.out"
    assert f"started {cluster.alone.name}, log {started}" in output
    assert "OMP_NUM_THREADS" not in script
    assert not list(cluster.folder.glob("slurm/*/*.pkl"))


def test_ctrl_c_leaves_jobs_alone_and_the_same_command_takes_them_over(cluster, capsys):
    for arm in ("teacher", "alone"):
        cluster.let(arm, "waiting")
    cluster.start_and_leave(cluster.teacher, cluster.alone)
    assert "2 jobs stay queued or running" in (output := capsys.readouterr().out)
    assert "To end them: scancel 1 2\n" in output
    assert cluster.slurm.jobs() == {"1": "RUNNING", "2": "RUNNING"}
    (cluster.control / "teacher" / "waiting").unlink()
    wait_until(lambda: cluster.slurm.jobs()["1"] == "COMPLETED")  # while nobody watches
    (cluster.control / "alone" / "waiting").unlink()
    assert cluster.run() == {}
    assert len(cluster.slurm.jobs()) == 3
    assert len(cluster.rows()) == 3
    assert cluster.run() == {}
    assert len(cluster.slurm.jobs()) == 3


def test_a_failure_shows_the_log_of_its_job_and_keeps_back_whom_it_teaches(cluster, capsys):
    cluster.let("teacher", "failing")
    failed = cluster.run()
    log = cluster.folder / "slurm" / cluster.teacher.name / "1_0_log.out"
    assert failed == {
        cluster.teacher.name: f"exit code 3, log {log}",
        cluster.hlfd.name: f"its teacher {cluster.teacher.name} failed",
    }
    output = capsys.readouterr().out
    assert f"FAILED {cluster.teacher.name}: exit code 3. The last lines of {log}:" in output
    assert "out of luck" in output
    (cluster.control / "teacher" / "failing").unlink()
    assert cluster.run() == {}


def test_a_job_at_its_time_limit_is_started_again_by_submitit_as_long_as_it_comes_further(cluster):
    cluster.let("alone", "waiting")
    cluster.start_and_leave(cluster.alone)
    (cluster.control / "alone" / "begun").unlink()
    subprocess.run(["scancel", "1", "--signal", "USR2"], check=True)
    cluster.wait_for("alone")
    assert (cluster.slurm.folder / "jobs/1/requeued").read_text() == "1"
    (cluster.control / "alone" / "waiting").unlink()
    cluster.runs = [cluster.alone]
    assert cluster.run() == {}
    assert len(cluster.slurm.jobs()) == 1
    assert "training with: \n" in cluster.log(cluster.alone, 1)
    assert "training with: --c\n" in cluster.log(cluster.alone, 1)


def test_a_job_that_comes_no_further_until_its_time_limit_has_failed(cluster):
    for does in ("stuck", "waiting"):
        cluster.let("alone", does)
    cluster.start_and_leave(cluster.alone)
    subprocess.run(["scancel", "1", "--signal", "USR2"], check=True)
    wait_until(lambda: cluster.slurm.jobs()["1"] != "RUNNING")
    launcher = cluster.launcher()
    launcher.adopt([cluster.alone])
    [ended] = launcher.take_ended()
    assert (ended.result, ended.goes_on) == ("time limit or preemption", False)


@pytest.mark.parametrize("state", ["TIMEOUT", "NODE_FAIL", "PREEMPTED"])
def test_a_job_that_slurm_has_killed_is_submitted_again_where_it_has_come_further(cluster, state):
    cluster.let("alone", "waiting")
    cluster.start_and_leave(cluster.alone)
    cluster.slurm.kill("1", state)
    (cluster.control / "alone" / "waiting").unlink()
    cluster.runs = [cluster.alone]
    assert cluster.run() == {}
    assert len(cluster.slurm.jobs()) == 2
    assert "training with: --c\n" in cluster.log(cluster.alone, 2)
    assert cluster.rows() == [("alone", f"Slurm says {state}"), ("alone", "finished")]


def test_a_job_that_is_interrupted_while_the_study_watches_goes_on(cluster):
    """And not where it is ended by its owner."""
    cluster.let("alone", "waiting")
    launcher = cluster.launcher()
    for number, (state, goes_on) in enumerate([("TIMEOUT", True), ("CANCELLED by 1000", False)], start=1):
        (cluster.control / "alone" / "begun").unlink(missing_ok=True)
        launcher.start(cluster.alone)
        cluster.wait_for("alone")
        cluster.slurm.kill(str(number), state)
        assert [ended.goes_on for ended in wait_for_ended(launcher)] == [goes_on]
        assert not launcher.running


def test_a_job_that_slurm_no_longer_knows_is_submitted_again(cluster):
    """Without accounting, or long after its end."""
    cluster.let("alone", "waiting")
    cluster.start_and_leave(cluster.alone)
    cluster.slurm.forget()
    launcher = cluster.launcher()
    launcher.adopt(cluster.runs)
    assert launcher.take_ended() == []  # the queue still has it
    cluster.slurm.kill("1", "CANCELLED")
    (cluster.control / "alone" / "waiting").unlink()
    cluster.runs = [cluster.alone]
    assert cluster.run() == {}
    assert len(cluster.slurm.jobs()) == 2


def test_a_refused_submission_keeps_the_jobs_that_are_there(cluster):
    cluster.let("alone", "waiting")
    cluster.start_and_leave(cluster.alone)
    (cluster.slurm.folder / "refusal").write_text("sbatch: error: QOSMaxSubmitJobPerUserLimit")
    with pytest.raises(UserError, match=r"refused the job of nnUNetTrainerTeacher__.*QOSMax.*-np N"):
        cluster.run()
    (cluster.slurm.folder / "refusal").unlink()
    (cluster.control / "alone" / "waiting").unlink()
    assert cluster.run() == {}
    assert len(cluster.slurm.jobs()) == 3


def test_no_more_jobs_than_asked_for_are_queued_at_a_time(cluster):
    (cluster.slurm.folder / "hold").touch()
    launcher = cluster.launcher(parallel=1)
    runner = Runner(cluster.runs, cluster.folder, launcher)
    launcher.start(cluster.alone)
    assert not runner._has_room()
    assert Runner(cluster.runs, cluster.folder, cluster.launcher())._has_room()


def test_a_study_with_jobs_is_not_run_on_this_machine(cluster):
    cluster.let("alone", "waiting")
    cluster.start_and_leave(cluster.alone)
    with pytest.raises(UserError, match=r"Go on with -launcher slurm. Or end them \(scancel 1\), remove .*slurm, and"):
        LocalLauncher(cluster.folder, "cpu", 1).adopt(cluster.runs)


def test_submitits_local_executor_runs_a_study(cluster):
    cluster.let("alone", "failing")
    launcher = ClusterLauncher(cluster.folder, "cpu", None, {"timeout_min": 1}, submitit.LocalExecutor)
    failed = Runner(cluster.runs, cluster.folder, launcher)()
    assert list(failed) == [cluster.alone.name]
    assert sorted(cluster.rows()) == [("HLFD", "finished"), ("alone", "exit code 3"), ("teacher", "finished")]
    assert cluster.slurm.jobs() == {}


# What is refused before anything is written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partion": "gpu"}, "Unavailable parameter(s): ['partion']"),
        ({"time": None}, "slurm: time: expected the minutes of a job, such as 1440 for a day, got None."),
        ({"time": "1-00:00:00"}, "slurm: time: expected the minutes"),
        ({"nodes": 2}, "slurm: nodes: expected 1, got 2"),
        ({"job_name": "mine"}, "slurm: job_name is set by the study itself"),
        ({"setup": "module load cuda"}, "slurm: can only concatenate list"),
    ],
)
@pytest.mark.usefixtures("slurm")
def test_an_entry_slurm_that_cannot_be_is_refused(study, tmp_path, change, message, capsys):
    file = study(slurm={**SLURM, **change})
    assert main(["study", str(file), "-launcher", "slurm"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "partion" not in error or "- partition (default: None)" in error
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("missing", ["sbatch", "submitit"])
def test_without_slurm_or_submitit_nothing_begins(study, slurm, tmp_path, missing, monkeypatch, capsys):
    if missing == "submitit":
        monkeypatch.setitem(sys.modules, "submitit", None)
    else:
        (slurm.folder / "sbatch").unlink()
    if shutil.which(missing):
        pytest.skip("a machine with Slurm")
    assert main(["study", str(study()), "-launcher", "slurm"]) == 2
    expected = {"sbatch": "found no sbatch. Start the study on a login node", "submitit": "'nnunetv2-hlfd[slurm]'"}
    assert expected[missing] in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


# Real trainings


@pytest.mark.slow
def test_a_study_of_real_trainings_survives_kills_and_reports(study, slurm, tmp_path):
    file = study()
    spec = read_study(file)
    runs = plan_runs(spec)
    write_plans(runs)
    folder = study_folder(spec, runs)
    command = [COMMAND, "study", str(file), "-device", "cpu", "-launcher", "slurm"]

    def start():
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    first = start()
    wait_until(lambda: len(slurm.jobs()) == 2)  # the teacher and the student alone
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=DEADLINE)
    assert "To end them: scancel 1 2\n" in output
    assert set(slurm.jobs().values()) <= {"RUNNING", "PENDING"}
    second = start()
    wait_until(lambda: any("Epoch 0" in log.read_text() for log in folder.glob("slurm/*/*.out")))
    second.kill()
    second.communicate(timeout=DEADLINE)
    slurm.kill("1", "NODE_FAIL")
    third = start()
    output, _ = third.communicate(timeout=10 * DEADLINE)
    assert third.returncode == 0, output[-3000:]
    assert f"Wrote {folder / 'report' / 'report.html'}" in output
    assert sorted(set(slurm.names())) == sorted(run.name for run in runs)
    with (folder / "runs.csv").open() as opened:
        rows = [row for row in csv.DictReader(opened) if row["result"] == "finished"]
    assert sorted(row["arm"] for row in rows) == ["HLFD", "alone", "teacher"]
    assert all(int(row["peak_memory_bytes"]) > 1e8 for row in rows)
    for log in folder.glob(f"slurm/{runs[1].name}/*.out"):
        assert log.read_text().count("Epoch 0\n") == 1
