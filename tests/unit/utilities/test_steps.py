"""Steps that go on where they were ended: what is remembered, what is refused, and children that do not stay behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunetv2_hlfd.utilities import process_groups, steps
from nnunetv2_hlfd.utilities.steps import Step, StepFailedError, Workspace, nnunet_environment, run_steps

MADE_WITH = {"settings": {"seed": "1"}, "size": (1, 2, 3)}


def workspace_of(folder, **changes):
    return Workspace(folder, "demo", {**MADE_WITH, **changes}, folders=["raw"])


def make_step(folder, code, **more):
    command = ("python", "-c", code)
    return Step(name="first", title="A step", product=folder / "logs", command=lambda: command, **more)


def test_finished_steps_are_skipped(tmp_path, capsys):
    code = "print('Epoch 0'); print('Pseudo dice [np.float32(0.5), np.float32(nan)]')"
    run_steps(workspace_of(tmp_path), [make_step(tmp_path, code, total=1, labels=["kidney", "tumor"])])
    assert "Pseudo dice" in (tmp_path / "logs" / "first.log").read_text()
    assert "kidney 0.50, tumor nan" in capsys.readouterr().out
    again = workspace_of(tmp_path)
    assert set(again.seconds) == {"first"}
    run_steps(again, [make_step(tmp_path, "raise SystemExit(3)")])
    assert "done before" in capsys.readouterr().out


def test_a_step_whose_product_is_gone_runs_again(tmp_path):
    step = Step(name="first", title="A step", product=tmp_path / "product", command=(tmp_path / "product").touch)
    run_steps(workspace_of(tmp_path), [step])
    step.product.unlink()
    run_steps(workspace_of(tmp_path), [step])
    assert step.product.is_file()


def test_failed_step_names_its_log_and_is_not_finished(tmp_path):
    workspace = workspace_of(tmp_path)
    with pytest.raises(StepFailedError, match=r"exit code 3") as error:
        run_steps(workspace, [make_step(tmp_path, "print('out of memory'); raise SystemExit(3)")])
    assert "out of memory" in str(error.value)
    assert str(tmp_path / "logs" / "first.log") in str(error.value)
    assert workspace_of(tmp_path).seconds == {}


def test_missing_command_says_what_to_do(tmp_path):
    step = Step(name="x", title="x", product=tmp_path, command=lambda: ("nnUNetv2_nothing",))
    with pytest.raises(ValueError, match="Install nnunetv2_hlfd again"):
        run_steps(workspace_of(tmp_path), [step])


def test_a_step_has_variables_of_its_own_beside_those_of_all(tmp_path):
    code = "import os; raise SystemExit(os.environ['A'] + os.environ['B'] != '12')"
    workspace = Workspace(tmp_path, "demo", MADE_WITH, environment={**os.environ, "A": "1", "B": "1"})
    run_steps(workspace, [make_step(tmp_path, code, environment={"B": "2"})])


def test_nnunets_folders_are_those_of_the_work_whatever_is_set(tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_extTrainer", "nnUNet_hlfd_teacher"):
        monkeypatch.setenv(name, f"/somewhere/else/{name}")
    environment = nnunet_environment(tmp_path, kept=["nnUNet_extTrainer", "nnUNet_raw"])
    assert environment["nnUNet_raw"] == str(tmp_path / "raw")
    assert environment["nnUNet_extTrainer"] == "/somewhere/else/nnUNet_extTrainer"
    assert "nnUNet_hlfd_teacher" not in environment
    assert environment["PATH"] == os.environ["PATH"]


def test_folder_with_other_contents_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ValueError, match="holds something else than this demo"):
        workspace_of(tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        workspace_of(tmp_path / "thesis.txt")


@pytest.mark.faults("killed processes")
def test_a_start_that_was_killed_at_once_leaves_nothing_else(tmp_path, monkeypatch):
    folder = tmp_path / "work"

    def die(_file, _content):
        (folder / ".partial-1234abcd-77-0123").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "write_json", die)
        with pytest.raises(KeyboardInterrupt):
            workspace_of(folder)
    workspace_of(folder)
    assert (folder / "raw").is_dir()


def test_a_folder_that_was_made_otherwise_is_refused_by_what_differs(tmp_path):
    workspace_of(tmp_path)
    with pytest.raises(ValueError, match=r"\{'size': \[1, 2, 3\]\} there, \{'size': \[4, 5, 6\]\} here"):
        workspace_of(tmp_path, size=(4, 5, 6))


@pytest.mark.faults("damaged JSON files")
def test_a_damaged_record_is_named(tmp_path):
    workspace_of(tmp_path)
    (tmp_path / "demo.json").write_text('{"made_with"')
    with pytest.raises(ValueError, match=r"demo\.json is damaged"):
        workspace_of(tmp_path)


WORK = """
import sys
from pathlib import Path
from nnunetv2_hlfd.utilities.steps import Step, Workspace, run_steps

folder = Path(sys.argv[1])
code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
step = Step(name="first", title="A step", product=folder / "logs", command=lambda: ("python", "-c", code))
run_steps(Workspace(folder, "demo", {}), [step])
"""


@pytest.mark.faults("killed processes")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc")
@pytest.mark.parametrize("kill", [True, False])
def test_the_command_of_a_step_ends_with_its_parent(tmp_path, kill):
    parent = subprocess.Popen([sys.executable, "-c", WORK, str(tmp_path)], stdout=subprocess.DEVNULL)
    log = tmp_path / "logs" / "first.log"
    wait_until(lambda: log.is_file() and log.read_text().strip())
    child = Path("/proc") / log.read_text().strip()
    assert child.is_dir()
    (parent.kill if kill else parent.terminate)()
    parent.wait()
    wait_until(lambda: not child.is_dir())


@pytest.mark.faults("two processes on one target")
def test_a_second_start_waits_for_no_one(tmp_path, monkeypatch):
    monkeypatch.setattr(process_groups, "END_SECONDS", 0.1)
    workspace = workspace_of(tmp_path)
    step = make_step(tmp_path, "")
    with workspace.log(step).open("ab") as held:
        assert process_groups.lock_log(held)
        with pytest.raises(ValueError, match="still runs"):
            run_steps(workspace, [step])
    run_steps(workspace, [step])


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
