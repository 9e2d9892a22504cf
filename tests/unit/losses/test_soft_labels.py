"""The soft-label segmentation loss: its equations, one-hot targets, its minimum, limits, deep supervision, DDP."""

import numpy as np
import pytest
import reference.soft_labels
import torch
import torch.multiprocessing
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from soft_label_worker import work

from nnunetv2_hlfd.losses.divergence import probabilities
from nnunetv2_hlfd.losses.focal_dice import FocalDiceLoss
from nnunetv2_hlfd.losses.soft_labels import SoftLabelLoss, deep_soft_label_loss

IGNORE = 3
RECIPES = ("paper", "nnunet")
KINDS = [pytest.param(False, id="labels"), pytest.param(True, id="regions")]
MASKING = [pytest.param(False, id="all-voxels"), pytest.param(True, id="masked")]
POOLING = [pytest.param(False, id="dice-per-sample"), pytest.param(True, id="dice-per-batch")]
SHAPES = [pytest.param((2, 3, 5, 4), id="2d"), pytest.param((3, 3, 2, 4, 3), id="3d")]
SMALL = [pytest.param((2, 3, 2, 3), id="2d"), pytest.param((1, 3, 2, 2, 2), id="3d")]


def build(recipe, regions, *, batch_dice=False, **options):
    return SoftLabelLoss(recipe=recipe, regions=regions, batch_dice=batch_dice, **options)


def make_logits(shape, seed=0, scale=2.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=scale, size=shape))


def soft_target(shape, regions, seed=1):
    return probabilities(make_logits(shape, seed), 1.0, regions)


def mask(shape, seed=2):
    return torch.from_numpy(np.random.default_rng(seed).random((shape[0], 1, *shape[2:])) < 0.6)


def hard_target(shape, regions, ignore, seed=1):
    """nnU-Net's target, the same as probabilities, and the voxels that are not ignored (None without ignore label)."""
    random = np.random.default_rng(seed)
    valid = torch.from_numpy(random.random((shape[0], 1, *shape[2:])) > 0.3) if ignore else None
    if regions:
        truth = torch.from_numpy(random.random(shape) < 0.4)
        target = truth.float() if valid is None else torch.cat([truth, ~valid], dim=1).float()
        return target, truth.float(), valid
    truth = torch.from_numpy(random.integers(0, shape[1], (shape[0], 1, *shape[2:])))
    one_hot = torch.zeros(shape).scatter_(1, truth, 1)
    return (truth if valid is None else torch.where(valid, truth, IGNORE)).float(), one_hot, valid


def loss_for_labels(recipe, regions, batch_dice, ignore):
    """What the trainer of the recipe learns from labels with."""
    if recipe == "paper":
        return FocalDiceLoss(regions=regions, batch_dice=batch_dice, ignore_label=IGNORE if ignore else None)
    dice = {"batch_dice": batch_dice, "do_bg": regions, "smooth": 1e-5, "ddp": False}
    if regions:
        return DC_and_BCE_loss({}, dice, use_ignore_label=ignore, dice_class=MemoryEfficientSoftDiceLoss)
    return DC_and_CE_loss(dice, {}, ignore_label=IGNORE if ignore else None, dice_class=MemoryEfficientSoftDiceLoss)


def value_and_gradient(loss, logits, *arguments):
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, *arguments)
    value.backward()
    return value.detach(), logits.grad


# The equations


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("masked", MASKING)
@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_reference(shape, recipe, regions, batch_dice, masked, dtype, tolerance):
    logits, target = make_logits(shape).to(dtype), soft_target(shape, regions).to(dtype)
    valid = mask(shape) if masked else None
    computed = build(recipe, regions, batch_dice=batch_dice)(logits, target, valid)
    expected = reference.soft_labels.soft_label_loss(
        logits.double().numpy(),
        target.double().numpy(),
        recipe=recipe,
        regions=regions,
        batch_dice=batch_dice,
        valid=None if valid is None else valid.numpy(),
    )
    assert computed.dtype == dtype
    assert computed.item() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 1.0])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_shares_of_soft_dice_equal_the_reference(recipe, regions, share, seed):
    shape = (2, 4, 3, 3)
    logits, target = make_logits(shape, seed), soft_target(shape, regions, seed + 10)
    computed = build(recipe, regions, soft_dice_share=share)(logits, target)
    expected = reference.soft_labels.soft_label_loss(
        logits.numpy(), target.numpy(), recipe=recipe, regions=regions, batch_dice=False, share=share
    )
    assert computed.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("masked", MASKING)
