"""What networks make of one batch, as methods see it: the student's outputs and the teacher's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nnunetv2_hlfd.distillation.taps import captured_decoder_maps
from nnunetv2_hlfd.losses.attention import attention_map, energy, mean_attention, smallest_size, unified_energy
from nnunetv2_hlfd.losses.divergence import probabilities
from nnunetv2_hlfd.losses.resize import resize
from nnunetv2_hlfd.utilities.errors import UserError

Source = Literal["encoder", "decoder"]  # of a stage's map


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """One network on one batch: encoder maps and segmentation logits, both highest resolution first.

    Maps that several terms or methods need are computed once a step. A network without a readable encoder has no
    `features`.

    Attributes:
        decoded: maps of the decoder's stages, each on the grid of the encoder's stage of its index; the bottleneck has
            none. Empty where nobody asked for them.
    """

    features: Sequence[Tensor]
    logits: Sequence[Tensor]
    decoded: Sequence[Tensor] = ()
    _computed: dict[tuple[object, ...], Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, network: nn.Module, data: Tensor, *, decoder_maps: bool = False) -> "Outputs":
        """Run a U-Net with an encoder and a decoder with deep supervision on a batch (B, C, *spatial).

        Args:
            network: the U-Net.
            data: the batch.
            decoder_maps: keep the maps of the decoder's stages.

        Raises:
            UserError: for decoder maps that are not on the grids of the encoder.
        """
        unet: Any = network
        features = unet.encoder(data)
        if not decoder_maps:
            return cls(features=features, logits=unet.decoder(features))
        with captured_decoder_maps(network) as captured:
            logits = unet.decoder(features)
        decoded = [captured[index] for index in sorted(captured)]
        grids, expected = ([list(one.shape[2:]) for one in maps] for maps in (decoded, features[:-1]))
        if grids != expected:
            raise UserError(
                f"Expected a decoder with one map on each grid of its encoder but the last, {expected}, for "
                f"teacher_features=decoder, got {grids}. Use teacher_features=encoder."
            )
        return cls(features=features, logits=logits, decoded=decoded)

    def once(self, key: tuple[object, ...], compute: Callable[[], Tensor]) -> Tensor:
        """Return what `compute` returned when this key was asked for first."""
        if key not in self._computed:
            self._computed[key] = compute()
        return self._computed[key]

    def stage_map(self, stage: int, source: Source = "encoder") -> Tensor:
        """Map of a stage (B, C, *spatial); the deepest stage is the encoder's, in the decoder as well."""
        if source == "encoder" or stage == len(self.features) - 1:
            return self.features[stage]
        return self.decoded[stage]

    def attention(self, stage: int, size: Sequence[int], exponent: float, source: Source = "encoder") -> Tensor:
        """Attention map (B, voxels) of a stage resized to `size`."""
        return self.once(
            ("attention", stage, tuple(size), exponent, source),
            lambda: attention_map(energy(self.stage_map(stage, source), size, exponent)),
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

    def attention(self, stage: int, exponent: float, source: Source = "encoder") -> Tensor:
        """Attention map (B, voxels) of a stage on its own grid."""
        size = self.size(stage)
        return self.networks[0].once(
            ("mean attention", stage, exponent, source),
            lambda: mean_attention([network.attention(stage, size, exponent, source) for network in self.networks]),
        )

    def unified_attention(self, stages: Sequence[int], exponent: float, source: Source = "encoder") -> Tensor:
        """Attention map (B, voxels) of several stages as one (z_mid of Eq. 1), on the smallest grid of them."""
        energies = [
            unified_energy([network.stage_map(stage, source) for stage in stages], exponent)
            for network in self.networks
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
