"""The methods of one training: the trainer's own and those that the setting `weights` adds."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nnunetv2_hlfd.distillation.method import DistillationMethod, PixelMap, Roles, Task, TeacherShape
from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.distillation.registry import find_method, method_names
from nnunetv2_hlfd.distillation.requests import MapRequest
from nnunetv2_hlfd.distillation.taps import Stage
from nnunetv2_hlfd.settings.rules import nearest
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.utilities.errors import UserError

MethodClasses = Mapping[str, type[DistillationMethod]]


class CombinedMethod(nn.Module):
    """Sum of methods; the maps they share are computed once (`Outputs`).

    Args:
        methods: name -> method.
        factors: name of a method -> factor on all its weights; name of a term -> factor on its weight alone.

    Attributes:
        weights: term name -> its factor in the total loss.
        segmentation_terms: terms that take their weight from the segmentation loss.
        source_losses: term name -> the segmentation loss of its source, for terms that have one.

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
        self.segmentation_terms = frozenset().union(*(method.segmentation_terms for method in methods.values()))
        self.source_losses = {
            term: method.source_loss for method in methods.values() if method.source_loss for term in method.weights
        }
        share = sum(self.weights[term] for term in self.segmentation_terms)
        if share > 1:
            raise UserError(
                f"Expected {' and '.join(sorted(self.segmentation_terms))} to replace at most the whole segmentation "
                f"loss, got the share {share:g}. Lower the setting teacher_share or their factors in weights."
            )

    @property
    def title(self) -> str:
        """Titles of the methods."""
        return " + ".join(method.title for method in self._methods())

    def forward(self, student: Outputs, teacher: TeacherOutputs, target: Tensor) -> dict[str, Tensor]:
        """Return the terms of all methods, unweighted, in the order of `weights`.

        Raises:
            UserError: naming the method whose terms are not those of its weights, or no scalars.
        """
        terms: dict[str, Tensor] = {}
        for name, method in zip(self.methods, self._methods(), strict=True):
            found = method(student, teacher, target)
            _check_terms(name, method, found)
            terms |= found
        return {name: terms[name] for name in self.weights}

    def roles(self) -> Roles:
        """Roles of the stages in all methods."""
        roles = [method.roles() for method in self._methods()]
        return Roles(
            student=_joined([role.student for role in roles]),
            teacher=_joined([role.teacher for role in roles]),
            notes=[note for role in roles for note in role.notes],
        )

    def requests(self) -> tuple[MapRequest, ...]:
        """What all methods ask of a teacher beside its final map; see `DistillationMethod.requests`."""
        return tuple(sorted({request for method in self._methods() for request in method.requests()}))

    def pixel_maps(self, features: Sequence[Tensor]) -> list[PixelMap]:
        """What learned heads make of the student's encoder maps; those that no weight trains are left out."""
        maps = [pixel_map for method in self._methods() for pixel_map in method.pixel_maps(features)]
        return [pixel_map for pixel_map in maps if self.weights[pixel_map.term] > 0]

    def _methods(self) -> list[DistillationMethod]:
        return list(self.methods.values())  # type: ignore[arg-type]  # what ModuleDict holds is a Module to it


def method_classes(name: str, method: type[DistillationMethod], settings: Settings) -> MethodClasses:
    """Name -> class of every method of a training: its own first, then those that `weights` adds.

    Args:
        name: of the training's own method.
        method: its class.
        settings: of the training.
    """
    added = [other for other in settings.weights or {} if other in method_names() and other != name]
    return {name: method, **{other: find_method(other) for other in added}}


def combine(
    methods: MethodClasses,
    student_stages: Sequence[Stage],
    teacher_shape: TeacherShape,
    task: Task,
    settings: Settings,
    given: Mapping[str, Any],
) -> CombinedMethod:
    """Build the methods of a training; what `weights` does not name has factor 1.

    Args:
        methods: from `method_classes`, the training's own first.
        student_stages: of the student.
        teacher_shape: of the teacher.
        task: what the outputs mean.
        settings: of the training, which its own method takes.
        given: settings that were given explicitly; an added method keeps its own defaults for the others.

    Raises:
        UserError: for a name in `weights` that is neither a method's nor a term's.
    """
    own = next(iter(methods))
    built = {
        name: method(
            student_stages,
            teacher_shape,
            task,
            settings if name == own else Settings.from_dict({**method.defaults, **given}),
        )
        for name, method in methods.items()
    }
    return CombinedMethod(built, settings.weights or {})


def own_defaults(methods: MethodClasses, given: Mapping[str, Any]) -> list[str]:
    """Lines for the log: in which settings the added methods differ from the training's."""
    _, *added = methods.items()
    return [
        f"{name} keeps its own default: {setting} {value}"
        for name, method in added
        for setting, value in method.defaults.items()
        if setting not in given
    ]


def _check_terms(name: str, method: DistillationMethod, terms: Mapping[str, Tensor]) -> None:
    """Terms are found by their names; a method that names others would be trained or logged wrong."""
    expected = method.weights
    missing, unknown = expected.keys() - terms.keys(), terms.keys() - expected.keys()
    shaped = {term: tuple(value.shape) for term, value in terms.items() if value.ndim}
    if not missing and not unknown and not shaped:
        return
    faults = [f"{term} is missing" for term in sorted(missing)]
    faults += [f"{term} is not in its weights" for term in sorted(unknown)]
    faults += [f"{term} has the shape {shape}" for term, shape in shaped.items()]
    raise UserError(
        f"Expected the method {name} ({type(method).__module__}.{type(method).__name__}) to return the terms "
        f"{', '.join(expected)} as scalars, got {', '.join(terms) or 'none'}: {'; '.join(faults)}. Its forward has to "
        f"return each term of its weights."
    )


def _joined(roles: list[Mapping[int, str]]) -> dict[int, str]:
    """Stage -> its different roles."""
    stages = sorted({stage for role in roles for stage in role})
    return {stage: ", ".join(dict.fromkeys(role[stage] for role in roles if stage in role)) for stage in stages}
