"""`nnUNetv2_hlfd report` on models that nnU-Net has trained and validated, and on made-up folders of every kind."""

import base64
import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers import report_students
from matplotlib import rc_context
from report_folders import cases, write_model

from nnunetv2_hlfd.cli.main import main

TABLES = ("arms", "runs", "cases", "comparisons", "to_teacher", "networks", "lesions")


def report(output, *models, more=()):
    return main(["report", "-m", *map(str, models), "-o", str(output), *more])


def squeezed(folder):
    """The Markdown page without the blanks that align its tables."""
    return re.sub(" +", " ", (folder / "report.md").read_text())


def read(file):
    with file.open() as opened:
        return list(csv.DictReader(opened))


@pytest.fixture(scope="module")
def models(nnunet, train, variant, teacher_2d):
    """A teacher, two students alone that differ in the seed, one with HLFD."""
    return [teacher_2d.parent, *report_students(nnunet, train, variant)]


def test_the_report_of_real_models_agrees_with_nnunets_own_numbers(models, tmp_path, capsys):
    assert report(tmp_path / "new" / "report", *models) == 0
    folder = tmp_path / "new" / "report"
    assert f"Wrote {folder / 'report.html'}" in capsys.readouterr().out
    assert {each.name for each in folder.iterdir()} == {
        "report.html",
        "report.md",
        "dice_size.png",
        "cases.png",
        "curves.png",
        *(f"{each}.csv" for each in TABLES),
    }
    runs = {(row["run"], row["label"]): row for row in read(folder / "runs.csv")}
    for model in models:
        summary = json.loads((model / "fold_0/validation/summary.json").read_text())
        for value, label in (("1", "kidney"), ("2", "tumor")):
            assert float(runs[model.name, label]["dice"]) == pytest.approx(summary["mean"][value]["Dice"])
            assert 0 <= float(runs[model.name, label]["recall"]) <= 1
    arms = {(row["arm"], row["label"]): row for row in read(folder / "arms.csv")}
    means = [float(runs[each.name, "kidney"]["dice"]) for each in models[1:3]]
    alone = arms["student alone", "kidney"]
    assert [float(alone["dice_mean"]), float(alone["dice_std"])] == pytest.approx(
        [np.mean(means), np.std(means, ddof=1)]
    )
    networks = {row["arm"]: row for row in read(folder / "networks.csv")}
    record = json.loads((models[3] / "fold_0/distillation.json").read_text())
    assert int(float(networks["HLFD"]["parameters"])) == record["student"]["parameters"]
    assert int(float(networks["teacher"]["macs"])) == record["teacher"]["macs"]
    assert all(float(row["latency_seconds"]) > 0 for row in networks.values())
    text = (folder / "report.md").read_text()
    assert "cases cannot carry a conclusion about a method" in text
    assert "Arms with a single run" in text


class Page(HTMLParser):
    """Tags that load something, and headings."""

    def __init__(self):
        super().__init__()
        self.loaded, self.alternatives, self.cells = [], [], []

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.loaded += [named[each] for each in ("src", "href") if each in named]
        if tag == "img":
            self.alternatives.append(named["alt"])


