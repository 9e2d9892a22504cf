"""What STUDY.yaml says, checked."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from nnunetv2_hlfd.plans.variants import check_variant_name
from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.utilities.errors import UserError

_DEFAULT_TEACHER_TRAINER = "nnUNetTrainerTeacher"
_LABEL_EXTRAS = ["pictures", "paper_evaluation"]  # of a report: what looks at one label
_SURFACES = "surfaces"
_CALIBRATION = "calibration"
_MARGIN = "margin"
_TOLERANCE = 2.0  # mm


class _Loader(yaml.SafeLoader):
    """YAML that reads 1e-4 as a number, and in which no entry silently replaces another of the same name."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that is there twice."""
        merge = "tag:yaml.org,2002:merge"  # <<: *anchor
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """A teacher to train, or (folder) one that is there."""

    name: str
    trainer: str = _DEFAULT_TEACHER_TRAINER
    settings: Mapping[str, Any]
    folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ArmSpec:
    """A student trainer with its settings, without the seed; `teacher` is a name."""

    name: str
    trainer: str
    settings: Mapping[str, Any]
    teacher: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """A checked study.

    Attributes:
        study: its name, part of the name of every plans variant.
        settings: of every run; those of a teacher or an arm come on top.
        report: extras of the report -> the label they look at, "" for the last of dataset.json; surfaces -> mm;
            calibration -> true.
        margin: of non-inferiority in the report's verdict, in Dice.
    """

    study: str
    dataset: str
    configuration: str
    plans: str
    folds: Sequence[int]
    seeds: Sequence[int]
    settings: Mapping[str, Any]
    teachers: Sequence[TeacherSpec]
    arms: Sequence[ArmSpec]
    report: Mapping[str, Any]
    margin: float


def read_study(file: Path) -> Study:
    """Read and check a study.

    Raises:
        UserError: naming the entry, what was expected and the nearest valid name.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 (a SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Expected a study in YAML at {file}: {error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{file} is no valid YAML: {error}") from error
    content = _mapping(content, str(file))
    _known(content, [entry.name for entry in fields(Study)], str(file))
    for key in ("study", "dataset", "configuration", "arms"):
        if key not in content:
            raise UserError(f"{file} lacks '{key}'.")
    name = str(content["study"])
    check_variant_name(name)
    settings = _settings(content.get("settings"), "settings", {})
    seeds = _numbers(content.get("seeds", [1]), "seeds")
    teachers = _teachers(_mapping(content.get("teachers", {"teacher": None}), "teachers"), settings, seeds[0])
    arms = _mapping(content["arms"], "arms")
    read = [arm for key, value in arms.items() for arm in _arms(_name(key, "arms"), value, settings, teachers)]
    _distinct([arm.name for arm in read], "arms")
    if not read:
        raise UserError(f"{file} has no arms.")
    return Study(
        study=name,
        dataset=str(content["dataset"]),
        configuration=str(content["configuration"]),
        plans=str(content.get("plans", "nnUNetPlans")),
        folds=_numbers(content.get("folds", [0]), "folds"),
        seeds=seeds,
        settings=settings,
        teachers=teachers,
        arms=read,
        report=_report(content.get("report") or {}),
        margin=_margin(content.get("report") or {}),
    )


def _teachers(entries: Mapping[str, Any], settings: Mapping[str, Any], seed: int) -> list[TeacherSpec]:
    teachers = []
    for key, value in entries.items():
        name = _name(key, "teachers")
        place = f"teachers: {name}"
        check_variant_name(name)
        entry = _mapping(value or {}, place)
        _known(entry, ["trainer", "settings", "folder"], place)
        if "folder" in entry and len(entry) > 1:
            raise UserError(f"{place}: an existing teacher (folder) has no trainer and settings of its own here.")
        teachers.append(
            TeacherSpec(
                name=name,
                trainer=str(entry.get("trainer", _DEFAULT_TEACHER_TRAINER)),
                settings=_settings({"seed": seed, **_mapping(entry.get("settings") or {}, place)}, place, settings),
                folder=Path(str(entry["folder"])).expanduser().absolute() if "folder" in entry else None,
            )
        )
    if not teachers:
        raise UserError("Expected at least one teacher in 'teachers'.")
    return teachers


def _arms(name: str, value: Any, settings: Mapping[str, Any], teachers: Sequence[TeacherSpec]) -> list[ArmSpec]:
    """One arm for each combination of its grid."""
    place = f"arms: {name}"
    entry = _mapping(value, place)
    _known(entry, ["trainer", "settings", "grid", "teacher"], place)
    if "trainer" not in entry:
        raise UserError(f"{place} lacks 'trainer', such as nnUNetTrainerHLFD.")
    names = [teacher.name for teacher in teachers]
    teacher = str(entry.get("teacher", names[0]))
    if teacher not in names:
        raise UserError(f"{place}: unknown teacher '{teacher}'.{nearest(teacher, names)}")
    own = _mapping(entry.get("settings") or {}, place)
    grid = _mapping(entry.get("grid") or {}, place)
    if "seed" in {*own, *grid}:
        raise UserError(f"{place}: the seed comes from 'seeds'.")
    values = [_list(values, f"{place}: grid: {key}") for key, values in grid.items()]
    arms = []
    for combination in itertools.product(*values):
        chosen = dict(zip(grid, combination, strict=True))
        full = ".".join([name, *(f"{key}{_text(setting)}" for key, setting in chosen.items())])
        check_variant_name(full)
        arms.append(
            ArmSpec(
                name=full,
                trainer=str(entry["trainer"]),
                settings=_settings({**own, **chosen}, place, settings),
                teacher=teacher,
            )
        )
    return arms


def _report(value: Any) -> dict[str, Any]:
    """Extras of the report: a label's name, or true for the last label; for surfaces mm, or true for 2."""
    entry = _mapping(value, "report")
    _known(entry, [*_LABEL_EXTRAS, _SURFACES, _CALIBRATION, _MARGIN], "report")
    extras = {key: label for key, label in entry.items() if key in _LABEL_EXTRAS}
    for key, label in extras.items():
        if not (label is True or (isinstance(label, str) and label)):
            raise UserError(f"report: {key}: expected the name of a label, or true for the last one, got {label!r}.")
    extras = {key: "" if label is True else label for key, label in extras.items()}
    if _SURFACES in entry:
        extras[_SURFACES] = _tolerance(entry[_SURFACES])
    if _CALIBRATION in entry:
        if entry[_CALIBRATION] is not True:
            raise UserError(f"report: {_CALIBRATION}: expected true, got {entry[_CALIBRATION]!r}.")
        extras[_CALIBRATION] = True
    return extras


