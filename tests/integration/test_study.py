"""`nnUNetv2_hlfd study` on the tiny data set: what is planned, printed, run, continued, isolated and reported."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from nnunetv2_hlfd.cli.main import main
from nnunetv2_hlfd.models.checkpoints import sha256
from nnunetv2_hlfd.study import progress
from nnunetv2_hlfd.study.checks import check_teachers_were_blind
from nnunetv2_hlfd.study.command import complete_arms
from nnunetv2_hlfd.study.plan import plan_runs, study_folder
from nnunetv2_hlfd.study.spec import read_study
from nnunetv2_hlfd.utilities import process_groups

DATASET = "Dataset901_Phantom"
STUDIES = Path(__file__).parents[2] / "studies"
COMMAND = str(Path(sys.executable).parent / "nnUNetv2_hlfd")


@pytest.fixture
def study(tmp_path):
    """Write a study; its name keeps its folders apart from those of other tests."""

    def write(name, arms, **more):
        content = {
            "study": name,
            "dataset": 901,
            "configuration": "2d",
            "seeds": [1, 2],
            "settings": {
                "student": "resnet18_w8",
                "num_epochs": 2,
                "num_iterations_per_epoch": 2,
                "num_val_iterations_per_epoch": 1,
                "save_every": 1,
            },
            "arms": arms,
            **more,
        }
        file = tmp_path / "study.yaml"
        file.write_text(json.dumps(content))  # JSON is YAML
        return file

    return write


ARMS = {"alone": {"trainer": "nnUNetTrainerStudent"}, "HLFD": {"trainer": "nnUNetTrainerHLFD"}}


def tree(folder):
    return {str(each) for each in folder.rglob("*")}


# Planning


@pytest.mark.usefixtures("nnunet")
def test_runs_are_ordinary_trainings_fold_by_fold_and_seed_by_seed(study):
    runs = plan_runs(read_study(study("order", ARMS, folds=[0, 1])))
    assert [(run.plans_name, run.trainer.__name__, run.fold) for run in runs] == [
        (f"nnUNetPlans_order_{name}", f"nnUNetTrainer{trainer}", fold)
        for fold in (0, 1)
        for name, trainer in [
            ("teacher", "Teacher"),
            ("alone.s1", "Student"),
            ("HLFD.s1", "HLFD"),
            ("alone.s2", "Student"),
            ("HLFD.s2", "HLFD"),
        ]
    ]
    teacher, alone, hlfd = runs[:3]
    assert (teacher.teacher, alone.teacher, hlfd.teacher) == (None, None, teacher.model_folder)
    assert (teacher.settings.seed, runs[3].settings.seed, runs[3].settings.num_epochs) == (1, 2, 2)
    assert {run.state for run in runs} == {"new"}


def test_commands_are_printed_for_what_is_not_finished(study, nnunet, capsys):
    file = study("print", ARMS, seeds=[1])
    results = tree(nnunet / "results")
    assert main(["study", str(file), "-device", "cpu", "--commands"]) == 0
    lines = capsys.readouterr().out.splitlines()
    teacher = nnunet / "results" / DATASET / "nnUNetTrainerTeacher__nnUNetPlans_print_teacher__2d"
    assert lines == [
        f"nnUNetv2_hlfd train {DATASET} 2d 0 -tr nnUNetTrainerTeacher -p nnUNetPlans_print_teacher -device cpu",
        f"nnUNetv2_hlfd train {DATASET} 2d 0 -tr nnUNetTrainerStudent -p nnUNetPlans_print_alone.s1 -device cpu",
        f"nnUNet_hlfd_teacher={shlex.quote(str(teacher))} nnUNetv2_hlfd train {DATASET} 2d 0 -tr nnUNetTrainerHLFD "
        f"-p nnUNetPlans_print_HLFD.s1 -device cpu",
    ]
    assert tree(nnunet / "results") == results
    plans = json.loads((nnunet / "preprocessed" / DATASET / "nnUNetPlans_print_HLFD.s1.json").read_text())
    assert plans["hlfd"]["settings"]["seed"] == 1
    (teacher / "fold_0" / "validation").mkdir(parents=True)
    (teacher / "fold_0" / "validation" / "summary.json").write_text("{}")
    alone = nnunet / "results" / DATASET / "nnUNetTrainerStudent__nnUNetPlans_print_alone.s1__2d" / "fold_0"
    alone.mkdir(parents=True)
    (alone / "checkpoint_latest.pth").touch()
    assert main(["study", str(file), "-device", "cpu", "--commands"]) == 0
    again = capsys.readouterr().out.splitlines()
    assert again == [f"{lines[1]} --c", lines[2]]
    (alone / "checkpoint_final.pth").touch()
    assert main(["study", str(file), "-device", "cpu", "--commands"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{lines[1]} --val", lines[2]]


STORED = {
    "kd": {"trainer": "nnUNetTrainerKD", "settings": {"teacher_maps": "stored"}},
    "hlfd": {"trainer": "nnUNetTrainerHLFD", "settings": {"teacher_maps": "stored"}},
    "soft": {"trainer": "nnUNetTrainerSoftLabel", "settings": {"teacher_maps": "stored"}},
    "live": {"trainer": "nnUNetTrainerKD"},
}


def test_maps_are_stored_before_the_first_run_that_learns_from_them(study, nnunet, capsys):
    """Final maps once for all arms; for an arm that needs more, of its own."""
    file = study("maps", STORED)
    assert main(["study", str(file), "-device", "cpu", "--commands"]) == 0
    lines = [line.split("nnUNetv2_hlfd ")[1] for line in capsys.readouterr().out.splitlines()]
    taught = [(index, line) for index, line in enumerate(lines) if line.startswith("teach")]
    assert taught == [
        (1, f"teach {DATASET} 2d 0 -p nnUNetPlans_maps_kd.s1 -device cpu"),
        (3, f"teach {DATASET} 2d 0 -p nnUNetPlans_maps_hlfd.s1 -device cpu --needs_of nnUNetTrainerHLFD"),
    ]
    assert [line.split("-tr ")[1].split(" -device")[0] for line in lines[2:5:2]] == [
        "nnUNetTrainerKD -p nnUNetPlans_maps_kd.s1",
        "nnUNetTrainerHLFD -p nnUNetPlans_maps_hlfd.s1",
    ]


@pytest.mark.usefixtures("nnunet")
def test_a_student_alone_that_inherits_weights_has_a_teacher(study):
    arms = {"alone": {"trainer": "nnUNetTrainerStudent", "settings": {"student": "unet_w2"}}}
    arms["inherited"] = {
        "trainer": "nnUNetTrainerStudent",
        "settings": {"student": "unet_w2", "initial_weights": "teacher"},
    }
    teacher, alone, inherited = plan_runs(read_study(study("inherit", arms, seeds=[1])))
    assert (alone.teacher, inherited.teacher) == (None, teacher.model_folder)
    assert list(inherited.environment()) == ["nnUNet_hlfd_teacher"]


def test_a_dry_run_shows_every_run_and_an_estimate_and_writes_nothing(study, nnunet, capsys):
    arms = {**ARMS, "pp": {"trainer": "nnUNetTrainerKD", "teacher": "pp", "settings": {"batch_size": 3}}}
    file = study("dry", arms, teachers={"teacher": None, "pp": {"trainer": "nnUNetTrainerUNetPlusPlus"}})
    before = tree(nnunet)
    assert main(["study", str(file), "-device", "cpu", "-np", "2", "--dry_run"]) == 0
    assert tree(nnunet) == before
    output = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in output.splitlines() if "2 x 2" in line]
    assert [(row[0], row[1], row[6]) for row in rows] == [
        ("teacher", "1", "new"),
        ("pp", "1", "new"),
        *((arm, seed, "new") for seed in "12" for arm in ("alone", "HLFD", "pp")),
    ]
    assert "8 runs, 0 finished. About " in output
    assert " h with 2 at a time" in output
    assert re.search(r"Memory: about [\d.]+ GB for each training, .* Disk: about [\d.e-]+ GB of checkpoints.", output)


# What is refused before anything is written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": 899}, "899"),
        ({"plans": "nnUNetOtherPlans"}, "nnUNetOtherPlans.json, found none. Did you mean 'nnUNetPlans'?"),
        ({"arms": {"a": {"trainer": "nnUNetTrainerHLDF"}}}, "arms: a: No trainer is called 'nnUNetTrainerHLDF'."),
        (
            {"arms": {"a": {"trainer": "nnUNetTrainer"}}},
            "expected a trainer of this package that is a nnUNetTrainerStude",
        ),
        ({"teachers": {"t": {"trainer": "nnUNetTrainer"}}}, "teachers: t: expected a trainer of this package"),
        ({"teachers": {"t": {"folder": "/nowhere"}}}, "Expected the teacher's checkpoint /nowhere/fold_0/"),
    ],
)
def test_what_cannot_run_is_refused_at_once(study, change, message, nnunet, capsys):
    before = tree(nnunet)
    file = study("refused", **{"arms": ARMS, "seeds": [1], **change})
    assert main(["study", str(file), "-device", "cpu"]) == 2
    assert message in capsys.readouterr().err
    assert tree(nnunet) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"configuration": "4d_fullres"}, "has no configuration '4d_fullres'."),
        ({"report": {"pictures": "liver"}}, "report: pictures: expected one of the labels kidney, tumor, got 'liver'."),
        ({"folds": [5]}, "Expected folds 0-4, those of "),
        ({"arms": {"a": ARMS["HLFD"], "A": ARMS["HLFD"]}}, "Expected names that differ in more than their case"),
        ({"arms": {"t": ARMS["alone"]}, "teachers": {"t.s1": None}}, "nnUNetPlans_early_t.s1 is there twice."),
        (
            {"arms": {"a": {"trainer": "nnUNetTrainerTeacher"}}},
            "that is a nnUNetTrainerStudent, got nnUNetTrainerTeacher.",
        ),
        ({"arms": {"x": ARMS["HLFD"]}}, "nnUNetPlans_early_x.s1.json exists with other settings ("),
    ],
)
def test_what_would_fail_later_is_refused_at_once(study, change, message, nnunet, variant, capsys):
    variant("early_x.s1", beta=0.3)
    before = tree(nnunet)
    file = study("early", **{"arms": ARMS, "seeds": [1], **change})
    assert main(["study", str(file), "-device", "cpu", "--commands"]) == 2
    assert message in capsys.readouterr().err
    assert tree(nnunet) == before


def test_plans_that_are_a_variant_hand_their_settings_on(study, variant):
    base = variant("parent", num_epochs=7, late_max_stride=None)
    file = study("child", ARMS, seeds=[1], plans=base, settings={"beta": 0.5})
    for run in plan_runs(read_study(file)):
        assert (run.settings.num_epochs, run.settings.late_max_stride, run.settings.beta) == (7, None, 0.5)
        assert run.plans_name.startswith("nnUNetPlans_parent_child_")


def test_a_trained_run_that_learned_from_another_teacher_is_refused(study, teacher_2d, tmp_path, capsys):
    folder = tmp_path / "nnUNetTrainerTeacher__nnUNetPlans_moved__2d"
    folder.mkdir()
    (folder / "fold_0").symlink_to(teacher_2d)
    file = study("taught", ARMS, seeds=[1], teachers={"there": {"folder": str(folder)}})
    run = plan_runs(read_study(file))[1]
    run.fold_folder.path.mkdir(parents=True)
    (run.fold_folder.path / "checkpoint_final.pth").touch()
    network = {"sha256": sha256(teacher_2d / "checkpoint_final.pth"), "folder": "f", "checkpoint": "c"}
    record = run.fold_folder.path / "distillation.json"
    record.write_text(json.dumps({"teacher": {"networks": [network]}, "given": {}}))
    assert plan_runs(read_study(file))[1].is_trained
    record.write_text(json.dumps({"teacher": {"networks": [{**network, "sha256": "0"}]}, "given": {}}))
    assert main(["study", str(file), "-device", "cpu", "--dry_run"]) == 2
    assert "learned from another teacher (f, c)" in capsys.readouterr().err


def test_a_folder_with_other_settings_is_refused(study, nnunet, train, variant, capsys):
    plans = variant("other_alone.s1", num_epochs=1)
    train("nnUNetTrainerStudent", plans=plans)
    (nnunet / "preprocessed" / DATASET / f"{plans}.json").unlink()
    assert main(["study", str(study("other", ARMS)), "-device", "cpu"]) == 2
    assert "belongs to a run with other settings (num_epochs: 2 here, 1 there)" in capsys.readouterr().err


def test_an_existing_teacher_of_another_split_is_refused(study, teacher_2d, tmp_path, capsys):
    folder = tmp_path / "nnUNetTrainerTeacher__nnUNetPlans_moved__2d"
    folder.mkdir()
    (folder / "fold_0").symlink_to(teacher_2d)
    file = study("blind", ARMS, folds=[0], teachers={"there": {"folder": str(folder)}})
    assert plan_runs(read_study(file))[1].teacher == folder
    wanted = study("blind", ARMS, teachers={"there": {"folder": str(folder)}}, report={"paper_evaluation": True})
    assert main(["study", str(wanted), "--dry_run"]) == 2
    assert "The report's paper_evaluation or calibration needs the probabilities (.npz) in " in capsys.readouterr().err
    (folder / "fold_1").symlink_to(teacher_2d)
    assert main(["study", str(study("blind", ARMS, folds=[1], teachers={"there": {"folder": str(folder)}}))]) == 2
    assert "was validated on other cases than this student's fold holds out" in capsys.readouterr().err


def test_a_finished_run_whose_teacher_may_have_seen_its_cases_is_named(study, nnunet):
    runs = plan_runs(read_study(study("seen", ARMS, seeds=[1])))
    fold = runs[2].fold_folder.path
    (fold / "validation").mkdir(parents=True)
    (fold / "validation" / "summary.json").write_text("{}")
    for seen in (False, True):
        network = {"may_have_seen_validation_cases": seen}
        (fold / "distillation.json").write_text(json.dumps({"teacher": {"networks": [network]}, "given": {}}))
        if not seen:
            check_teachers_were_blind(runs)
    with pytest.raises(ValueError, match=r"may have seen the validation cases of nnUNetTrainerHLFD__nnUNetPlans_seen_"):
        check_teachers_were_blind(runs)


def test_a_report_of_the_papers_evaluation_asks_every_run_for_its_probabilities(study, capsys):
    file = study("wanted", ARMS, seeds=[1], report={"paper_evaluation": "tumor"})
    run = plan_runs(read_study(file))[1]
    validation = run.fold_folder.path / "validation"
    validation.mkdir(parents=True)
    (run.fold_folder.path / "checkpoint_final.pth").touch()
    (validation / "summary.json").write_text("{}")
    assert not run.is_finished  # was validated without
    assert run.is_trained
    assert main(["study", str(file), "-device", "cpu", "--commands"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("-device cpu ")[1] for line in lines] == ["--npz", "--npz --val", "--npz"]
    (validation / "case.npz").touch()
    assert run.is_finished


# Running


def test_epochs_are_counted_from_nnunets_newest_log_where_a_run_can_be_continued(study, nnunet):
    run = plan_runs(read_study(study("epochs", ARMS, settings={"num_epochs": 40})))[0]
    assert run.epochs_done == 0
    run.fold_folder.path.mkdir(parents=True)
    (run.fold_folder.path / "training_log_1.txt").write_text("00:00: Epoch 31 \n")
    log = run.fold_folder.path / "training_log_2.txt"
    log.write_text(
        "00:00: Epoch 0 \n" + "00:00: train_loss 0.5 \n" * 2000 + "00:00: Epoch 17 \n00:00: Epoch time: 2 s \n"
    )
    os.utime(run.fold_folder.path / "training_log_1.txt", (1, 1))
    assert run.epochs_done == 0  # without a checkpoint it starts anew
    (run.fold_folder.path / "checkpoint_best.pth").touch()
    assert run.epochs_done == 17
    (run.fold_folder.path / "checkpoint_final.pth").touch()
    assert run.epochs_done == 40


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(study, monkeypatch, capsys):
    runs = plan_runs(read_study(study("lines", ARMS, seeds=[1])))  # three runs of two epochs
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Progress(runs) as shown:
        shown.update(running=2, waiting=1, failed=0)
        now[0] += 700
        runs[0].fold_folder.path.mkdir(parents=True)
        (runs[0].fold_folder.path / "checkpoint_final.pth").touch()
        shown.update(running=2, waiting=1, failed=0)
        shown.say("finished teacher")
    assert capsys.readouterr().out == (
        "2 of 6 epochs, runs: 0 finished, 2 running, 1 waiting, 0 failed, about 23:20 left\nfinished teacher\n"
    )


def test_progress_is_one_bar_on_a_terminal(study, monkeypatch, capsys):
    runs = plan_runs(read_study(study("bar", ARMS, seeds=[1])))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with progress.Progress(runs) as shown:
        runs[0].fold_folder.path.mkdir(parents=True)
        (runs[0].fold_folder.path / "checkpoint_final.pth").touch()
        shown.update(running=1, waiting=1, failed=1)
    last = capsys.readouterr().out.split("\r")[-1]
    assert "2/6" in last
    assert "runs: 0 finished, 1 running, 1 waiting, 1 failed" in last


def test_a_study_does_not_start_while_one_of_its_trainings_runs(study, monkeypatch, capsys):
    file = study("busy", ARMS)
    runs = plan_runs(read_study(file))
    log = study_folder(read_study(file), runs) / f"{runs[0].name}.log"
    log.parent.mkdir()
    monkeypatch.setattr(process_groups, "END_SECONDS", 0.1)
    with log.open("ab") as held:
        assert process_groups.lock_log(held)
        assert main(["study", str(file), "-device", "cpu"]) == 2
    assert f"The process of {log} still runs" in capsys.readouterr().err


def run_study(file, *more):
    return subprocess.Popen(
        [COMMAND, "study", str(file), "-device", "cpu", "-np", "2", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def trainings(folder):
    """Process groups of trainings whose logs lie in a folder."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if link.readlink().is_relative_to(folder):
                found.add(os.getpgid(int(link.parts[2])))
        except OSError:
            continue
    return found


