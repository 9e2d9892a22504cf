"""Coarse maps: cut as if they had voxels, and read again as what was stored."""

import numpy as np
import pytest
import torch

from nnunetv2_hlfd.distillation.requests import MapRequest, attention_request, heads_request
from nnunetv2_hlfd.distillation.taps import Stage
from nnunetv2_hlfd.losses.attention import attention_map
from nnunetv2_hlfd.losses.divergence import probabilities
from nnunetv2_hlfd.losses.resize import resize
from nnunetv2_hlfd.teacher.stored.coarse import (
    CoarseMaps,
    decode_attention,
    decode_heads,
    encode_coarse,
    spatial_stride,
)

STAGES = [Stage(channels=8, stride=stride) for stride in ((1, 1), (2, 2), (4, 2), (4, 8))]


def repeated(codes, stride, size):
    """Every cell as so many voxels, without those beyond the image."""
    for axis, step in enumerate(stride, start=1):
        codes = np.repeat(codes, step, axis=axis)
    return codes[:, : size[0], : size[1], : size[2]]


@pytest.mark.parametrize("stride", [(1, 4, 4), (2, 4, 3), (8, 8, 8), (1, 1, 1)])
def test_cuts_are_those_of_maps_on_voxels(stride):
    size = (7, 13, 9)
    cells = [-(-extent // step) for extent, step in zip(size, stride, strict=True)]
    codes = np.random.default_rng(0).integers(0, 256, (2, *cells), dtype=np.uint8)
    maps, voxels = CoarseMaps(codes, stride, size), repeated(codes, stride, size)
    assert maps.shape == voxels.shape
    for key in [np.s_[:, :, :, :], np.s_[:, 2:3, 5:13, 0:4], np.s_[:, 0:7, 3:4, 8:9], np.s_[:, 6:7, 12:13, 8:9]]:
        np.testing.assert_array_equal(maps[key], voxels[key])


def test_a_cell_is_the_mean_of_its_voxels_and_fewer_at_the_end():
    energies = torch.arange(1.0, 8.0).view(1, 1, 1, 7)
    codes = encode_coarse(attention_request((2,), 1.0), energies, (1, 1, 3), regions=False)
    assert codes.dtype == torch.uint8
    assert codes.flatten().tolist() == [round(255 * mean / 7) for mean in (2, 5, 7)]


@pytest.mark.parametrize("exponent", [1.0, 2.0, 4.0])
def test_attention_is_read_as_it_was_stored(exponent):
    generator = torch.Generator().manual_seed(0)
    energy = torch.rand(2, 3, 4, generator=generator) * 300
    voxels = energy.repeat_interleave(4, dim=1).repeat_interleave(2, dim=2)
    request = attention_request((2,), exponent)
    read = []
    for one in voxels.pow(1 / exponent):
        codes = encode_coarse(request, one[None, None], (1, 4, 2), regions=False)
        grown = CoarseMaps(codes.numpy(), (1, 4, 2), (1, 12, 8))[np.s_[:, 0:1, 0:12, 0:8]]
        read.append(torch.from_numpy(grown)[:, 0].float())
    found = decode_attention(torch.stack(read), exponent, (3, 4))
    torch.testing.assert_close(found, attention_map(energy), rtol=0, atol=0.01)


@pytest.mark.parametrize("regions", [False, True])
def test_means_of_outputs_are_read_as_they_were_stored(regions):
    generator = torch.Generator().manual_seed(0)
    voxels = probabilities(4 * torch.randn(1, 3, 2, 12, 8, generator=generator), 4.0, regions)
    codes = encode_coarse(heads_request((1, 2), 4.0), voxels[0], (1, 4, 2), regions)
    grown = torch.from_numpy(CoarseMaps(codes.numpy(), (1, 4, 2), (2, 12, 8))[np.s_[:, :, :, :]])[None].float()
    found = decode_heads(grown, (2, 3, 4), regions)
    torch.testing.assert_close(found, resize(voxels, (2, 3, 4)), rtol=0, atol=0.025)


def test_zeros_are_background_and_no_attention():
    zeros = torch.zeros(1, 3, 4, 4)
    assert decode_heads(zeros, (2, 2), regions=False)[:, 0].min() > 0.999
    assert decode_heads(zeros, (2, 2), regions=True).max() < 1e-9
    assert not decode_attention(zeros[:, :1], 1.0, (2, 2)).any()
    silent = encode_coarse(attention_request((1,), 1.0), torch.zeros(1, 1, 4, 4), (1, 2, 2), regions=False)
    assert not silent.any()


def test_requests_know_their_grid_and_survive_json():
    request = attention_request((1, 2, 3), 2.0, "decoder")
    assert request.stride(STAGES) == (4, 8)
    assert spatial_stride(request, STAGES) == (1, 4, 8)
    assert (request.channels(3), heads_request((1,), 4.0).channels(3)) == (1, 3)
    content = {"kind": "attention", "indices": [1, 2, 3], "parameter": 2.0, "source": "decoder"}
    assert MapRequest.from_dict(content) == request
