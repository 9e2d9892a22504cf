"""What a method asks of a teacher beyond its final map, said beforehand: so that it can be stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nnunetv2_hlfd.distillation.outputs import Source
from nnunetv2_hlfd.distillation.taps import Stage


@dataclass(frozen=True, kw_only=True, order=True)
class MapRequest:
    """One call of `TeacherOutputs`: an attention map, or the mean of intermediate outputs.

    Attributes:
        kind: attention: `unified_attention` (of one stage: `attention`); heads: `unified_probabilities`.
        indices: the stages, or the outputs.
        parameter: the exponent, or the temperature.
        source: whose stages they are.
    """

    kind: Literal["attention", "heads"]
    indices: tuple[int, ...]
    parameter: float
    source: Source = "encoder"

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "MapRequest":
        """The request that `dataclasses.asdict` has written into JSON."""
        return cls(**{**content, "indices": tuple(content["indices"])})

    def channels(self, num_heads: int) -> int:
        """Number of channels of the map, for a final map of `num_heads`."""
        return num_heads if self.kind == "heads" else 1

    def stride(self, stages: Sequence[Stage]) -> tuple[int, ...]:
        """Total stride of the map's grid: the coarsest of its stages on every axis. Output i is on the grid of stage i.

        Args:
            stages: of the teacher.
        """
        return tuple(map(max, zip(*(stages[index].stride for index in self.indices), strict=True)))


def attention_request(stages: Sequence[int], exponent: float, source: Source = "encoder") -> MapRequest:
    """The attention map of several stages as one."""
    return MapRequest(kind="attention", indices=tuple(stages), parameter=exponent, source=source)


def heads_request(heads: Sequence[int], temperature: float) -> MapRequest:
    """The mean of the probabilities of several outputs."""
    return MapRequest(kind="heads", indices=tuple(heads), parameter=temperature)
