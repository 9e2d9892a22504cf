r"""UNet++ (Zhou et al.; DLMIA 2018; arXiv 1807.10165), the HLFD paper's teacher, for the plans of nnU-Net.

Node equations, H two convolutions, D down-sampling (max pooling), U up-sampling (linear), [.] concatenation, C_i
channels of level i:
    X^{i,0} = H(D(X^{i-1,0})), X^{0,0} = H(image);
    X^{i,j} = H([X^{i,0}, ..., X^{i,j-1}, U(X^{i+1,j-1})]) with C_i channels, for j > 0 and i + j <= L.
The final map is a 1x1 convolution of X^{0,L}.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.simple_conv_blocks import StackedConvBlocks
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, cat, nn
from torch.nn import functional

_CONVOLUTIONS = 2
_LINEAR_MODE = {4: "bilinear", 5: "trilinear"}
_BLOCK_KEYS = (
    "conv_bias",
    "norm_op",
    "norm_op_kwargs",
    "dropout_op",
    "dropout_op_kwargs",
    "nonlin",
    "nonlin_kwargs",
)
PLANS_KEYS = ("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", *_BLOCK_KEYS)


class UNetPlusPlus(nn.Module):
    """UNet++ with any number of stages, 2d or 3d, built from the values of a plans `architecture` block.

    Deviation: outputs for deep supervision sit on the last node of each level, X^{i,L-i}, at nnU-Net's scales; the
    source's are all at full resolution, X^{0,j}.

    Shape:
        image (B, input_channels, *spatial) -> logits (B, num_classes, *spatial), or with deep supervision a list of
        them, one for each level but the deepest, highest resolution first.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        n_stages: int,
        features_per_stage: Sequence[int],
        conv_op: type[nn.Module],
        kernel_sizes: Sequence[Any],
        strides: Sequence[Any],
        deep_supervision: bool = False,
        **block: Any,
    ) -> None:
        super().__init__()
        self.encoder = PlainConvEncoder(
            input_channels,
            n_stages,
            list(features_per_stage),
            conv_op,
            kernel_sizes,
            strides,
            _CONVOLUTIONS,
            return_skips=True,
            pool="max",
            **block,
        )
        self.decoder = NestedDecoder(self.encoder, num_classes, deep_supervision, block)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Return the logits."""
        return self.decoder(self.encoder(image))

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """He initialization, as nnU-Net's networks."""
        InitWeights_He(1e-2)(module)


class NestedDecoder(nn.Module):
    """The nodes X^{i,j} with j > 0 and the segmentation layers, lowest resolution first as in nnU-Net's decoders."""

    def __init__(
        self, encoder: PlainConvEncoder, num_classes: int, deep_supervision: bool, block: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        channels = encoder.output_channels
        self.depth = len(channels) - 1
        self.nodes = nn.ModuleDict()
        for column in range(1, self.depth + 1):
            for level in range(self.depth + 1 - column):
                self.nodes[f"{level}_{column}"] = StackedConvBlocks(
                    _CONVOLUTIONS,
                    encoder.conv_op,
                    column * channels[level] + channels[level + 1],
                    channels[level],
                    encoder.kernel_sizes[level],
                    1,
                    **block,
                )
        self.seg_layers = nn.ModuleList(
            encoder.conv_op(channels[level], num_classes, 1, 1, 0, bias=True) for level in reversed(range(self.depth))
        )

    def forward(self, skips: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Compute column by column from the encoder's maps, highest resolution first."""
        rows = [[skip] for skip in skips]
        for column in range(1, self.depth + 1):
            for level in range(self.depth + 1 - column):
                below = _upsample(rows[level + 1][column - 1], rows[level][0])
                rows[level].append(self.nodes[f"{level}_{column}"](cat([*rows[level], below], dim=1)))
        last = [rows[level][-1] for level in range(self.depth)]
        if not self.deep_supervision:
            return self.seg_layers[-1](last[0])
        return [layer(node) for layer, node in zip(reversed(self.seg_layers), last, strict=True)]


def _upsample(maps: Tensor, like: Tensor) -> Tensor:
    return functional.interpolate(maps, size=like.shape[2:], mode=_LINEAR_MODE[maps.ndim], align_corners=False)
