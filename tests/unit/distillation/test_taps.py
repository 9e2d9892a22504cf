"""Which stages are tapped, and how the student's maps are captured."""

import pytest
import torch
from architectures import KINDS, PLAIN, RESIDUAL, narrow_architecture, patch_for
from torch import nn

from nnunetv2_hlfd.distillation.taps import (
    EncoderCapture,
    Stage,
    StudentTaps,
    TeacherTaps,
    nearest_stage,
    read_stages,
    student_taps,
    teacher_taps,
    trained_heads,
)
from nnunetv2_hlfd.networks.choice import student_architecture
from nnunetv2_hlfd.networks.size import build_network
from nnunetv2_hlfd.networks.students import CHOICES as STUDENTS


def stages(*strides, axes=2):
    """Stages of given total strides; a number stands for the same stride on every axis."""
    return [Stage(channels=8, stride=(each,) * axes if isinstance(each, int) else each) for each in strides]


POWERS = [2**i for i in range(8)]
ANISOTROPIC = [(1, 1, 1), (1, 2, 2), (2, 4, 4), (4, 8, 8), (4, 16, 16), (4, 32, 32)]


# Stages as the network itself tells them, against what its encoder really returns


def assert_stages_are_real(network, patch):
    with torch.no_grad():
        maps = network.encoder(torch.zeros(1, 1, *patch, device=next(network.parameters()).device))
    read = read_stages(network)
    assert [stage.channels for stage in read] == [each.shape[1] for each in maps]
    assert [stage.size(patch) for stage in read] == [tuple(each.shape[2:]) for each in maps]
    for stage, each in zip(read, maps, strict=True):
        assert stage.stride == tuple(a // b for a, b in zip(patch, each.shape[2:], strict=True))


@pytest.mark.parametrize("name", [PLAIN, RESIDUAL])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(4, 9))
def test_stages_of_teachers(name, kind, number):
    device = "cpu" if kind == "2d" and number < 7 else "meta"  # meta: real shapes, no memory
    with torch.device(device):
        network = build_network(narrow_architecture(kind, number, name=name), 1, 3)
    assert_stages_are_real(network, patch_for(kind, number))


@pytest.mark.parametrize("choice", [each for each in STUDENTS if each != "auto"])
@pytest.mark.parametrize(("kind", "number"), [("2d", 7), ("isotropic", 4), ("anisotropic", 6)])
def test_stages_of_students(choice, kind, number):
    patch = patch_for(kind, number)
    student = student_architecture(narrow_architecture(kind, number), choice, patch, 1, 3)
    with torch.device("meta"):
        network = build_network(student, 1, 3)
    assert_stages_are_real(network, patch)


