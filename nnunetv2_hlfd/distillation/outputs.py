"""What networks make of one batch, as methods see it: the student's outputs and the teacher's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_hlfd.losses.attention import attention_map, energy, mean_attention, smallest_size, unified_energy
from nnunetv2_hlfd.losses.divergence import probabilities
from nnunetv2_hlfd.losses.resize import resize


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """One network on one batch: encoder maps and segmentation logits, both highest resolution first.

    Maps that several terms or methods need are computed once a step. A network without a readable encoder has no
    `features`.
    """

    features: Sequence[Tensor]
    logits: Sequence[Tensor]
    _computed: dict[tuple[object, ...], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, network: nn.Module, data: Tensor) -> "Outputs":
        """Run a U-Net with an encoder and a decoder with deep supervision on a batch (B, C, *spatial)."""
        unet: Any = network
        features = unet.encoder(data)
        return cls(features=features, logits=unet.decoder(features))

    def once(self, key: tuple[object, ...], compute: Callable[[], Tensor]) -> Tensor:
        """Return what `compute` returned when this key was asked for first."""
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    def attention(self, stage: int, size: Sequence[int], exponent: float) -> Tensor:
        """Attention map (B, voxels) of a stage resized to `size`."""
        return self.once(
            ("attention", stage, tuple(size), exponent),
            lambda: attention_map(energy(self.features[stage], size, exponent)),
        )

    def probabilities(self, head: int, temperature: float, regions: bool) -> Tensor:
        """Probabilities (B, C, *spatial) of an output at a temperature; head 0 is the final map."""
        return self.once(
            ("probabilities", head, temperature, regions),
            lambda: probabilities(self.logits[head], temperature, regions),
        )


@dataclass(frozen=True, kw_only=True)
class TeacherOutputs:
    """The teacher on one batch, without graph: one network, or several folds whose maps are averaged.

    Methods ask these functions. Those that need what cannot be averaged (raw features or logits) read `networks`.
    """

    networks: Sequence[Outputs]

    def probabilities(self, head: int, temperature: float, regions: bool) -> Tensor:
        """Probabilities (B, C, *spatial) of an output at a temperature; head 0 is the final map."""
        return self.networks[0].once(
            ("mean probabilities", head, temperature, regions),
            lambda: mean_map([network.probabilities(head, temperature, regions) for network in self.networks]),
        )

    def unified_probabilities(self, heads: Sequence[int], temperature: float, regions: bool) -> Tensor:
        """p_mid of Eq. 3: the mean over several outputs, on the smallest grid of them."""

        def unified(network: Outputs) -> Tensor:
            maps = [network.probabilities(head, temperature, regions) for head in heads]
            return mean_map([resize(single, smallest_size(maps)) for single in maps])

        return mean_map([unified(network) for network in self.networks])

    def attention(self, stage: int, exponent: float) -> Tensor:
        """Attention map (B, voxels) of a stage on its own grid."""
        size = self.size(stage)
        return self.networks[0].once(
            ("mean attention", stage, exponent),
            lambda: mean_attention([network.attention(stage, size, exponent) for network in self.networks]),
        )

    def unified_attention(self, stages: Sequence[int], exponent: float) -> Tensor:
        """Attention map (B, voxels) of several stages as one (z_mid of Eq. 1), on the smallest grid of them."""
        energies = [
            unified_energy([network.features[stage] for stage in stages], exponent) for network in self.networks
        ]
        return mean_attention([attention_map(energy_map) for energy_map in energies])

    def size(self, stage: int) -> tuple[int, ...]:
        """Grid of a stage's map."""
        return tuple(self.networks[0].features[stage].shape[2:])

    def unified_size(self, stages: Sequence[int]) -> tuple[int, ...]:
        """The smallest grid of several stages, on every axis."""
        return smallest_size([self.networks[0].features[stage] for stage in stages])


def mean_map(maps: Sequence[Tensor]) -> Tensor:
    """Mean of maps of the same shape, one for each teacher network."""
    return maps[0] if len(maps) == 1 else torch.stack(list(maps)).mean(dim=0)