def _tolerance(value: Any) -> float:
    if value is True:
        return _TOLERANCE
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UserError(f"report: {_SURFACES}: expected mm above 0, or true for {_TOLERANCE:g}, got {value!r}.")
    return float(value)


def _margin(value: Mapping[str, Any]) -> float:
    margin = value.get(_MARGIN, 0.01)
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin < 1:
        raise UserError(f"report: {_MARGIN}: expected a number from 0 to below 1, got {margin!r}.")
    return float(margin)


def _text(value: Any) -> str:
    """The value of a setting as a part of a name."""
    if isinstance(value, dict):
        return "-".join(f"{key}{number}" for key, number in value.items())
    return "null" if value is None else str(value)


def _settings(value: Any, place: str, common: Mapping[str, Any]) -> dict[str, Any]:
    """Common settings with those of an entry on top, checked."""
    settings = {**common, **_mapping(value or {}, place)}
    try:
        Settings.from_dict(settings)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from error
    if "teacher_fold" in settings:
        raise UserError(
            f"{place}: a study has no teacher_fold: only the teacher of a student's own fold has not seen its "
            f"validation cases."
        )
    if settings.get("teacher_maps") == "crossfit":
        raise UserError(
            f"{place}: a study has no teacher_maps crossfit: those teachers have seen the validation cases of the "
            f"students. Set it to stored or live."
        )
    return settings


def _name(key: Any, place: str) -> str:
    """YAML reads names such as no, on and 1 as something else."""
    if not isinstance(key, str):
        raise UserError(f"Expected a text as a name in {place}, got {key!r}. Put it in quotes.")
    return key


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"Expected 'key: value' entries in {place}, got {value!r}.")
    return value


def _known(entry: Mapping[str, Any], keys: list[str], place: str) -> None:
    for key in entry:
        if key not in keys:
            raise UserError(f"{place}: unknown key '{key}'.{nearest(str(key), keys)}")


def _numbers(value: Any, place: str) -> list[int]:
    numbers = _list(value, place)
    if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
        raise UserError(f"Expected integers of at least 0 for '{place}', got {value!r}.")
    _distinct(numbers, place)
    return numbers


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UserError(f"Expected a list such as [0, 1] for '{place}', got {value!r}.")
    return value


def _distinct(values: Sequence[Any], place: str) -> None:
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise UserError(f"Expected different entries in '{place}', got {twice[0]!r} twice.")