class WithoutSkips(nn.Module):
    """A network with an encoder that says nothing about its stages."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3)


@pytest.mark.parametrize("network", [nn.Conv2d(1, 2, 3), WithoutSkips(), nn.Sequential()])
def test_networks_that_are_no_unet_are_refused(network):
    for use in (read_stages, EncoderCapture):
        with pytest.raises(ValueError, match="Expected a U-Net with an encoder that tells output_channels") as caught:
            use(network)
        assert "as those of dynamic_network_architectures" in str(caught.value)
        assert str(caught.value).endswith(f"got {type(network).__name__}.")


# Roles


@pytest.mark.parametrize(
    ("strides", "expected"),
    [
        (POWERS[:3], StudentTaps(early=1, mids=(2,))),
        (POWERS[:4], StudentTaps(early=1, mids=(2, 3))),
        (POWERS[:5], StudentTaps(early=1, mids=(2, 3, 4))),
        (POWERS[:6], StudentTaps(early=1, mids=(2, 3, 4))),
        (POWERS[:8], StudentTaps(early=1, mids=(2, 3, 4))),
        ([1, 1, 2, 4, 8, 16, 32], StudentTaps(early=2, mids=(3, 4, 5))),
        ([2, 4, 8], StudentTaps(early=0, mids=(1, 2))),
        ([1, (1, 2), (2, 4)], StudentTaps(early=1, mids=(2,))),
    ],
)
def test_student_early_is_the_first_strided_stage_and_mids_are_the_next_three_at_most(strides, expected):
    assert student_taps(stages(*strides)) == expected


@pytest.mark.parametrize("strides", [[1], [1, 2], [1, 1, 2]])
def test_a_student_with_fewer_than_two_strided_stages_is_refused(strides):
    with pytest.raises(ValueError, match="No usable stages in the student: expected at least two strided") as caught:
        student_taps(stages(*strides))
    assert f"got total strides {[(each, each) for each in strides]}" in str(caught.value)
    assert "Distillation needs plans with at least 3 stages" in str(caught.value)


@pytest.mark.parametrize(
    ("strides", "late_max_stride", "mids", "late"),
    [
        (POWERS[:7], 16, (1, 2, 3), 4),
        (POWERS[:8], 16, (1, 2, 3), 4),
        (POWERS[:4], 16, (1, 2), 3),
        (POWERS[:3], 16, (1,), 2),
        (POWERS[:7], 4, (1,), 2),
        (POWERS[:7], 31, (1, 2, 3), 4),
        (POWERS[:7], 32, (1, 2, 3, 4), 5),
        (POWERS[:7], None, (1, 2, 3, 4, 5), 6),
        (POWERS[:8], None, (1, 2, 3, 4, 5, 6), 7),
        (ANISOTROPIC, 16, (1, 2, 3), 4),
        (ANISOTROPIC, 8, (1, 2), 3),
        (ANISOTROPIC, 4, (1,), 2),
        (ANISOTROPIC, None, (1, 2, 3, 4), 5),
        ([(1, 1, 1), (2, 2, 1), (4, 4, 1), (8, 8, 2), (16, 32, 4)], 16, (1, 2), 3),
    ],
)
def test_teacher_late_is_the_deepest_stage_within_the_stride_on_every_axis_and_mids_lie_above(
    strides, late_max_stride, mids, late
):
    expected = TeacherTaps(mids=mids, late=late, heads=(1, 2))
    assert teacher_taps(stages(*strides), [1, 2], late_max_stride) == expected


@pytest.mark.parametrize(("strides", "late_max_stride"), [(POWERS[:7], 2), (POWERS[:7], 3), ([4, 8, 32, 64], 16)])
def test_a_stride_limit_that_leaves_no_teacher_mid_is_refused_with_the_setting_to_change(strides, late_max_stride):
    with pytest.raises(
        ValueError, match="No usable stages in the teacher: expected at least one stage between"
    ) as caught:
        teacher_taps(stages(*strides), [], late_max_stride)
    message = str(caught.value)
    assert f"(total stride at most {late_max_stride})" in message
    assert f"got total strides {[(each, each) for each in strides]}" in message
    assert message.endswith("Raise the setting late_max_stride or set it to null, which takes the bottleneck.")


@pytest.mark.parametrize("late_max_stride", [16, None])
def test_a_teacher_of_two_stages_is_refused_and_no_setting_is_suggested_that_cannot_help(late_max_stride):
    with pytest.raises(ValueError, match="No usable stages in the teacher") as caught:
        teacher_taps(stages(1, 2), [], late_max_stride)
    assert "None" not in str(caught.value)
    assert "late_max_stride or set it to null" not in str(caught.value)
    assert "at least 3 stages" in str(caught.value)


# Trained deep-supervision outputs


@pytest.fixture(params=[(name, number) for name in (PLAIN, RESIDUAL) for number in range(3, 9)], ids=str)
def fresh_network(request):
    name, number = request.param
    return build_network(narrow_architecture("2d", number, name=name), 1, 3), number


def give_bias(network, *outputs):
    """As training does, for outputs counted from full resolution."""
    for index in outputs:
        nn.init.constant_(network.decoder.seg_layers[-1 - index].bias, 1e-4)


def test_trained_heads_are_the_intermediate_ones_with_a_bias(fresh_network):
    network, number = fresh_network
    assert trained_heads(network) == (), "nnU-Net initializes all biases to 0"
    give_bias(network, *range(number - 1))
    assert trained_heads(network) == tuple(range(1, number - 2)), "n - 3: neither the first nor the deepest"


def test_a_teacher_trained_without_deep_supervision_has_only_its_final_map(fresh_network):
    network, _ = fresh_network
    give_bias(network, 0)
    assert trained_heads(network) == ()


def test_a_single_untrained_head_is_left_out():
    network = build_network(narrow_architecture("2d", 7), 1, 3)
    give_bias(network, 0, 1, 3, 4)
    nn.init.zeros_(network.decoder.seg_layers[-2].bias[:2])  # one class at 0 is no sign of an untrained head
    assert trained_heads(network) == (1, 3, 4)


# Capture


@pytest.fixture(params=[PLAIN, RESIDUAL])
def captured(request):
    torch.manual_seed(0)
    network = build_network(narrow_architecture("2d", 3, name=request.param), 1, 3)
    return network, EncoderCapture(network), torch.rand(2, 1, 8, 8)


def assert_same_maps(maps, expected):
    assert len(maps) == len(expected)
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_capture_takes_what_the_encoder_returned_with_its_graph(captured):
    network, capture, data = captured
    capture.enabled = True
    network(data)
    maps = capture.take()
    assert_same_maps(maps, network.encoder(data))
    assert all(each.requires_grad for each in maps)


def test_nothing_is_captured_while_switched_off(captured):
    network, capture, data = captured
    network(data)
    with pytest.raises(RuntimeError, match=r"^Expected 3 encoder maps of the student, captured 0\.$"):
        capture.take()


def test_taking_empties_the_capture_so_that_no_map_is_used_twice(captured):
    network, capture, data = captured
    capture.enabled = True
    network(data)
    capture.take()
    with pytest.raises(RuntimeError, match="captured 0"):
        capture.take()


def test_a_forward_pass_around_the_hook_is_an_error(captured):
    """As where the encoder that runs is another one than the one that is watched."""
    network, capture, data = captured
    capture.enabled = True
    network.decoder(network.encoder.forward(data))
    with pytest.raises(RuntimeError, match="Expected 3 encoder maps of the student, captured 0"):
        capture.take()


def test_capture_adds_nothing_to_the_networks_weights(captured):
    network, _, _ = captured
    fresh = build_network(narrow_architecture("2d", 3, name=type(network).__name__), 1, 3)
    assert network.state_dict().keys() == fresh.state_dict().keys()


@pytest.mark.slow  # a quick one, in a training: tests/integration/test_compiled.py
@pytest.mark.parametrize("captured", [RESIDUAL], indirect=True)
def test_a_compiled_network_captures_just_as_an_eager_one_when_switched_on_and_off(captured):
    network, capture, data = captured
    expected, eager_logits = network.encoder(data), network(data)
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="aot_eager")
    for enabled in (True, False, True):
        capture.enabled = enabled
        logits = compiled(data)
        assert_same_maps(logits, eager_logits)
        if not enabled:
            with pytest.raises(RuntimeError, match="captured 0"):
                capture.take()
            continue
        maps = capture.take()
        assert_same_maps(maps, expected)
        compiled.zero_grad()
        sum(each.sum() for each in (*maps, *logits)).backward()
        gradients = [each.grad for each in network.encoder.stages[0].parameters()]
        assert any(each is not None and each.abs().sum() > 0 for each in gradients)


# Partners of stages in the other network


@pytest.mark.parametrize(
    ("strides", "wanted", "expected"),
    [
        (POWERS[:6], (4, 4), 2),
        (POWERS[:6], (1, 1), 0),
        (POWERS[:3], (32, 32), 2),
        ([2, 4, 8], (1, 1), 0),
        ([1, 8], (3, 3), 1),  # 3 is 1.4 octaves from 8 and 1.6 from 1
        ([1, 4], (2, 2), 0),  # as near to both: the shallower
        ([(1, 1), (2, 2)], (2, 1), 0),
        ([(1, 8), (4, 4), (8, 8)], (4, 8), 1),  # axes count alike
        ([(1, 8), (8, 8)], (4, 8), 1),
        ([(1, 1), (2, 1), (2, 2), (2, 2)], (2, 2), 2),  # stages of the same stride
    ],
)
def test_the_nearest_stage_is_that_of_the_fewest_octaves_over_all_axes(strides, wanted, expected):
    assert nearest_stage(stages(*strides), wanted) == expected


@pytest.mark.parametrize(("wanted", "expected"), [((1, 2, 2), 1), ((2, 2, 2), 1), ((4, 16, 16), 4), ((1, 1, 4), 0)])
def test_the_nearest_stage_of_an_anisotropic_network(wanted, expected):
    assert nearest_stage(stages(*ANISOTROPIC), wanted) == expected


def test_a_network_is_its_own_partner():
    for strides in (POWERS, ANISOTROPIC):
        own = stages(*strides)
        assert [nearest_stage(own, each.stride) for each in own] == list(range(len(own)))
