"""Maps of the decoder's stages, as attention sources beside the encoder's."""

import pytest
import torch
from architectures import PLAIN, RESIDUAL, narrow_architecture, patch_for
from torch import nn

from nnunetv2_hlfd.distillation.outputs import Outputs, TeacherOutputs
from nnunetv2_hlfd.networks.size import build_network
from nnunetv2_hlfd.networks.unet_plus_plus import UNetPlusPlus
from nnunetv2_hlfd.utilities.errors import UserError


def unet(name):
    torch.manual_seed(0)
    network = build_network(narrow_architecture("2d", 5, name=name), 1, 3)
    return network.eval(), torch.randn(2, 1, *patch_for("2d", 5))


def nested():
    network = UNetPlusPlus(
        1,
        3,
        n_stages=4,
        features_per_stage=[4, 6, 8, 10],
        conv_op=nn.Conv2d,
        kernel_sizes=[[3, 3]] * 4,
        strides=[[1, 1], [2, 2], [2, 2], [2, 2]],
        deep_supervision=True,
    )
    return network.eval(), torch.randn(2, 1, 16, 16)


@pytest.mark.parametrize("make", [lambda: unet(PLAIN), lambda: unet(RESIDUAL), nested], ids=["plain", "residual", "++"])
def test_outputs_are_made_from_the_decoders_maps(make):
    network, data = make()
    with torch.no_grad():
        outputs = Outputs.of(network, data, decoder_maps=True)
        plain = Outputs.of(network, data)
        layers = reversed(list(network.decoder.seg_layers))
        for layer, decoded, logits in zip(layers, outputs.decoded, plain.logits, strict=True):
            torch.testing.assert_close(layer(decoded), logits)
    assert [one.shape[2:] for one in outputs.decoded] == [one.shape[2:] for one in outputs.features[:-1]]
    assert not plain.decoded
    assert not any(layer._forward_pre_hooks for layer in network.decoder.seg_layers)


def test_the_bottleneck_is_the_encoders_and_attention_tells_sources_apart():
    network, data = unet(RESIDUAL)
    with torch.no_grad():
        outputs = Outputs.of(network, data, decoder_maps=True)
    last = len(outputs.features) - 1
    assert outputs.stage_map(last, "decoder") is outputs.stage_map(last, "encoder")
    teacher = TeacherOutputs(networks=[outputs])
    maps = [teacher.attention(1, 1.0, source) for source in ("encoder", "decoder")]
    assert maps[0].shape == maps[1].shape
    assert not torch.allclose(*maps)
    unified = [teacher.unified_attention((1, 2), 1.0, source) for source in ("encoder", "decoder")]
    assert unified[0].shape == unified[1].shape
    assert not torch.allclose(*unified)


class AtHalfResolution(nn.Module):
    """Segments each map after pooling it."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder, self.seg_layers, self.deep_supervision = decoder, decoder.seg_layers, True

    def forward(self, skips):
        return [layer(nn.functional.avg_pool2d(maps, 2)) for layer, maps in zip(self.seg_layers, skips, strict=False)]


def test_a_decoder_whose_maps_are_on_other_grids_is_refused():
    network, data = unet(PLAIN)
    stages = network.encoder.output_channels
    network.decoder.seg_layers = nn.ModuleList(nn.Conv2d(channels, 3, 1) for channels in stages[:-1])
    network.decoder = AtHalfResolution(network.decoder)
    with pytest.raises(UserError, match=r"teacher_features=decoder, got .* Use teacher_features=encoder"):
        Outputs.of(network, data, decoder_maps=True)
