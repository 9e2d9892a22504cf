"""torch.compile around the student: what is captured, taught and learned is what the uncompiled network gives.

nnU-Net compiles on CUDA only. Here a subclass compiles on the CPU with the backend aot_eager: the same tracing, graph
breaks, guards and backward graphs as on a GPU, without code generation. docs/benchmarks/gpu_check.py compares inductor.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import make_trainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters
from torch._functorch import config as functorch_config

from nnunetv2_hlfd.distillation.taps import EncoderCapture

METHODS = ("HLFD", pytest.param("FitNet", marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def compiled_class():
    """A trainer's class whose network is compiled where nnU-Net compiles it, at the end of building it."""

    def compiled(method, backend):
        plain = recursive_find_trainer_class_by_name(f"nnUNetTrainer{method}")

        class Compiled(plain):
            def configure_optimizers(self):  # what nnU-Net calls after torch.compile
                self.network = torch.compile(self.network, backend=backend)
                return super().configure_optimizers()

        Compiled.__name__ = plain.__name__
        return Compiled

    return compiled


@pytest.fixture
def pair(nnunet, variant, teacher_2d, compiled_class, monkeypatch):
    """Two started trainers of one seed, the second one compiled, and what compiled it."""

    def make(method, **settings):
        monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
        plans = variant(
            f"compiled.{method}" + "".join(map(str, settings.values())), base="nnUNetPlans_short", **settings
        )
        eager = make_trainer(nnunet, f"nnUNetTrainer{method}", plans)
        torch._dynamo.reset()
        counters.clear()
        backend = CompileCounterWithBackend("aot_eager")
        own = compiled_class(method, backend)
        compiled = make_trainer(nnunet, f"nnUNetTrainer{method}", plans, trainer_class=own)
        for each in (eager, compiled):
            each.on_train_start()
            each.on_epoch_start()
            each.on_train_epoch_start()
        return eager, compiled, backend

    return make


def gradients(trainer):
    """Zeros for none: the head that nnU-Net gives weight 0 has none in eager mode, and zeros compiled."""
    named = [*trainer._inner_network().named_parameters(), *trainer.distiller.method.named_parameters()]
    return {name: torch.zeros_like(each) if each.grad is None else each.grad.clone() for name, each in named}


