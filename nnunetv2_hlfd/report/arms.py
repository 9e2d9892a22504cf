"""Which model folders are runs of the same arm, and how arms are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2_hlfd.plans.identity import base_plans_name
from nnunetv2_hlfd.report.models import Model
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.utilities.text import file_name

_WITHOUT_EFFECT = ("save_every",)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Models that differ in nothing but their seed."""

    name: str
    models: Sequence[Model]

    @property
    def is_student_alone(self) -> bool:
        """Whether no teacher took part."""
        return self.models[0].is_student_alone

    @property
    def architecture(self) -> tuple[Any, ...]:
        """Of the network that is trained; equal for the same network."""
        return self.models[0].architecture

    @property
    def seeds(self) -> list[int] | None:
        """Of its runs in order; None where one is unknown or there twice."""
        seeds = [model.seed for model in self.models]
        known = [seed for seed in seeds if seed is not None]
        return known if len(set(known)) == len(seeds) else None


def group_models(models: Sequence[Model]) -> list[Arm]:
    """Arms in the order in which their first models are given.

    Arms are called by the title of their method, and by those settings in which arms of that title differ, where they
    are not the default.
    """
    groups: dict[str, list[Model]] = {}
    for model in models:
        groups.setdefault(repr(_identity(model)), []).append(model)
    first = [group[0] for group in groups.values()]
    return _with_different_names([Arm(name=_name(group[0], first), models=group) for group in groups.values()])


def student_alone(arms: Sequence[Arm]) -> Arm | None:
    """The first arm that was trained without a teacher."""
    return next((arm for arm in arms if arm.is_student_alone), None)


def reference_of(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """The student alone that an arm is compared with.

    It is the one of the same architecture, and of several the one that differs in the fewest settings; without one of
    that architecture it is the first of another.
    """
    others = [other for other in arms if other.is_student_alone and other is not arm]
    same = [other for other in others if other.architecture == arm.architecture]
    return min(same or others[:1], key=lambda other: _num_different(arm, other), default=None)


def _num_different(first: Arm, second: Arm) -> int:
    settings = first.models[0].settings, second.models[0].settings
    return sum(settings[0].get(name) != settings[1].get(name) for name in {*settings[0], *settings[1]})


def _identity(model: Model) -> tuple[Any, ...]:
    """What makes two models runs of the same arm. A model without settings is one of its own."""
    settings = {name: value for name, value in model.settings.items() if name not in _WITHOUT_EFFECT}
    if not settings:
        return (model.folder.path,)
    return (
        model.folder.trainer,
        model.folder.configuration,
        base_plans_name(model.folder.plans.plans),
        _teachers(model),
        sorted(settings.items(), key=lambda pair: pair[0]),
    )


def _teachers(model: Model) -> list[tuple[str, ...]]:
    """Names of the teachers' model folders, whatever the folds: runs of one arm may have been trained on other ones."""
    records = model.records.values()
    networks = [record.get("teacher", {}).get("networks", []) for record in records]
    return sorted({tuple(file_name(network["folder"]) for network in of_fold) for of_fold in networks})


def _name(model: Model, others: Sequence[Model]) -> str:
    same = [other for other in others if other.title == model.title]
    defaults = Settings().to_dict()
    different = [
        f"{name} {_text(value)}"
        for name, value in model.settings.items()
        if value != defaults.get(name)
        and any(other.settings.get(name) != value for other in same)
        and name not in _WITHOUT_EFFECT
    ]
    return ", ".join([model.title, *different])


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={number:g}" for name, number in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _with_different_names(arms: Sequence[Arm]) -> list[Arm]:
    """Add the plans' name where two arms would be called the same."""
    names = [arm.name for arm in arms]
    return [
        Arm(name=f"{arm.name} ({arm.models[0].folder.plans.plans_name})", models=arm.models)
        if names.count(arm.name) > 1
        else arm
        for arm in arms
    ]