def test_with_an_ignore_label_the_recipe_nnunet_sums_the_regions_cross_entropies_as_nnunet_does(masked):
    shape = (2, 3, 5, 4)
    valid = mask(shape) if masked else None
    computed = build("nnunet", True, has_ignore_label=True)(make_logits(shape), soft_target(shape, True), valid)
    expected = reference.soft_labels.soft_label_loss(
        make_logits(shape).numpy(),
        soft_target(shape, True).numpy(),
        recipe="nnunet",
        regions=True,
        batch_dice=False,
        valid=None if valid is None else valid.numpy(),
        has_ignore_label=True,
    )
    assert computed.item() == pytest.approx(expected, rel=1e-10)


def test_by_hand():
    """One foreground voxel, p = (0.4, 0.6), q = (0.5, 0.5): TV 0.1, CE log 2, Dice (0.6 + 0.5 - 0.1) / 1.1."""
    logits, target = torch.zeros(1, 2, 1, 1), torch.tensor([0.4, 0.6]).reshape(1, 2, 1, 1)
    entropy, dice = np.log(2), 1.0 / 1.1
    assert build("paper", False)(logits, target).item() == pytest.approx(
        0.5 * 0.01 * entropy + 0.5 * (1 - dice), rel=1e-5
    )
    assert build("nnunet", False)(logits, target).item() == pytest.approx(entropy - dice, rel=1e-5)


@pytest.mark.parametrize("masked", MASKING)
@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("shape", SMALL)
def test_gradcheck(shape, recipe, regions, batch_dice, masked):
    loss, target = build(recipe, regions, batch_dice=batch_dice), soft_target(shape, regions)
    valid = mask(shape) if masked else None
    assert torch.autograd.gradcheck(lambda logits: loss(logits, target, valid), (make_logits(shape).requires_grad_(),))


# One-hot targets


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("ignore", [pytest.param(False, id="no-ignore"), pytest.param(True, id="ignore-label")])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("shape", [(2, 3, 17, 12), (2, 3, 6, 9, 8)], ids=["2d", "3d"])
def test_one_hot_targets_give_the_loss_for_labels(shape, recipe, regions, ignore, batch_dice, seed):
    """In float32: one or two units in the last place of the sums, which add up in another order."""
    logits = make_logits(shape, seed).float()
    target, one_hot, valid = hard_target(shape, regions, ignore, seed)
    loss = build(recipe, regions, batch_dice=batch_dice, has_ignore_label=ignore)
    value, gradient = value_and_gradient(loss, logits, one_hot, valid)
    expected, expected_gradient = value_and_gradient(
        loss_for_labels(recipe, regions, batch_dice, ignore), logits, target
    )
    assert value.dtype == expected.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), abs=5e-7)
    largest = expected_gradient.abs().max().item()
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=2e-6 * largest)


@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("regions", KINDS)
def test_dice_alone_is_nnunets_to_the_last_bit(regions, ignore, batch_dice):
    shape = (2, 4, 17, 12)
    _, one_hot, valid = hard_target(shape, regions, ignore)
    value, gradient = value_and_gradient(
        build("nnunet", regions, batch_dice=batch_dice, soft_dice_share=1.0), make_logits(shape).float(), one_hot, valid
    )
    nnunet = MemoryEfficientSoftDiceLoss(
        apply_nonlin=torch.sigmoid if regions else lambda x: torch.softmax(x, dim=1),
        batch_dice=batch_dice,
        do_bg=regions,
        smooth=1e-5,
        ddp=False,
    )
    expected, expected_gradient = value_and_gradient(
        lambda x: 2 * nnunet(x, one_hot, loss_mask=valid), make_logits(shape).float()
    )
    assert torch.equal(value, expected)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("regions", KINDS)
def test_gradients_of_one_hot_targets_in_double_precision(regions):
    """Without float32's noise in 1 - p_t: only nnU-Net's Dice still sums in float32."""
    shape = (2, 3, 9, 8)
    target, one_hot, _ = hard_target(shape, regions, False)
    _, gradient = value_and_gradient(build("paper", regions), make_logits(shape), one_hot)
    _, expected = value_and_gradient(loss_for_labels("paper", regions, False, False), make_logits(shape), target)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-7 * expected.abs().max().item())


