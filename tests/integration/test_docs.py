"""The documentation is right: its commands run, its tables agree with the code, its links lead somewhere.

README.md and every page of docs (docs/benchmarks apart) is one shell session: its `bash` blocks are executed in order
by `bash -euo pipefail` on the tiny phantom data set, in a folder of their own. Fences:

- `bash`: executed. `python FILE`, `toml FILE`, `yaml FILE`: written to FILE before it. `json`, `python`: parsed.
- `console`: commands that cannot run here; each line has to start as one of NOT_RUN.
- `text`: output and listings; no line may look like a command.

Capital words in the commands are placeholders, see `placeholders`. nnU-Net's commands are wrapped by the functions of
SHELL: short trainings, one process, CPU. A page finds the data set preprocessed and a trained 2d teacher of fold 0.
The quick pages share nnU-Net's folders, and a training or prediction that one of them has made is not repeated.
"""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from downloads import write_kits19
from phantom_data import DATASET, REGIONS_DATASET, SHORT
from shell_commands import ShellCommands

from nnunetv2_hlfd.distillation.log import DistillationLog
from nnunetv2_hlfd.distillation.method import Task, TeacherShape
from nnunetv2_hlfd.distillation.registry import METHODS, PREFIX, find_method
from nnunetv2_hlfd.distillation.taps import Stage, TeacherTaps
from nnunetv2_hlfd.methods.hlfd import HLFD
from nnunetv2_hlfd.networks.students import CHOICES as STUDENTS
from nnunetv2_hlfd.settings.settings import RULES, Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "benchmarks" not in page.relative_to(ROOT).parts),
]
QUICK = ("docs/getting-started.md", "docs/how-to/change-settings.md")
OTHER_DATASET = {"docs/how-to/unlabelled-images-through-the-ignore-label.md": REGIONS_DATASET}
SEVERAL_GPUS = "nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerHLFD -num_gpus 2"
PAPERS_STUDY = "nnUNetv2_hlfd study REPOSITORY/studies/kits19.yaml"
NOT_RUN = (
    "pip install ",
    "python -m venv ",
    "source ",
    "git clone ",
    "cd ",
    "make ",
    "sbatch ",
    "py ",
    "venv\\Scripts\\python ",
    "CUDA_VISIBLE_DEVICES=",
    ".venv/bin/pytest ",
    "mkdir -p nnunet/raw ",
    "export nnUNet_raw=$PWD",
    "nnUNetv2_hlfd study studies/phantom.yaml",
    "nnUNetv2_hlfd study study.yaml -launcher slurm",
    SEVERAL_GPUS,
    PAPERS_STUDY,
)
COMMAND = re.compile(r"(\$ )?(nnUNetv2_\w+|python|pip|git|make|export|cd|sbatch|bash|sh|curl|wget) ")
FENCE = re.compile(r"^```(\S*)(?: +(\S+))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)

# What is different here from what a reader runs; nothing else is rewritten.
SHELL = """
once() {  # run a command unless a page that shares the folders has run it
  if grep -qxF -- "$*" "$RAN"; then echo "has run on another page: $*"; else command "$@"; echo "$*" >> "$RAN"; fi
}
nnUNetv2_train() {  # a stock model that is there is validated again, any other is trained by nnUNetTrainerTeacher
  local plans=nnUNetPlans trainer= previous= each
  for each in "$@"; do
    case "$previous" in -p) plans=$each ;; -tr) trainer=$each ;; esac
    previous=$each
  done
  local models="$nnUNet_results/$1" ending="__${plans}__$2"
  if [ -n "$trainer" ]; then
    once nnUNetv2_train "$@" -device cpu
  elif [ -d "$models/nnUNetTrainer$ending/fold_$3" ]; then
    once nnUNetv2_train "$@" -device cpu --val
  else
    command nnUNetv2_hlfd train "$@" -device cpu -tr nnUNetTrainerTeacher
    mkdir -p "$models/nnUNetTrainer$ending"
    cp -r "$models/nnUNetTrainerTeacher$ending/." "$models/nnUNetTrainer$ending"
    [ "$2" = 3d_lowres ] || rm -r "$models/nnUNetTrainerTeacher$ending"  # a cascade teacher looks for its predictions
  fi
}
nnUNetv2_hlfd() {
  case "$1" in
    train) once nnUNetv2_hlfd "$@" -device cpu ;;
    benchmark | compress | predict | study | teach) command nnUNetv2_hlfd "$@" -device cpu ;;
    *) command nnUNetv2_hlfd "$@" ;;
  esac
}
python() {  # predict.pyz may warn (exit code 3): the models of these pages are hardly trained
  local code=0
  command python "$@" || code=$?
  case "$code $1" in "3 "*predict.pyz) ;; *) return $code ;; esac
}
pip() {  # into a folder of this page
  python -m pip "$1" --quiet --disable-pip-version-check --no-deps --target "$PACKAGES" "${@:2}"
}
nnUNetv2_predict() { once nnUNetv2_predict "$@" -device cpu -npp 0 -nps 0; }
nnUNetv2_preprocess() { command nnUNetv2_preprocess "$@" -np 1; }
nnUNetv2_plan_and_preprocess() {
  nnUNet_n_proc_DA=1 command nnUNetv2_plan_and_preprocess "$@" -npfp 1 -np 1
  python "$SHORTEN"
}
nnUNetv2_plan_experiment() {
  nnUNet_n_proc_DA=1 command nnUNetv2_plan_experiment "$@"
  python "$SHORTEN"
}
"""
# Gives plans, as nnU-Net wrote them, the settings of a short training of a narrow network.
SHORTEN = f"""
import json, os, pathlib
for file in pathlib.Path(os.environ["nnUNet_preprocessed"]).glob("*/nnUNet*Plans.json"):
    plans = json.loads(file.read_text())
    if "hlfd" not in plans:
        plans["hlfd"] = {{"base_plans": plans["plans_name"], "settings": json.loads('{json.dumps(SHORT)}')}}
        for configuration in plans["configurations"].values():
            if "architecture" in configuration:
                kwargs = configuration["architecture"]["arch_kwargs"]
                kwargs["features_per_stage"] = [min(8 * 2**i, 32) for i in range(kwargs["n_stages"])]
                configuration["batch_size"] = 2
        file.write_text(json.dumps(plans))
"""


def blocks(page):
    """(language, file, text, line) of every fenced block."""
    text = page.read_text()
    return [(*match.groups(), text[: match.start()].count("\n") + 1) for match in FENCE.finditer(text)]


def name(page):
    return page.relative_to(ROOT).as_posix()


def executed_pages():
    pages = [page for page in PAGES if any(language == "bash" for language, *_ in blocks(page))]
    return [pytest.param(page, id=name(page), marks=[] if name(page) in QUICK else pytest.mark.slow) for page in pages]


def make_workplace(folder, nnunet, teacher):
    """Copies of nnU-Net's folders: short settings in the plans, the teacher as a stock nnUNetTrainer."""
    shutil.copytree(nnunet / "raw", folder / "raw")
    shutil.copytree(nnunet / "preprocessed", folder / "preprocessed")
    for variant in (folder / "preprocessed").glob("*/nnUNetPlans_*.json"):
        variant.unlink()
    model = folder / "results" / DATASET / "nnUNetTrainer__nnUNetPlans__2d"
    shutil.copytree(teacher.parent, model, ignore=shutil.ignore_patterns("fold_[1-9]", "fold_all"))
    shutil.copytree(model, folder / "elsewhere" / "nnUNetTrainer__nnUNetPlans__2d")
    shutil.copytree(nnunet / "raw" / REGIONS_DATASET / "imagesTs", folder / "unlabelled")
    write_kits19(folder / "kits19", cases=range(5), unlabelled=[210], shape=(8, 48, 48))
    (folder / "shorten.py").write_text(SHORTEN)
    (folder / "ran.txt").touch()
    return folder


@pytest.fixture(scope="module")
def shared_workplace(nnunet, teacher_2d, tmp_path_factory):
    return make_workplace(tmp_path_factory.mktemp("docs"), nnunet, teacher_2d)


@pytest.fixture
def own_workplace(nnunet, teacher_2d, tmp_path):
    return make_workplace(tmp_path, nnunet, teacher_2d)


def placeholders(workplace, dataset):
    return {
        "DATASET": dataset,
        "DATASET_ID": dataset[7:10],
        "RAW": str(workplace / "raw"),
        "PREPROCESSED": str(workplace / "preprocessed"),
        "RESULTS": str(workplace / "results"),
        "IN": str(workplace / "raw" / dataset / "imagesTs"),
        "OUT": str(workplace / "predictions"),
        "IMAGES": str(workplace / "raw" / dataset / "imagesTr"),
        "MODEL_FOLDER": str(workplace / "elsewhere" / "nnUNetTrainer__nnUNetPlans__2d"),
        "UNLABELLED": str(workplace / "unlabelled"),
        "SOURCE": str(workplace / "kits19"),
        "REPOSITORY": str(ROOT),
    }


@pytest.fixture(scope="module")
def commands():
    """Folder of nnU-Net's and this package's commands."""
    with ShellCommands(sorted(Path(sysconfig.get_path("scripts")).glob("nnUNetv2_*"))) as stand_ins:
        yield stand_ins.folder


@pytest.mark.parametrize("page", executed_pages())
def test_commands_of_the_page_run(page, request, tmp_path, commands):
    workplace = request.getfixturevalue("shared_workplace" if name(page) in QUICK else "own_workplace")
    here = tmp_path / "page"
    here.mkdir()
    words = placeholders(workplace, OTHER_DATASET.get(name(page), DATASET))
    script = [SHELL, 'python "$SHORTEN"']

    def filled(text):
        return re.sub(r"\b[A-Z_]+\b", lambda match: words.get(match[0], match[0]), text)

    for language, file, text, line in blocks(page):
        if file:
            target = here / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(filled(text))
        elif language == "bash":
            script.append(f'echo "### {name(page)}, line {line}"')
            script.append(filled(text))
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("nnUNet_ext", "nnUNet_hlfd"))},
        **{f"nnUNet_{key}": str(workplace / key) for key in ("raw", "preprocessed", "results")},
        "PATH": os.pathsep.join([str(commands), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "SHORTEN": str(workplace / "shorten.py"),
        "RAN": str(workplace / "ran.txt"),
        "PACKAGES": str(tmp_path / "packages"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "packages"), os.environ.get("PYTHONPATH", "")]),
        "SLURM_ARRAY_TASK_ID": "0",
    }
    (tmp_path / "page.sh").write_text("\n".join(script))
    result = subprocess.run(
        ["bash", "-euo", "pipefail", str(tmp_path / "page.sh")],
        cwd=here,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=3600,
        check=False,
    )
    print(result.stdout)
    assert result.returncode == 0, f"exit code {result.returncode} (above 128: killed)\n{result.stdout[-4000:]}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_that_do_not_run_are_what_they_say(page):
    for language, file, text, line in blocks(page):
        where = f"{name(page)}, line {line}"
        assert language in ("bash", "python", "json", "toml", "yaml", "console", "text"), f"{where}: fence '{language}'"
        if language == "python":
            ast.parse(text)
        elif language == "json":
            json.loads(text)
        elif language == "console":
            for each in text.splitlines():
                assert each.startswith(NOT_RUN), f"{where}: could this run? {each}"
        elif language == "text" and not file:
            for each in text.splitlines():
                assert not COMMAND.match(each), f"{where}: a command in a text block: {each}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def test_index_names_every_page():
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)\)", index.read_text())}
    assert {page for page in PAGES if page.parent != ROOT and page != index} <= linked