@pytest.mark.faults("killed processes")
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills process groups")
def test_a_study_survives_kills_isolates_a_broken_arm_and_reports(study, nnunet):
    arms = {**ARMS, "broken": {"trainer": "nnUNetTrainerKD", "settings": {"weights": {"kdd": 1}}}}
    file = study("whole", arms)
    spec = read_study(file)
    runs = plan_runs(spec)
    folder = study_folder(spec, runs)
    before = tree(nnunet / "results" / DATASET)

    first = run_study(file)
    while not any("Epoch 0" in log.read_text() for log in folder.glob("*.log")):
        assert first.poll() is None
        time.sleep(0.2)
    assert trainings(folder)
    first.kill()
    first.wait()
    end = time.monotonic() + 20
    while trainings(folder):  # the killed study's trainings end with it
        assert time.monotonic() < end
        time.sleep(0.2)

    finished = sum(run.is_finished for run in runs)
    second = run_study(file)
    while sum(run.is_finished for run in runs) == finished:
        assert second.poll() is None
        time.sleep(0.2)
    second.terminate()
    output, _ = second.communicate()
    assert "interrupted. Run the same command again to continue." in output
    assert not trainings(folder)

    third = run_study(file)
    output, _ = third.communicate()
    assert third.returncode == 1, output
    assert [run.arm for run in runs if not run.is_finished] == ["broken", "broken"]
    assert "2 of 7 runs failed. The same command tries them again." in output
    assert "Unknown method or term 'kdd' in the setting weights. Did you mean 'kd'?" in output
    assert f"Wrote {folder / 'report' / 'report.html'}" in output
    made = {
        Path(each).relative_to(nnunet / "results" / DATASET).parts[0]
        for each in tree(nnunet / "results" / DATASET) - before
    }
    trained = [run for run in runs if run.arm != "broken"]  # what is refused leaves no folder
    assert made == {"study_whole", *(run.model_folder.name for run in trained)}
    with (folder / "report" / "runs.csv").open() as opened:
        assert {row["arm"] for row in csv.DictReader(opened)} == {"teacher", "alone", "HLFD"}
    with (folder / "runs.csv").open() as opened:
        rows = [row for row in csv.DictReader(opened) if row["result"] == "finished"]
    assert 0 < len(rows) <= 5  # what ends as the study is told to end has no row
    assert all(int(row["peak_memory_bytes"]) > 1e8 for row in rows)
    assert {name: len(models) for name, models in complete_arms(spec, runs).items()} == {"alone": 2, "HLFD": 2}