# The minimum


@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("masked", MASKING)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_gradient_where_the_prediction_is_the_target(shape, recipe, regions, masked, batch_dice):
    logits = make_logits(shape)
    loss = build(recipe, regions, batch_dice=batch_dice)
    valid = mask(shape) if masked else None
    _, gradient = value_and_gradient(loss, logits, probabilities(logits, 1.0, regions), valid)
    _, elsewhere = value_and_gradient(loss, logits, soft_target(shape, regions), valid)
    assert gradient.abs().max() < 1e-12
    assert elsewhere.abs().max() > 1e-3


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_other_prediction_costs_more(recipe, regions, seed):
    shape = (2, 3, 3, 4)
    logits = make_logits(shape, seed)
    target, loss = probabilities(logits, 1.0, regions), build(recipe, regions)
    lowest = loss(logits, target).item()
    if recipe == "paper":
        assert lowest == pytest.approx(0, abs=1e-12)
    for step in (1e-3, 0.1, 3.0):
        assert loss(logits + step * make_logits(shape, seed + 100), target).item() > lowest
    sharper = logits * 1.5
    assert loss(sharper, target).item() > lowest, "the usual soft Dice asks for more certainty than the target has"


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_optimization_finds_the_target(recipe, regions, share):
    """Single voxels: Dice's kink keeps a fixed step from ending exactly at the target, so the step falls."""
    shape = (1, 3, 3, 3)
    target = probabilities(make_logits(shape, 1, scale=1.0), 1.0, regions)
    logits = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    loss = build(recipe, regions, soft_dice_share=share)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    for _ in range(1000):
        optimizer.zero_grad()
        loss(logits, target).backward()
        optimizer.step()
        schedule.step()
    assert (probabilities(logits.detach(), 1.0, regions) - target).abs().max() < 0.01


# Limits