def rows(page, first_column):
    """Cells of the table whose header starts with `first_column`."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip().replace("`", "").replace("\\|", "|") for cell in line.strip("|").split(" | ")])
    return table


def allowed(rule):
    """What a setting accepts, as the table says it."""
    if rule.choices:
        return ", ".join(rule.choices)
    words = {
        dict: f"NAME=number ≥ {rule.least}, ...",
        int: "integer",
        float: "number",
        bool: "true, false",
        type(None): "null",
    }
    words[str] = ", ".join(rule.texts) or rule.form or "text"
    limits = dict.fromkeys(rule.kinds, "")
    for kind in (int, float):
        if kind in limits and rule.least is not None:
            limits[kind] = f" ≥ {rule.least}"
        elif kind in limits and rule.above is not None:
            limits[kind] = f" > {rule.above}"
        if kind in limits and rule.most is not None:
            limits[kind] += f", ≤ {rule.most}"
    return ", ".join(words[kind] + limit for kind, limit in limits.items())


def test_settings_table_equals_the_code():
    defaults, rules = Settings().to_dict(), RULES
    table = {row[0]: row[1:] for row in rows("reference/settings.md", "Setting")}
    assert list(table) == list(rules)
    for setting, (default, values, meaning, _paper) in table.items():
        shown = defaults[setting] if isinstance(defaults[setting], str) else json.dumps(defaults[setting])
        assert (setting, default) == (setting, shown)
        assert (setting, values) == (setting, allowed(rules[setting]))
        assert (setting, meaning) == (setting, rules[setting].text)


def test_table_of_students_names_every_student():
    assert [row[0] for row in rows("reference/settings.md", "Student")] == list(STUDENTS)


def test_table_of_trainers_names_every_trainer():
    tree = ast.parse((ROOT / "trainers" / "nnunetv2_hlfd_trainers.py").read_text())
    names = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    exported = {each for each in names if each.startswith("nnUNet")} | {f"{PREFIX}{method}" for method in METHODS}
    documented = {row[0]: row[3] for row in rows("reference/trainers.md", "Trainer")}
    assert documented.keys() == exported
    for method in METHODS:
        assert documented[f"{PREFIX}{method}"] == ", ".join(sorted(find_method(method).needs)), method


def test_table_of_weights_names_every_method_whose_source_has_a_loss():
    words = {"cross_entropy": "cross entropy", "focal_dice": "focal Dice"}
    documented = {name: row[1] for row in rows("reference/methods.md", "Method | S") for name in row[0].split(", ")}
    losses = {method: find_method(method).source_loss for method in METHODS}
    assert documented == {method: words[loss] for method, loss in losses.items() if loss}


def test_table_of_log_columns_equals_the_code():
    stages = [Stage(channels=4, stride=(2**i, 2**i)) for i in range(4)]
    teacher = TeacherShape(stages=(), taps=TeacherTaps(mids=(1,), late=2, heads=()))
    method = HLFD(stages, teacher, Task(num_heads=2, regions=False, dimension=2), Settings())
    log = DistillationLog(method.weights)
    log.add(0, [1.0] * 5, dict.fromkeys(method.weights, 1.0))
    documented = [column for row in rows("reference/files.md", "Column") for column in row[0].split(", ")]
    assert documented == list(log.rows[0])


def test_functions_that_the_documentation_names_exist():
    """`losses/attention.py:energy` is an attribute of that module of the package."""
    text = "\n".join(page.read_text() for page in PAGES)
    references = set(re.findall(r"`([\w/]+\.py):([\w.]+)`", text))
    assert len(references) > 20
    for file, attribute in references:
        target = importlib.import_module("nnunetv2_hlfd." + file.removesuffix(".py").replace("/", "."))
        for part in attribute.split("."):
            target = getattr(target, part)


def test_tests_that_the_documentation_names_exist():
    """`tests/unit/test_x.py::test_y` is a test in that file."""
    text = "\n".join(page.read_text() for page in PAGES)
    references = set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text))
    assert len(references) > 8
    for file, test in references:
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"