@pytest.mark.slow
def test_a_study_stores_maps_and_hands_on_weights(study, nnunet, teacher_2d):
    arms = {name: STORED[name] for name in ("kd", "hlfd")}
    settings = {"student": "unet_w2", "initial_weights": "teacher"}
    arms["inherited"] = {"trainer": "nnUNetTrainerStudent", "settings": settings}
    file = study("stores", arms, seeds=[1], teachers={"teacher": {"folder": str(teacher_2d.parent)}})
    spec = read_study(file)
    runs = plan_runs(spec)
    before = set((nnunet / "preprocessed" / DATASET).glob("*_teacher_*"))
    output, _ = run_study(file).communicate()
    assert all(run.is_finished for run in runs), output
    assert "finished teach__nnUNetTrainerKD__nnUNetPlans_stores_kd.s1__fold_0" in output
    records = [run.fold_folder.record() for run in runs]
    assert all("maps" in record["teacher"]["networks"][0] for record in records[:2])
    assert records[2]["initial_weights"]["sha256"] == sha256(teacher_2d / "checkpoint_final.pth")
    for folder in set((nnunet / "preprocessed" / DATASET).glob("*_teacher_*")) - before:
        shutil.rmtree(folder)


# The paper's


@pytest.mark.slow
def test_the_papers_grid_runs_from_nothing_but_its_study_file(tmp_path, monkeypatch):
    """studies/phantom.yaml as it is, but for a smaller phantom and one step a run."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    content = yaml.safe_load((STUDIES / "phantom.yaml").read_text())
    content["phantom"].update(cases=5, size=[8, 48, 48], spacing=[10, 7.5, 7.5])
    content["settings"].update(
        student="resnet18_w8", num_epochs=1, num_iterations_per_epoch=1, num_val_iterations_per_epoch=1, batch_size=2
    )
    file = tmp_path / "phantom.yaml"
    file.write_text(yaml.safe_dump(content))
    process = run_study(file)
    output, _ = process.communicate()
    assert process.returncode == 0, output[-2000:]
    report = tmp_path / "results" / content["dataset"] / "study_paper/report"
    with (report / "arms.csv").open() as rows:
        assert {row["arm"] for row in csv.DictReader(rows)} >= content["arms"].keys()
    assert "## As the paper evaluates: tumor" in (report / "report.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kits19", "lits"])
def test_the_papers_tables_come_out_at_the_size_of_the_phantom(name, nnunet, tmp_path):
    """The repository's study file but for data set, budget, width of the student, one seed; and all of the report."""
    content = yaml.safe_load((STUDIES / f"{name}.yaml").read_text())
    content.update(dataset=901, plans="nnUNetPlans", study=f"paper.{name}", seeds=[1])
    content["settings"].update(
        student="resnet18_w8", num_epochs=1, num_iterations_per_epoch=1, num_val_iterations_per_epoch=1
    )
    content["report"] = {"pictures": "tumor", "paper_evaluation": True}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    process = run_study(file)
    output, _ = process.communicate()
    assert process.returncode == 0, output[-2000:]
    spec = read_study(file)
    report = study_folder(spec, plan_runs(spec)) / "report"
    with (report / "arms.csv").open() as rows:
        arms = list(csv.DictReader(rows))
    assert {"alone", "SKD", "IMF", "EMKD", "DSKD", "HLFD", "HLFD.beta1.8", "HLFD.lambda0.2"} <= {
        row["arm"] for row in arms
    }
    assert "## As the paper evaluates: tumor" in (report / "report.md").read_text()
    with (report / "paper_evaluation.csv").open() as rows:
        runs = {row["run"] for row in csv.DictReader(rows)}
    assert runs == {run.model_folder.name for run in plan_runs(spec)}
    assert (report / "overlay_worst.png").is_file()
