"""What a study file may say, and what is answered where it is wrong."""

import re
import sys
import time
from pathlib import Path

import pytest

from nnunetv2_hlfd.study.spec import read_study
from nnunetv2_hlfd.utilities.errors import UserError

ARM = "{trainer: nnUNetTrainerStudent}"
MINIMAL = "study: s\ndataset: 901\nconfiguration: 2d\narms: {alone: {trainer: nnUNetTrainerStudent}}\n"


@pytest.fixture
def read(tmp_path):
    def parse(text):
        file = tmp_path / "study.yaml"
        file.write_text(text)
        return read_study(file)

    return parse


def test_the_least_study_has_defaults(read):
    study = read(MINIMAL)
    assert (study.study, study.dataset, study.configuration, study.plans) == ("s", "901", "2d", "nnUNetPlans")
    assert (study.folds, study.seeds, study.settings) == ([0], [1], {})
    [teacher] = study.teachers
    assert (teacher.name, teacher.trainer, teacher.settings, teacher.folder) == (
        "teacher",
        "nnUNetTrainerTeacher",
        {"seed": 1},
        None,
    )
    [arm] = study.arms
    assert (arm.name, arm.trainer, arm.settings, arm.teacher) == ("alone", "nnUNetTrainerStudent", {}, "teacher")


def test_settings_of_an_arm_or_teacher_come_on_top_of_the_common_ones(read):
    study = read("""
study: s
dataset: 901
configuration: 2d
seeds: [7, 8]
settings: {beta: 0.5, num_epochs: 10}
teachers:
  trained: {settings: {num_epochs: 20}}
  own: {trainer: nnUNetTrainerUNetPlusPlus, settings: {seed: 3}}
  there: {folder: some/model}
arms:
  a: {trainer: nnUNetTrainerHLFD, settings: {beta: 0.7}, teacher: own}
""")
    assert [each.settings for each in study.teachers] == [
        {"beta": 0.5, "num_epochs": 20, "seed": 7},
        {"beta": 0.5, "num_epochs": 10, "seed": 3},
        {"beta": 0.5, "num_epochs": 10, "seed": 7},
    ]
    assert study.teachers[2].folder == Path.cwd() / "some" / "model"  # commands may be run elsewhere
    [arm] = study.arms
    assert (arm.settings, arm.teacher) == ({"beta": 0.7, "num_epochs": 10}, "own")


def test_a_grid_makes_an_arm_of_every_combination(read):
    study = read("""
study: s
dataset: Dataset901_Phantom
configuration: 2d
arms:
  h: {trainer: nnUNetTrainerHLFD, settings: {recipe: nnunet}, grid: {beta: [0.9, 1.8], student: [auto, unet_w8]}}
""")
    assert {arm.name: dict(arm.settings) for arm in study.arms} == {
        f"h.beta{beta}.student{student}": {"recipe": "nnunet", "beta": beta, "student": student}
        for beta in (0.9, 1.8)
        for student in ("auto", "unet_w8")
    }


def test_values_that_are_no_plain_words_name_arms_of_a_grid_too(read):
    study = read(
        MINIMAL.replace("Student}", "HLFD, grid: {weights: [{KD: 1}, {ufd: 0, ifd: 0.5}], late_max_stride: [null, 8]}}")
    )
    assert [arm.name for arm in study.arms] == [
        f"alone.weights{weights}.late_max_stride{stride}"
        for weights in ("KD1", "ufd0-ifd0.5")
        for stride in ("null", 8)
    ]


def test_the_report_looks_at_the_named_label_or_the_last_one(read):
    study = read(MINIMAL + "report: {pictures: kidney, paper_evaluation: true}\n")
    assert study.report == {"pictures": "kidney", "paper_evaluation": ""}


def test_the_report_measures_borders_within_so_many_mm(read):
    assert read(MINIMAL + "report: {surfaces: 1}\n").report == {"surfaces": 1.0}
    assert read(MINIMAL + "report: {surfaces: true}\n").report == {"surfaces": 2.0}
    for wrong in ("0", "false", "much"):
        with pytest.raises(ValueError, match="surfaces: expected mm above 0, or true for 2"):
            read(MINIMAL + f"report: {{surfaces: {wrong}}}\n")


