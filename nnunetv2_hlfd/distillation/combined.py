"""The methods of one training: the trainer's own and those that the setting `weights` adds."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from nnunetv2_hlfd.distillation.method import DistillationMethod, Outputs, Roles, TeacherOutputs, TeacherShape
from nnunetv2_hlfd.distillation.registry import PREFIX, find_trainer, method_names
from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.utilities.errors import UserError


class CombinedMethod(nn.Module):
    """Sum of methods; the maps they share are computed once (`Outputs`).

    Args:
        methods: name -> method.
        factors: name of a method -> factor on all its weights; name of a term -> factor on its weight alone.

    Attributes:
        weights: term name -> its factor in the total loss.

    Raises:
        UserError: where two methods have a term of the same name, or a factor's name is neither of a method nor of a
            term.
    """

    def __init__(self, methods: Mapping[str, DistillationMethod], factors: Mapping[str, float]) -> None:
        super().__init__()
        self.methods = nn.ModuleDict(methods)
        self.weights: dict[str, float] = {}
        for name, method in methods.items():
            if shared := self.weights.keys() & method.weights.keys():
                raise UserError(
                    f"Expected methods with different terms in the setting weights, {name} has {sorted(shared)}, which "
                    f"another of {', '.join(methods)} has too. Leave one of them out."
                )
            factor = factors.get(name, 1.0)
            self.weights |= {term: factor * factors.get(term, 1.0) * weight for term, weight in method.weights.items()}
        for name in factors.keys() - methods.keys() - self.weights.keys():
            valid = [*method_names(), *self.weights]
            raise UserError(f"Unknown method or term '{name}' in the setting weights.{nearest(name, valid)}")

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
    """The method of a trainer class and those that `weights` names; what `weights` does not name has factor 1.

    Raises:
        UserError: for a name in `weights` that is neither a method's nor a term's.
    """
    methods = {name: build(each.method_class) for name, each in _trainers(trainer, settings).items()}
    return CombinedMethod(methods, settings.weights or {})


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
    own, valid = _own(trainer), method_names()
    added = [name for name in settings.weights or {} if name in valid and name != own]
    return {own: trainer, **{name: find_trainer(name) for name in added}}


def _own(trainer: Any) -> str:
    return trainer.__name__.removeprefix(PREFIX)


def _joined(roles: list[Mapping[int, str]]) -> dict[int, str]:
    """Stage -> its different roles."""
    stages = sorted({stage for each in roles for stage in each})
    return {stage: ", ".join(dict.fromkeys(each[stage] for each in roles if stage in each)) for stage in stages}