@pytest.mark.parametrize("method", METHODS)
def test_taps_losses_and_gradients_of_a_compiled_student_equal_the_eager_ones(pair, method, monkeypatch):
    eager, compiled, backend = pair(method)
    taken = []
    take = EncoderCapture.take
    monkeypatch.setattr(EncoderCapture, "take", lambda self: taken.append(take(self)) or taken[-1])
    for _step in range(3):
        batch = next(eager.dataloader_train)
        taken.clear()
        losses = [each.train_step(batch) for each in (eager, compiled)]
        assert len(taken[0]) == len(taken[1]) == 4
        for one, other in zip(*taken, strict=True):
            torch.testing.assert_close(other, one)
        torch.testing.assert_close(torch.tensor(losses[1]["loss"]), torch.tensor(losses[0]["loss"]))
        torch.testing.assert_close(torch.tensor(losses[1]["terms"]), torch.tensor(losses[0]["terms"]))
        ours, theirs = gradients(eager), gradients(compiled)
        assert ours.keys() == theirs.keys()
        assert any(gradient.abs().max() > 0 for gradient in ours.values())
        for name, gradient in ours.items():
            torch.testing.assert_close(theirs[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert type(compiled.network).__name__ == "OptimizedModule"
    assert backend.frame_count >= 1, "the student was never compiled"


@pytest.mark.parametrize(("features", "modules"), [("encoder", 2), ("decoder", 1)])
def test_a_compiled_teacher_says_what_the_uncompiled_one_says(pair, features, modules):
    eager, compiled, _backend = pair("HLFD", teacher_features=features)
    backend = CompileCounterWithBackend("aot_eager")
    names = set(compiled.distiller.teacher.networks[0].network.state_dict())
    compiled.distiller.teacher.compile(backend=backend)
    for _step in range(2):
        data = next(eager.dataloader_train)["data"]
        one, other = (each.distiller.ask_teacher(data).networks[0] for each in (eager, compiled))
        for part in ("features", "logits", "decoded"):
            torch.testing.assert_close(list(getattr(other, part)), list(getattr(one, part)))
    assert len(one.decoded) > 0 or features == "encoder"
    assert backend.frame_count == modules
    assert set(compiled.distiller.teacher.networks[0].network.state_dict()) == names


def test_source_ratios_of_a_compiled_student_equal_the_eager_ones(pair):
    eager, compiled, backend = pair("KD", source_ratio=True)
    batch = next(eager.dataloader_train)
    ratios = [each.train_step(batch)["ratios"] for each in (eager, compiled)]
    assert len(ratios[0]) == 1
    torch.testing.assert_close(torch.tensor(ratios[1]), torch.tensor(ratios[0]))
    for name, gradient in gradients(eager).items():
        torch.testing.assert_close(gradients(compiled)[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert backend.frame_count >= 1, "the student was never compiled"


@pytest.fixture
def donated_buffers():
    """As torch has it by default: the backward pass of a compiled graph may give its buffers away."""
    with functorch_config.patch(donated_buffer=True):
        yield


def test_balanced_gradients_of_a_compiled_student_equal_the_eager_ones(pair, donated_buffers):
    """A gradient for each term runs the compiled backward pass several times; buffers must not be given away.

    aot_eager gives none away: that it would fail without the switch can only be seen with inductor.
    """
    eager, compiled, backend = pair("HLFD", balance="project")
    assert not functorch_config.donated_buffer
    for _step in range(2):
        batch = next(eager.dataloader_train)
        losses = [each.train_step(batch) for each in (eager, compiled)]
        torch.testing.assert_close(torch.tensor(losses[1]["terms"]), torch.tensor(losses[0]["terms"]))
        ours, theirs = gradients(eager), gradients(compiled)
        for name, gradient in ours.items():
            torch.testing.assert_close(theirs[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert backend.frame_count >= 1, "the student was never compiled"


def test_the_gate_of_the_capture_works_in_a_compiled_network(pair):
    """Off, on and off again: nothing is kept in validation, and every training step keeps its own maps."""
    eager, compiled, backend = pair("HLFD")
    data = next(eager.dataloader_train)["data"]
    with torch.no_grad():
        for turn in range(2):
            compiled.distiller._capture.enabled = False
            compiled.network(data)
            with pytest.raises(RuntimeError, match="captured 0"):
                compiled.distiller._capture.take()
            compiled.distiller._capture.enabled = True
            compiled.network(data + turn)
            compiled.distiller._capture.enabled = False
            expected = eager._inner_network().encoder(data + turn)
            torch.testing.assert_close(compiled.distiller._capture.take(), expected)
            with pytest.raises(RuntimeError, match="captured 0"):
                compiled.distiller._capture.take()
    frames = backend.frame_count
    assert frames >= 1
    with torch.no_grad():
        compiled.network(data)
    assert backend.frame_count == frames, "turning the gate must not compile again and again"


def test_a_compiled_run_validates_and_its_checkpoint_is_that_of_a_plain_network(pair):
    eager, compiled, _backend = pair("HLFD")
    for each in (eager, compiled):
        each.on_train_epoch_end([each.train_step(next(each.dataloader_train))])
        each.network.eval()
        step = each.validation_step(next(each.dataloader_val))
        assert step["loss"] > 0
    file = Path(compiled.output_folder) / "checkpoint_compiled.pth"
    compiled.save_checkpoint(str(file))
    eager.load_checkpoint(str(file))
    for one, other in zip(eager.network.parameters(), compiled._inner_network().parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_the_check_for_gpus_runs_on_a_cpu_and_says_that_this_proves_nothing_about_gpus(
    nnunet, variant, teacher_2d, monkeypatch
):
    monkeypatch.setenv("nnUNet_hlfd_teacher", str(teacher_2d.parent))
    script = Path(__file__).parents[2] / "docs/benchmarks/gpu_check.py"
    command = [sys.executable, str(script), "Dataset901_Phantom", "2d", variant("gpucheck"), "-device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.rstrip().endswith("No GPU was used: this run only shows that the script works.")
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith(("| compiled", "| eager"))]
    quantities = {"HLFD": 4 + 4, "HLFD_balanced": 4 + 4, "SoftLabel": 4 + 1, "KD": 4 + 2}  # KD's term has a ratio
    assert len(rows) == 3 * sum(quantities.values()), (
        "total, segmentation, the terms, student's and adapters' gradients"
    )
    assert any(float(row[2]) > 0 for row in rows), "something was compared"
    assert not any("FAILED" in row[-1] for row in rows)