@pytest.mark.parametrize("extreme", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_certain_targets_and_extreme_logits_stay_finite(recipe, regions, dtype, extreme):
    """Probabilities of exactly 0, 1 and 1e-9, against logits that agree with them and that contradict them."""
    target = torch.tensor([[1.0, 0.0, 1.0 - 1e-9, 1e-9], [0.0, 1.0, 1e-9, 1.0 - 1e-9]]).reshape(1, 2, 2, 2)
    signs = torch.tensor([[1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 1.0]]).reshape(1, 2, 2, 2)
    value, gradient = value_and_gradient(build(recipe, regions), (extreme * signs).to(dtype), target)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert value.item() > 0.2 * extreme**0.5, "half of the voxels are contradicted"


@pytest.mark.parametrize("probability", [0.0, 1e-9])
@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_an_absent_class_costs_nothing_where_it_is_not_predicted(recipe, regions, batch_dice, probability):
    """As nnU-Net's Dice of an absent class: 1 where the prediction is empty too, its gradient at most 1 / smooth."""
    shape = (2, 3, 4, 4)
    target = soft_target(shape, regions).float()
    target[:, 2] = probability
    if not regions:
        target = target / target.sum(dim=1, keepdim=True)
    logits = target.clamp_min(1e-12).logit() if regions else target.clamp_min(1e-12).log()
    logits[:, 2] = -40.0
    loss = build(recipe, regions, batch_dice=batch_dice)
    lowest, gradient = value_and_gradient(loss, logits, target)
    if recipe == "paper":
        assert lowest.item() == pytest.approx(0, abs=2e-3)  # the target's 32 times 1e-9 beside the smooth 1e-5
    assert gradient.isfinite().all()
    predicted = logits.clone()
    predicted[:, 2] = 0.0
    value, gradient = value_and_gradient(loss, predicted, target)
    assert value.item() > lowest.item() + 0.05
    assert gradient.isfinite().all()


@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize(("recipe", "constant"), [("paper", 0.0), ("nnunet", -1.0)])
def test_no_valid_voxel_gives_a_constant_with_a_usable_gradient(recipe, constant, regions, batch_dice):
    """The constant is that of the loss for labels, where all are ignored."""
    shape = (2, 3, 5, 4)
    logits = make_logits(shape).float().requires_grad_()
    valid = torch.zeros(2, 1, 5, 4, dtype=torch.bool)
    value = build(recipe, regions, batch_dice=batch_dice)(logits, soft_target(shape, regions), valid)
    value.backward()
    assert value.item() == constant
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    target = torch.ones(2, 4, 5, 4) if regions else torch.full((2, 1, 5, 4), float(IGNORE))
    for_labels = loss_for_labels(recipe, regions, batch_dice, True)
    assert for_labels(logits.detach(), target).item() == constant


@pytest.mark.parametrize("batch_dice", POOLING)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_voxels_that_are_not_valid_change_nothing(recipe, regions, batch_dice):
    shape = (2, 3, 5, 4)
    valid, target = mask(shape), soft_target(shape, regions)
    loss = build(recipe, regions, batch_dice=batch_dice)
    value, gradient = value_and_gradient(loss, make_logits(shape), target, valid)
    other = torch.where(valid, make_logits(shape), make_logits(shape, 9, scale=20.0))
    other_target = torch.where(valid, target, soft_target(shape, regions, 8))
    other_value, other_gradient = value_and_gradient(loss, other, other_target, valid)
    assert other_value.item() == value.item()
    assert torch.equal(other_gradient, gradient)
    assert not gradient[~valid.expand(shape)].any()
    assert gradient[valid.expand(shape)].all()


@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_are_computed_in_float32(dtype, recipe, regions):
    shape = (2, 3, 5, 4)
    half, target = make_logits(shape).to(dtype), soft_target(shape, regions).to(dtype)
    loss = build(recipe, regions)
    expected = loss(half.float(), target.float())
    assert loss(half, target).dtype == torch.float32
    assert torch.equal(loss(half, target), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(half, target), expected)


@pytest.mark.parametrize("recipe", RECIPES)
def test_memory_kept_for_the_backward_pass_of_many_classes(recipe):
    """The target, q and log q, and single-channel maps; no further map of all classes."""
    shape = (1, 40, 16, 16)
    logits, target = make_logits(shape).float().requires_grad_(), soft_target(shape, False).float()
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        value = build(recipe, False)(logits, target)
        assert value.requires_grad
    assert sum(kept.values()) < 3.2 * target.untyped_storage().nbytes()


# Deep supervision

GRIDS = [
    pytest.param([(8, 12), (4, 6), (2, 3)], id="2d"),
    pytest.param([(2, 8, 8), (2, 4, 4), (1, 2, 2)], id="3d-anisotropic"),
    pytest.param([(7, 9), (4, 5), (2, 3)], id="2d-does-not-divide"),
]


def outputs(grids, *, channels=3, dtype=torch.float64):
    return [make_logits((2, channels, *size), seed).to(dtype) for seed, size in enumerate(grids)]


@pytest.mark.parametrize("masked", MASKING)
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("grids", GRIDS)
def test_deep_supervision_equals_the_reference(grids, recipe, regions, masked):
    weights = (4 / 7, 2 / 7, 1 / 7)
    target = soft_target((2, 3, *grids[0]), regions, 7)
    ignored = torch.from_numpy(np.random.default_rng(3).random((2, 1, *grids[0])) < 0.1) if masked else None
    computed = deep_soft_label_loss(build(recipe, regions), outputs(grids), weights, target, ignored)
    expected = reference.soft_labels.deep_soft_label_loss(
        [output.numpy() for output in outputs(grids)],
        weights,
        target.numpy(),
        None if ignored is None else ignored.numpy(),
        recipe=recipe,
        regions=regions,
        batch_dice=False,
    )
    assert computed.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("last", [0.0, 1e-6], ids=["one-process", "ddp"])
@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("regions", KINDS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_deep_supervision_equals_nnunets_wrapper_where_every_target_is_one_hot(recipe, regions, ignore, last):
    """Labels that are constant over the coarsest voxels stay one-hot when they are averaged."""
    grids, weights = [(8, 12), (4, 6), (2, 3)], np.array([1, 0.5, last]) / (1.5 + last)
    coarse, coarse_one_hot, coarse_valid = hard_target((2, 3, *grids[-1]), regions, ignore)

    def enlarge(maps, factor):
        return maps.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)

    labels = [enlarge(coarse, factor) for factor in (4, 2, 1)]
    ignored = None if coarse_valid is None else ~enlarge(coarse_valid, 4)
    wrapper = DeepSupervisionWrapper(loss_for_labels(recipe, regions, False, ignore), weights)
    logits, logits_nnunet = (
        [output.requires_grad_() for output in outputs(grids, dtype=torch.float32)] for _ in range(2)
    )
    loss = build(recipe, regions, has_ignore_label=ignore)
    computed = deep_soft_label_loss(loss, logits, wrapper.weight_factors, enlarge(coarse_one_hot, 4), ignored)
    expected = wrapper(logits_nnunet, labels)
    assert computed.item() == pytest.approx(expected.item(), abs=5e-7)
    computed.backward()
    expected.backward()
    for output, output_nnunet in zip(logits, logits_nnunet, strict=True):
        assert (output.grad is None) == (output_nnunet.grad is None)
        if output.grad is not None:
            largest = output_nnunet.grad.abs().max().item()
            torch.testing.assert_close(output.grad, output_nnunet.grad, rtol=0, atol=2e-6 * largest)


@pytest.mark.parametrize("regions", KINDS)
def test_outputs_of_weight_0_are_left_out(regions):
    """Not even their being finite is asked for, and they get no gradient."""
    logits = outputs([(8, 12), (4, 6), (2, 3)])
    logits[2][:] = float("nan")
    logits = [output.requires_grad_() for output in logits]
    target = soft_target((2, 3, 8, 12), regions)
    loss = build("paper", regions)
    value = deep_soft_label_loss(loss, logits, (0.5, 0.5, 0.0), target)
    value.backward()
    assert value.isfinite()
    assert logits[2].grad is None
    assert value.item() == pytest.approx(deep_soft_label_loss(loss, logits[:2], (0.5, 0.5), target).item())
    with pytest.raises(ValueError, match="shorter"):
        deep_soft_label_loss(loss, logits, (0.5, 0.5), target)


def test_a_coarse_voxel_with_an_ignored_one_teaches_nothing():
    target = soft_target((1, 3, 4, 4), False)
    ignored = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    ignored[0, 0, 0, 0] = True
    logits = [output[:1].requires_grad_() for output in outputs([(4, 4), (2, 2)])]
    deep_soft_label_loss(build("paper", False), logits, (0.5, 0.5), target, ignored).backward()
    assert [output.grad[0, 0].eq(0).nonzero().tolist() for output in logits] == [[[0, 0]], [[0, 0]]]


def test_a_half_precision_target_is_averaged_in_float32():
    target = soft_target((2, 3, 8, 12), False).half()
    logits = outputs([(8, 12), (4, 6)], dtype=torch.float32)
    loss = build("paper", False)
    computed = deep_soft_label_loss(loss, logits, (0.5, 0.5), target)
    assert computed.dtype == torch.float32
    assert torch.equal(computed, deep_soft_label_loss(loss, logits, (0.5, 0.5), target.float()))


# Several processes


def test_two_processes_equal_one_on_the_joined_batch(tmp_path):
    """Values and gradients; a mask that leaves the halves different numbers of voxels, and an empty half."""
    shape, cases = (4, 3, 5, 4), []
    for recipe in RECIPES:
        for regions in (False, True):
            for masking in ("all", "some", "second half"):
                valid = mask(shape)
                valid[:2] &= masking != "second half"
                options = {"recipe": recipe, "regions": regions, "batch_dice": True}
                whole = {"logits": make_logits(shape), "target": soft_target(shape, regions), "valid": valid}
                whole["valid"] = None if masking == "all" else valid
                cases.append({"options": options, **whole})
    halves = [
        {key: value if key == "options" or value is None else value.chunk(2) for key, value in case.items()}
        for case in cases
    ]
    torch.save(halves, tmp_path / "cases.pt")
    torch.multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=2, join=True)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for case, *results in zip(cases, *ranks, strict=True):
        loss = SoftLabelLoss(**case["options"])
        value, gradient = value_and_gradient(loss, case["logits"], case["target"], case["valid"])
        mean = (results[0]["value"] + results[1]["value"]) / 2
        joined = torch.cat([result["gradient"] for result in results]) / 2  # DDP averages over the processes
        torch.testing.assert_close(mean, value, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(joined, gradient, rtol=1e-6, atol=1e-8)
