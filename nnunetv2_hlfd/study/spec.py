"""What STUDY.yaml says, checked."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.plans.variants import check_variant_name
from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.study.entries import (
    check_distinct,
    check_keys,
    read_list,
    read_mapping,
    read_name,
    read_numbers,
    read_yaml,
    text_of,
)
from nnunetv2_hlfd.study.phantom import Phantom, read_phantom
from nnunetv2_hlfd.study.report_entry import read_extras, read_margin
from nnunetv2_hlfd.utilities.errors import UserError

_DEFAULT_TEACHER_TRAINER = "nnUNetTrainerTeacher"
_MOST_RUNS = 1000


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
        phantom: what the data set is simulated with where it is missing; None for a data set that has to be there.
        margin: of non-inferiority in the report's verdict, in Dice.
        slurm: parameters of a job for each run, where a cluster runs them; checked there.
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
    phantom: Phantom | None
    margin: float
    slurm: Mapping[str, Any]


def read_study(file: Path) -> Study:
    """Read and check a study.

    Raises:
        UserError: naming the entry, what was expected and the nearest valid name.
    """
    content = read_mapping(read_yaml(file), str(file))
    check_keys(content, [entry.name for entry in fields(Study)], str(file))
    for key in ("study", "dataset", "configuration", "arms"):
        if key not in content:
            raise UserError(f"{file} lacks '{key}'.")
    name = str(content["study"])
    check_variant_name(name)
    settings = _settings(content.get("settings"), "settings", {})
    seeds = read_numbers(content.get("seeds", [1]), "seeds")
    teachers = _teachers(read_mapping(content.get("teachers", {"teacher": None}), "teachers"), settings, seeds[0])
    arms = read_mapping(content["arms"], "arms")
    read = [arm for key, value in arms.items() for arm in _arms(read_name(key, "arms"), value, settings, teachers)]
    check_distinct([arm.name for arm in read], "arms")
    if not read:
        raise UserError(f"{file} has no arms.")
    folds = read_numbers(content.get("folds", [0]), "folds")
    _check_number(len(read) * len(seeds) * len(folds), str(file))
    return Study(
        study=name,
        dataset=str(content["dataset"]),
        configuration=str(content["configuration"]),
        plans=str(content.get("plans", "nnUNetPlans")),
        folds=folds,
        seeds=seeds,
        settings=settings,
        teachers=teachers,
        arms=read,
        phantom=read_phantom(content["phantom"], str(content["dataset"])) if "phantom" in content else None,
        report=read_extras(content.get("report") or {}),
        margin=read_margin(content.get("report") or {}),
        slurm=read_mapping(content.get("slurm") or {}, "slurm"),
    )


def _teachers(entries: Mapping[str, Any], settings: Mapping[str, Any], seed: int) -> list[TeacherSpec]:
    teachers = []
    for key, value in entries.items():
        name = read_name(key, "teachers")
        place = f"teachers: {name}"
        check_variant_name(name)
        entry = read_mapping(value or {}, place)
        check_keys(entry, ["trainer", "settings", "folder"], place)
        if "folder" in entry and len(entry) > 1:
            raise UserError(f"{place}: an existing teacher (folder) has no trainer and settings of its own here.")
        teachers.append(
            TeacherSpec(
                name=name,
                trainer=str(entry.get("trainer", _DEFAULT_TEACHER_TRAINER)),
                settings=_settings({"seed": seed, **read_mapping(entry.get("settings") or {}, place)}, place, settings),
                folder=_folder(str(entry["folder"]), place) if "folder" in entry else None,
            )
        )
    if not teachers:
        raise UserError("Expected at least one teacher in 'teachers'.")
    return teachers


def _folder(path: str, place: str) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:  # ~name of nobody, or ~ where HOME is missing
        raise UserError(f"{place}: expected a folder, got {path:.200}: {error}") from error


def _arms(name: str, value: Any, settings: Mapping[str, Any], teachers: Sequence[TeacherSpec]) -> list[ArmSpec]:
    """One arm for each combination of its grid."""
    place = f"arms: {name}"
    entry = read_mapping(value, place)
    check_keys(entry, ["trainer", "settings", "grid", "teacher"], place)
    if "trainer" not in entry:
        raise UserError(f"{place} lacks 'trainer', such as nnUNetTrainerHLFD.")
    names = [teacher.name for teacher in teachers]
    teacher = str(entry.get("teacher", names[0]))
    if teacher not in names:
        raise UserError(f"{place}: unknown teacher '{teacher}'.{nearest(teacher, names)}")
    own = read_mapping(entry.get("settings") or {}, place)
    grid = read_mapping(entry.get("grid") or {}, place)
    if "seed" in {*own, *grid}:
        raise UserError(f"{place}: the seed comes from 'seeds'.")
    values = [read_list(values, f"{place}: grid: {key}") for key, values in grid.items()]
    _check_number(math.prod(map(len, values)), f"{place}: grid")
    arms = []
    for combination in itertools.product(*values):
        chosen = dict(zip(grid, combination, strict=True))
        full = ".".join([name, *(f"{key}{text_of(setting)}" for key, setting in chosen.items())])
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


def _check_number(runs: int, place: str) -> None:
    if runs > _MOST_RUNS:
        raise UserError(f"{place}: expected at most {_MOST_RUNS} runs, got {runs}.")


def _settings(value: Any, place: str, common: Mapping[str, Any]) -> dict[str, Any]:
    """Common settings with those of an entry on top, checked."""
    settings = {**common, **read_mapping(value or {}, place)}
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