def test_the_report_measures_calibration_where_it_is_wanted(read):
    assert read(MINIMAL + "report: {calibration: true}\n").report == {"calibration": True}
    with pytest.raises(ValueError, match="calibration: expected true, got 'tumor'"):
        read(MINIMAL + "report: {calibration: tumor}\n")


def test_the_report_has_the_named_margin_or_the_usual_one(read):
    assert read(MINIMAL).margin == 0.01
    study = read(MINIMAL + "report: {margin: 0.02, pictures: kidney}\n")
    assert (study.margin, study.report) == (0.02, {"pictures": "kidney"})
    for wrong in ("-0.1", "1", "true", "much"):
        with pytest.raises(ValueError, match="margin: expected a number from 0 to below 1"):
            read(MINIMAL + f"report: {{margin: {wrong}}}\n")


def test_numbers_with_an_exponent_need_no_point_and_anchors_can_be_merged(read):
    study = read("""
study: s
dataset: 901
configuration: 2d
settings: &common {initial_lr: 1e-4, beta: 2E0}
arms:
  a: {trainer: nnUNetTrainerHLFD, settings: {<<: *common, beta: 1}}
""")
    assert study.arms[0].settings == {"initial_lr": 0.0001, "beta": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expected 'key: value' entries in "),
        ("a: [", "is no valid YAML"),
        ("- a", "Expected 'key: value' entries in "),
        ("study: s\ndataset: 1\nconfiguration: 2d\n", "lacks 'arms'"),
        (MINIMAL + "sedes: [1]\n", "unknown key 'sedes'. Did you mean 'seeds'?"),
        (MINIMAL + "seeds: 3\n", "Expected a list such as [0, 1] for 'seeds', got 3."),
        (MINIMAL + "seeds: []\n", "Expected a list such as [0, 1] for 'seeds', got []."),
        (MINIMAL + "seeds: [1, 1]\n", "Expected different entries in 'seeds', got 1 twice."),
        (MINIMAL + "folds: [all]\n", "Expected integers of at least 0 for 'folds', got ['all']."),
        (MINIMAL + "settings: {betta: 1}\n", "settings: Unknown setting 'betta'. Did you mean 'beta'?"),
        (MINIMAL + "settings: {beta: -1}\n", "settings: Expected a number of at least 0 for setting 'beta', got -1.0."),
        (MINIMAL + "settings: {teacher_fold: 1}\n", "settings: a study has no teacher_fold"),
        (MINIMAL + "settings: {teacher_maps: crossfit}\n", "settings: a study has no teacher_maps crossfit"),
        (MINIMAL + "settings: {beta: 1, beta: 2}\n", "'beta' is there twice"),
        (MINIMAL + "settings: 3\n", "Expected 'key: value' entries in settings, got 3."),
        (MINIMAL + "report: {picture: tumor}\n", "report: unknown key 'picture'. Did you mean 'pictures'?"),
        (
            MINIMAL + "report: {pictures: no}\n",
            "report: pictures: expected the name of a label, or true for the last one",
        ),
        (MINIMAL + "teachers: {}\n", "Expected at least one teacher in 'teachers'."),
        (
            MINIMAL + "teachers: {t: {folder: x, settings: {beta: 1}}}\n",
            "an existing teacher (folder) has no trainer and",
        ),
        (MINIMAL + "teachers: {t: {folder: ~nobody.of.that.name/x}}\n", "teachers: t: expected a folder, got ~nobody"),
        (MINIMAL + "teachers: {t: {fold: x}}\n", "teachers: t: unknown key 'fold'. Did you mean 'folder'?"),
        (MINIMAL.replace("study: s", "study: a__b"), "Expected a name of letters, digits and single"),
        (MINIMAL.replace("alone:", "a b:"), "Expected a name of letters, digits and single"),
        (MINIMAL.replace("{alone:", "{no:"), "Expected a text as a name in arms, got False. Put it in quotes."),
        (MINIMAL.replace("{alone: {trainer: nnUNetTrainerStudent}}", "{}"), "has no arms"),
        (MINIMAL.replace(ARM, "nnUNetTrainerStudent"), "Expected 'key: value' entries in arms: alone"),
        (MINIMAL.replace(ARM, "{}"), "arms: alone lacks 'trainer', such as nnUNetTrainerHLFD."),
        (MINIMAL.replace("Student}", "Student, teacher: techer}"), "unknown teacher 'techer'. Did you mean 'teacher'?"),
        (MINIMAL.replace("Student}", "Student, settings: {seed: 1}}"), "arms: alone: the seed comes from 'seeds'."),
        (
            MINIMAL.replace("Student}", "Student, grid: {beta: 1}}"),
            "Expected a list such as [0, 1] for 'arms: alone: grid",
        ),
        (
            MINIMAL.replace("Student}", "Student, grid: {beta: [x]}}"),
            "arms: alone: Expected a number of at least 0 for",
        ),
    ],
)
def test_what_is_wrong_is_named(read, text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"Expected a study in YAML at .*none\.yaml"):
        read_study(tmp_path / "none.yaml")