def test_the_page_is_one_file_with_its_pictures_inside(models, tmp_path):
    assert report(tmp_path, *models) == 0
    text = (tmp_path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert len(page.loaded) == 3
    assert all(each.startswith("data:image/png;base64,") for each in page.loaded)
    assert all(base64.b64decode(each.split(",")[1]).startswith(b"\x89PNG") for each in page.loaded)
    assert all(page.alternatives)
    assert "url(" not in text
    assert re.search(r'name="viewport"', text)


def test_folders_with_nothing_but_results_are_compared_and_what_is_missing_is_said(tmp_path):
    teacher = write_model(tmp_path, "nnUNetTrainer", cases(0.9, 0.8))
    student = write_model(tmp_path, "nnUNetTrainerOther<b>", cases(0.5, 0.6))
    assert report(tmp_path / "out", teacher, student) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "No student alone (nnUNetTrainerStudent) among the folders" in text
    assert "Not available: teacher: no checkpoint; Other&lt;b>: no checkpoint" in text
    assert "Lesions are not available for 2 cases (case_000: no " in text
    assert "<b>" not in (tmp_path / "out" / "report.html").read_text()


def test_the_verdict_is_the_first_thing_and_names_what_was_not_trained_alike(tmp_path):
    random = np.random.default_rng(0)
    alone = random.uniform(0.4, 0.6, 40)

    def model(trainer, dice, title=None, epochs=10):
        settings = {"student": "resnet18", "num_epochs": epochs, "num_iterations_per_epoch": 100}
        return write_model(tmp_path, trainer, cases(*dice), settings=settings, seed=1, title=title)

    models = [
        write_model(tmp_path, "nnUNetTrainer", cases(*(alone + 0.05))),
        model("nnUNetTrainerStudent", alone),
        model("nnUNetTrainerHLFD", alone + random.normal(0.03, 0.01, 40), "HLFD", epochs=20),
        model("nnUNetTrainerKD", alone + random.normal(0, 0.2, 40), "KD"),
        model("nnUNetTrainerAT", alone - random.normal(0.03, 0.01, 40), "AT"),
    ]
    assert report(tmp_path / "out", *models) == 0
    text = squeezed(tmp_path / "out")
    first, second, *_ = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert (first, second) == ("Did it help?", "What was compared")
    assert re.search(r"^HLFD: helped compared with student alone .*not trained alike: steps", text, re.MULTILINE)
    assert re.search(
        r"^KD: not known whether better or worse than student alone .* About \d+ cases would be needed",
        text,
        re.MULTILINE,
    )
    assert re.search(r"^AT: worse than student alone", text, re.MULTILINE)
    assert "| ≠ Training steps | not recorded | 1000 | 2000 | 1000 | 1000 |" in text
    assert "| Batch size |" in text
    assert report(tmp_path / "wide", *models, more=("--margin", "0.5")) == 0
    text = squeezed(tmp_path / "wide")
    assert re.search(r"^AT: not worse than student alone", text, re.MULTILINE)
    assert "The margin is 0.5 Dice" in text
    assert report(tmp_path / "wrong", *models, more=("--margin", "-1")) == 2


def test_pictures_are_the_same_whatever_was_plotted_before(tmp_path):
    teacher = write_model(tmp_path, "nnUNetTrainer", cases(0.9, 0.8))
    students = [
        write_model(tmp_path, f"nnUNetTrainer{name}", cases(0.5, 0.6), settings={}, title=name, seed=1)
        for name in ("Student", "HLFD")
    ]
    assert report(tmp_path / "before", teacher, *students) == 0
    with rc_context({"xtick.labelsize": 30, "axes.labelsize": 30}):  # as nnU-Net's progress.png leaves them
        assert report(tmp_path / "after", teacher, *students) == 0
    pictures = [file.name for file in (tmp_path / "before").glob("*.png")]
    assert pictures
    for name in pictures:
        assert (tmp_path / "before" / name).read_bytes() == (tmp_path / "after" / name).read_bytes()


def test_absence_is_a_column_where_cases_lack_the_label(tmp_path):
    teacher = write_model(tmp_path, "nnUNetTrainer", cases(0.9, float("nan")))
    student = write_model(tmp_path, "nnUNetTrainerStudent", cases(0.5, float("nan")), settings={}, seed=1)
    assert report(tmp_path / "out", teacher, student) == 0
    text = squeezed(tmp_path / "out")
    assert "| student alone | 1 | 0.750 |" in text
    assert "| Cases without | Absence found | Dice, nnU-Net |" in text
    assert "| 1 | 1.000 | 0.500 |" in text
    assert "In cases without the label, Dice is 1 where nothing is predicted and 0 where something is" in text


def test_labels_stand_in_one_table_each_for_results_and_differences(tmp_path):
    random = np.random.default_rng(0)
    alone = random.uniform(0.3, 0.6, (20, 2))
    teacher = write_model(tmp_path, "nnUNetTrainer", cases(*(alone + np.array([0.2, 0.01]))), kind="labels")
    students = [
        write_model(tmp_path, f"nnUNetTrainer{name}", cases(*dice), kind="labels", settings={}, title=name, seed=1)
        for name, dice in (("Student", alone), ("HLFD", alone + np.array([0.1, 0.0])))
    ]
    assert report(tmp_path / "out", teacher, *students) == 0
    text = squeezed(tmp_path / "out")
    titles = re.findall(r"^## ((?:Results|Differences).*)$", text, re.MULTILINE)
    assert titles == [
        f"{what}: {which}" for what in ("Results", "Differences in Dice") for which in ("mean of labels", "each label")
    ]
    _, _, results, _, differences = re.split(r"^## (?:Results|Differences)", text, flags=re.MULTILINE)
    rows = re.findall(r"^\| (kidney|tumor) \| ([^|]+) \|", results, re.MULTILINE)
    assert rows == [(label, arm) for label in ("kidney", "tumor") for arm in ("teacher", "student alone", "HLFD")]
    assert re.search(r"^\| Label \| Arm \| Compared with .*\| Gap \| Share of the gap \|", differences, re.MULTILINE)
    assert re.search(r"^\| kidney \| HLFD .*\| \+0.200 .*\| \+0.50 ", differences, re.MULTILINE)
    assert re.search(r"^\| tumor \| HLFD .*\| \+0.010 [^|]*\| - \|", differences, re.MULTILINE)


def test_a_teacher_that_may_have_seen_the_cases_is_a_warning(tmp_path):
    teacher = write_model(tmp_path, "nnUNetTrainer", cases(0.9, 0.8))
    student = write_model(tmp_path, "nnUNetTrainerHLFD", cases(0.5, 0.6), settings={}, title="HLFD", seen=True)
    assert report(tmp_path / "out", teacher, student) == 0
    warning = "The teacher of HLFD may have seen validation cases: these results mean little."
    assert f"**Warning:** {warning}" in (tmp_path / "out" / "report.md").read_text()
    assert f'<p class="warning">{warning}</p>' in (tmp_path / "out" / "report.html").read_text()


def test_weights_that_come_from_such_a_teacher_are_the_same_warning(tmp_path):
    teacher = write_model(tmp_path, "nnUNetTrainer", cases(0.9, 0.8))
    student = write_model(tmp_path, "nnUNetTrainerStudent", cases(0.5, 0.6), settings={})
    record = student / "fold_0/distillation.json"
    content = {**json.loads(record.read_text()), "initial_weights": {"may_have_seen_validation_cases": True}}
    record.write_text(json.dumps(content))
    assert report(tmp_path / "out", teacher, student) == 0
    assert "The teacher of student alone may have seen validation cases" in (tmp_path / "out/report.md").read_text()


def test_where_there_is_nothing_to_distil_it_is_said(tmp_path):
    students = [
        write_model(tmp_path, f"nnUNetTrainer{name}", cases(0.5, 0.6, 0.7), settings={}, title=name, seed=1)
        for name in ("Student", "HLFD")
    ]
    teacher = write_model(tmp_path, "nnUNetTrainer", cases(0.51, 0.61, 0.71))
    assert report(tmp_path / "out", teacher, *students) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "Teacher minus student alone: +0.010 [+0.010, +0.010]. Nothing to distill: the gap is below 0.02" in text
    assert "Share of the gap |" not in text


def test_many_cases_runs_and_folds(tmp_path):
    random = np.random.default_rng(0)
    folds = tuple(range(5))

    def dice(shift):
        return {fold: {f"case_{fold}_{i}": random.uniform(0.2, 0.6) + shift for i in range(12)} for fold in folds}

    teacher = write_model(tmp_path, "nnUNetTrainer", dice(0.3), folds=folds)
    students = [
        write_model(
            tmp_path,
            f"nnUNetTrainer{name}",
            dice(shift),
            folds=folds,
            plans=f"{name}.s{seed}",
            settings={"beta": 0.9},
            seed=seed,
            title=name,
        )
        for name, shift in (("Student", 0.0), ("HLFD", 0.1), ("KD", 0.05))
        for seed in range(3)
    ]
    assert report(tmp_path / "out", teacher, *students) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "validation of fold 0, 1, 2, 3, 4, 60 cases" in text
    assert "**Warning:**" not in text
    assert "Share of the gap" in text
    assert len(read(tmp_path / "out" / "cases.csv")) == 60 * 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["teacher"], "Expected the teacher's model folder and at least one student's for -m, got one folder."),
        (["teacher", "nowhere"], "Expected a model folder of nnU-Net with plans.json and dataset.json, no "),
        (["teacher", "a__b__2d"], "Expected a model folder of nnU-Net with plans.json and dataset.json, no "),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments, message, tmp_path, capsys):
    folders = {"teacher": write_model(tmp_path, "nnUNetTrainer", cases(0.9))}
    assert report(tmp_path / "out", *(folders.get(each, tmp_path / each) for each in arguments)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
