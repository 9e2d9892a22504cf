"""The methods of one training: the trainer's own and those that the setting `weights` adds."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from nnunetv2_hlfd.config import Settings
from nnunetv2_hlfd.methods import PREFIX, find_trainer
from nnunetv2_hlfd.methods.base import DistillationMethod, Outputs, Roles, TeacherOutputs, TeacherShape


class CombinedMethod(nn.Module):
    """Sum of methods; the maps they share are computed once (`Outputs`).

    Args:
        methods: name -> method.
        factors: name -> factor on all weights of that method.

    Attributes:
        weights: term name -> its factor in the total loss.

    Raises:
        ValueError: where two methods have a term of the same name.
    """

    def __init__(self, methods: Mapping[str, DistillationMethod], factors: Mapping[str, float]) -> None:
        super().__init__()
        self.methods = nn.ModuleDict(methods)
        self.weights: dict[str, float] = {}
        for name, method in methods.items():
            if shared := self.weights.keys() & method.weights.keys():
                raise ValueError(
                    f"Expected methods with different terms in the setting weights, {name} has {sorted(shared)}, which "
                    f"another of {', '.join(methods)} has too. Leave one of them out."
                )
            self.weights |= {term: factors[name] * weight for term, weight in method.weights.items()}

    @property
    def teacher(self) -> TeacherShape:
        """The shape of the teacher that the adapters are built for."""
        return self._each()[0].teacher

    @property
    def title(self) -> str:
        """Titles of the methods."""
        return " + ".join(method.title for method in self._each())

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return the terms of all methods, unweighted."""
        return {name: term for method in self._each() for name, term in method(student, teacher, target).items()}

    def roles(self) -> Roles:
        """Roles of the stages in all methods."""
        roles = [method.roles() for method in self._each()]
        return Roles(
            student=_joined([each.student for each in roles]),
            teacher=_joined([each.teacher for each in roles]),
            notes=[note for each in roles for note in each.notes],
        )

    def _each(self) -> list[DistillationMethod]:
        return list(self.methods.values())  # type: ignore[arg-type]


def combine(
    trainer: Any, build: Callable[[type[DistillationMethod]], DistillationMethod], settings: Settings
) -> CombinedMethod:
    """The method of a trainer class with factor 1, unless `weights` names it, and what else `weights` names.

    Raises:
        ValueError: for an unknown method.
    """
    factors = {_own(trainer): 1.0, **(settings.weights or {})}
    return CombinedMethod(
        {name: build(each.method_class) for name, each in _trainers(trainer, settings).items()}, factors
    )


def other_defaults(trainer: Any, settings: Settings) -> list[str]:
    """Warn where an added method's own trainer has another value of a setting: one value holds for all methods."""
    here = settings.to_dict()
    return [
        f"WARNING: {each.__name__} has {setting} {value} where it is not given; here {here[setting]} holds for all "
        f"methods."
        for each in _trainers(trainer, settings).values()
        for setting, value in each.defaults.items()
        if each is not trainer and here[setting] != value
    ]


def _trainers(trainer: Any, settings: Settings) -> dict[str, Any]:
    """Name -> trainer class of every method of the training, its own first."""
    own = _own(trainer)
    return {own: trainer, **{name: find_trainer(name) for name in settings.weights or {} if name != own}}


def _own(trainer: Any) -> str:
    return trainer.__name__.removeprefix(PREFIX)


def _joined(roles: list[Mapping[int, str]]) -> dict[int, str]:
    """Stage -> its different roles."""
    stages = sorted({stage for each in roles for stage in each})
    return {stage: ", ".join(dict.fromkeys(each[stage] for each in roles if stage in each)) for stage in stages}
