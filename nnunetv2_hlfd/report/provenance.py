"""How the models of an arm came about, from the records that their trainings have left."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from nnunetv2_hlfd.models.record import source_networks
from nnunetv2_hlfd.networks.size import Size
from nnunetv2_hlfd.report.arms import Arm
from nnunetv2_hlfd.report.costs import Curve
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.utilities.json_file import read_json
from nnunetv2_hlfd.utilities.text import file_name

_UNKNOWN = "not recorded"
_SAME_HOURS = 0.1  # of the longer training
_OWN_ROW = ("student", "recipe", "augmentation", "num_epochs", "num_iterations_per_epoch", "batch_size", "save_every")


def provenance(arm: Arm, size: Size | None, curves: Sequence[Curve], folds: Sequence[int]) -> dict[str, str]:
    """What -> how it was for an arm; several values where its runs differ.

    Args:
        arm: teacher or student.
        size: of its network, if it was measured.
        curves: of its runs and folds.
        folds: that are compared.
    """
    models = arm.models
    return {
        "Student": _each(models, _student),
        "Parameters": f"{size.parameters / 1e6:.3g} M" if size else "not measured",
        "Trainer": _each(models, lambda model: model.folder.trainer),
        "Method and weights": _each(models, _method),
        "Teacher": _networks(models, _teacher_name),
        "Teacher's checkpoint": _networks(models, lambda network: file_name(network.get("checkpoint", _UNKNOWN))),
        "Teacher's SHA-256": _networks(models, lambda network: str(network.get("sha256", _UNKNOWN))[:12]),
        "Teacher may have seen the cases": _networks(models, _seen),
        "Training steps": _each(models, _steps),
        "Batch size": _each(models, _batch_size),
        "Recipe": _each(models, lambda model: _recorded(model, "recipe")),
        "Augmentation": _each(models, lambda model: _recorded(model, "augmentation")),
        "Other settings": _each(models, _other_settings),
        "Runs": str(len(models)),
        "Seeds": ", ".join(str(_UNKNOWN if model.seed is None else model.seed) for model in models),
        "Checkpoint measured": _join(name for model in models for name in model.checkpoint_names(folds)),
        "Versions": _join(_versions(record) for model in models for record in model.records.values()),
        "Trained until": max((_date(curve) for curve in curves if curve.ended), default=_UNKNOWN),
        "Hours of training, each fold": _hours(curves),
        "Machine": _join(_machine(model, fold) for model in models for fold in folds),
    }


def different_rows(columns: Sequence[Mapping[str, str]]) -> list[str]:
    """What is not the same in all columns."""
    return [name for name in columns[0] if len({column[name] for column in columns}) > 1]


def unequal_training(first: Arm, second: Arm, curves: Mapping[str, Sequence[Curve]]) -> list[str]:
    """In what two arms differ that a comparison of methods should hold equal.

    Args:
        first: its steps and hours are named first.
        second: what it is compared with.
        curves: by the name of their arm.
    """
    steps = [_each(arm.models, _steps) for arm in (first, second)]
    hours = [_mean_hours(curves.get(arm.name, ())) for arm in (first, second)]
    unequal = []
    if steps[0] != steps[1]:
        unequal.append(f"steps ({steps[0]} against {steps[1]})")
    if hours[0] and hours[1] and abs(hours[0] - hours[1]) > _SAME_HOURS * max(hours[0], hours[1]):
        unequal.append(f"hours ({hours[0]:.2g} against {hours[1]:.2g})")
    checks = {
        "architecture": lambda arm: arm.architecture,
        "batch size": lambda arm: _each(arm.models, _batch_size),
        "recipe": lambda arm: _each(arm.models, lambda model: str(model.settings.get("recipe"))),
        "augmentation": lambda arm: _each(arm.models, lambda model: str(model.settings.get("augmentation"))),
        "initial weights": lambda arm: _each(arm.models, lambda model: str(model.settings.get("initial_weights"))),
    }
    return [*unequal, *(name for name, value in checks.items() if value(first) != value(second))]


def _join(values: Any) -> str:
    return ", ".join(sorted(set(values))) or _UNKNOWN


def _each(models: Sequence[Model], value: Any) -> str:
    return _join(value(model) for model in models)


def _networks(models: Sequence[Model], value: Any) -> str:
    records = [record for model in models for record in model.records.values()]
    return ", ".join(sorted({value(network) for record in records for network in source_networks(record)})) or "none"


def _student(model: Model) -> str:
    is_student = any("student" in record for record in model.records.values())
    return str(model.settings.get("student", _UNKNOWN)) if is_student else "network of the plans"


def _teacher_name(network: Mapping[str, Any]) -> str:
    return file_name(network.get("folder", _UNKNOWN))


def _seen(network: Mapping[str, Any]) -> str:
    seen = network.get("may_have_seen_validation_cases")
    return ("yes" if seen else "no") if isinstance(seen, bool) else _UNKNOWN


def _method(model: Model) -> str:
    method = next((record["method"] for record in model.records.values() if "method" in record), None)
    if method is None:
        return "none"
    weights = " ".join(f"{name}={weight:g}" for name, weight in method.get("weights", {}).items())
    return f"{method.get('title', _UNKNOWN)} ({weights})" if weights else str(method.get("title", _UNKNOWN))


def _settings(model: Model) -> Settings | None:
    known = {name: value for name, value in model.settings.items() if name in Settings().to_dict()}
    try:
        return Settings.from_dict(known) if known else None
    except ValueError:
        return None


def _recorded(model: Model, name: str) -> str:
    """A setting of a trainer of this package; the trainers of others have recipes of their own."""
    return str(model.settings.get(name, _UNKNOWN if model.records else f"that of {model.folder.trainer}"))


def _steps(model: Model) -> str:
    settings = _settings(model)
    return f"{settings.epochs * settings.num_iterations_per_epoch}" if settings else _UNKNOWN


def _batch_size(model: Model) -> str:
    configurations = model.folder.plans.plans.get("configurations", {})
    planned = configurations.get(model.folder.configuration, {}).get("batch_size", _UNKNOWN)
    return str(model.settings.get("batch_size") or planned)


def _other_settings(model: Model) -> str:
    defaults = Settings().to_dict()
    given = {name: value for name, value in model.settings.items() if name not in _OWN_ROW}
    return " ".join(f"{name}={value}" for name, value in given.items() if value != defaults.get(name)) or "defaults"


def _versions(record: Mapping[str, Any]) -> str:
    versions = record.get("versions", {})
    named = [f"{name} {versions[name]}" for name in ("nnunetv2_hlfd", "nnunetv2", "torch") if name in versions]
    return " / ".join(named) or _UNKNOWN


def _date(curve: Curve) -> str:
    return f"{datetime.fromtimestamp(curve.ended or 0, timezone.utc):%Y-%m-%d}"


def _hours(curves: Sequence[Curve]) -> str:
    hours = _mean_hours(curves)
    return f"{hours:.2f}" if hours else _UNKNOWN


def _mean_hours(curves: Sequence[Curve]) -> float | None:
    hours = [curve.seconds / 3600 for curve in curves if curve.seconds]
    return sum(hours) / len(hours) if hours else None


def _machine(model: Model, fold: int) -> str:
    """The device that nnU-Net's debug.json names; no host name, since reports are passed on."""
    file = model.folder.fold(fold).file("debug.json")
    try:
        content = read_json(file) if file.is_file() else {}
    except ValueError:
        return _UNKNOWN
    name = content.get("gpu_name")
    return str(name if name not in (None, "None") else content.get("device", _UNKNOWN))