@pytest.mark.faults("hostile files")
def test_yaml_cannot_make_objects(read):
    with pytest.raises(ValueError, match="is no valid YAML"):
        read(MINIMAL + "settings: !!python/object/apply:os.system ['true']\n")


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parents[3] / "studies").glob("*.yaml")), ids=lambda file: file.stem
)
def test_the_studies_that_come_with_the_package_are_right(file):
    study = read_study(file)
    assert study.arms[0].trainer == "nnUNetTrainerStudent"
    assert study.study


BOMBS = {
    "aliases of aliases": "a: &a [x, x]\n" + "".join(f"a{n}: &a{n} [{'*a, ' * 9}]\n" for n in range(9)),
    "lists that grow": "b0: &b0 [x, x]\n" + "".join(f"b{n + 1}: &b{n + 1} [*b{n}, *b{n}, *b{n}]\n" for n in range(30)),
    "merged mappings": "b0: &b0 {x: 1}\n"
    + "".join(f"b{n + 1}: &b{n + 1} {{<<: [*b{n}, *b{n}, *b{n}]}}\n" for n in range(30)),
    "deep lists": "a: " + "[" * 50_000,
    "deep mappings": "{a: " * 20_000,
    "deep blocks": "".join(" " * n + "a:\n" for n in range(300)),
    "deep by names": "c0: &c0 [1]\n" + "".join(f"c{n + 1}: &c{n + 1} [*c{n}]\n" for n in range(500)),
    "a list that holds itself": MINIMAL + "settings: &a [*a]\n",
    "a mapping that holds itself": MINIMAL + "settings: &a {beta: *a}\n",
    "a long list": MINIMAL + "seeds: [" + "1, " * 10**6 + "1]\n",
    "a long text": "x" * 10**8,
    "a number of many digits": MINIMAL + f"seeds: [0x{'f' * 20_000}]\n",
    "a number in base 60": MINIMAL + f"seeds: [1{':59' * 20_000}]\n",
    "no date": MINIMAL + "seeds: [2001-13-45]\n",
    "a tag that does not fit": MINIMAL + "seeds: !!timestamp x\n",
    "a grid of a million arms": MINIMAL.replace(
        "Student}",
        "HLFD, grid: {" + ", ".join(f"{key}: {[*range(1, 101)]}" for key in ("beta", "lambda", "seeds")) + "}}",
    ),
    "a million runs": MINIMAL + f"folds: {[*range(1000)]}\nseeds: {[*range(1000)]}\n",
}


@pytest.fixture
def untraced():
    """Without coverage, which would make reading take five times as long."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
@pytest.mark.usefixtures("untraced")
def test_a_bomb_is_refused_within_a_second(read, text):
    start = time.thread_time()
    with pytest.raises(UserError) as caught:
        read(text)
    assert time.thread_time() - start < 1
    assert len(str(caught.value)) < 2000
