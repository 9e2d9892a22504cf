"""The base of all distillation trainers. Loss weights are applied here and nowhere else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, autocast
from torch._functorch import config as functorch_config
from torch.profiler import record_function

from nnunetv2_hlfd.distillation.log import mean_of_known
from nnunetv2_hlfd.training.backward import backward, balanced_backward, step, weigh
from nnunetv2_hlfd.training.balance import Choice
from nnunetv2_hlfd.training.distiller import STEP_PARTS
from nnunetv2_hlfd.training.schedule import distillation_ramp
from nnunetv2_hlfd.training.taught_trainer import TaughtTrainer


class DistillationTrainer(TaughtTrainer):
    """A student that learns from a frozen teacher, step by step."""

    _step_of_epoch = 0

    def initialize(self) -> None:
        """As the student's. A gradient for each term needs the compiled graph several times.

        torch.compile's backward graph gives the buffers of the forward pass away unless it is told not to before it
        compiles.
        """
        if self.settings.balance != "none" and hasattr(functorch_config, "donated_buffer"):
            functorch_config.donated_buffer = False
            if self._do_i_compile():
                self.print_to_log_file("balance: torch._functorch.config.donated_buffer is switched off")
        super().initialize()

    def on_epoch_start(self) -> None:
        """As nnU-Net; an epoch starts with a step that the teacher teaches."""
        super().on_epoch_start()
        self._step_of_epoch = 0

    def train_step(self, batch: dict) -> dict:
        """One step on L_seg plus the weighted terms (Eq. 5); every term is computed and logged, also at weight 0.

        Steps between those of `teach_every`, and all after `distill_until`, are those of the student alone.
        """
        distilled = self._step_of_epoch % self.settings.teach_every == 0 and self._ramp() > 0
        self._step_of_epoch += 1
        if distilled:
            return self._distilled_step(batch)
        data, _ = self.distiller.split(batch["data"])
        loss = super().train_step({**batch, "data": data})["loss"]
        terms = np.array([loss, *(np.nan for _ in self.distiller.method.weights)])
        return {"loss": loss, "terms": terms, "ratios": np.full(len(self.distiller.log.ratio_terms), np.nan)}

    def _distilled_step(self, batch: dict) -> dict:
        data, shown = self.distiller.split(batch["data"].to(self.device, non_blocking=True))
        target = [output.to(self.device, non_blocking=True) for output in batch["target"]]
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device.type, enabled=self.device.type == "cuda"):
            teacher = self.distiller.ask_teacher(shown)
            with record_function(STEP_PARTS[1]):
                student = self.distiller.run_student(self.network, data)
                segmentation = self.loss(student.logits, target)
        terms = self.distiller.terms(student, teacher, target[0])
        with record_function(STEP_PARTS[3]):
            ratios = self.distiller.ratios(student, target[0])
            scaled = {name: ratios[name] * term if name in ratios else term for name, term in terms.items()}
            total, balanced = self._optimize(segmentation, scaled)
        losses = (total, segmentation, *terms.values())
        values = torch.stack([loss.detach().float() for loss in (*losses, *ratios.values())]).cpu().numpy()
        self._check_finite(dict(zip(("loss", "segmentation", *terms), values[: len(losses)], strict=True)))
        return {"loss": values[0], "terms": values[1 : len(losses)], "ratios": values[len(losses) :], **balanced}

    def _ramp(self) -> float:
        """Share of the distillation weights in this epoch."""
        return distillation_ramp(
            self.current_epoch,
            self.num_epochs,
            warmup_epochs=self.settings.warmup_epochs,
            until=self.settings.distill_until,
            decay=self.settings.distill_decay,
        )

    def _optimize(self, segmentation: Tensor, terms: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        """Backward and step on the total loss; returns it, and what the balance of the gradients did, for the log."""
        method, balanced = self.distiller.method, {}
        factors = {name: factor for name, factor in self.distiller.factors(self._ramp()).items() if factor != 0}
        reference, weighted = weigh(segmentation, terms, factors, method.segmentation_terms)
        total = sum(weighted.values(), start=reference)
        adapters = list(method.parameters())
        if self.settings.balance == "none" or not weighted:
            backward(total, adapters, self.grad_scaler, self.is_ddp)
        else:
            record = balanced_backward(
                reference,
                weighted,
                self._inner_network(),
                adapters,
                self.grad_scaler,
                self.is_ddp,
                cast(Choice, self.settings.balance),
                self.settings.balance_ratio,
            )
            balanced = {"balance": record}
        step(self.optimizer, self.network, adapters, self.grad_scaler)
        return total, balanced

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Log nnU-Net's loss, every named term, and what the balance of the gradients kept of it."""
        super().on_train_epoch_end([{"loss": output["loss"]} for output in train_outputs])
        log, epoch, factors = self.distiller.log, self.current_epoch, self.distiller.factors(self._ramp())
        row = log.add(epoch, self._mean([output["terms"] for output in train_outputs]), factors)
        if log.ratio_terms:
            columns = [1 + log.term_names.index(name) for name in log.ratio_terms]
            pairs = [(output["ratios"], output["ratios"] * output["terms"][columns]) for output in train_outputs]
            ratios, scaled = self._mean(pairs)
            row |= log.add_ratios(ratios, scaled, factors)
        if self.settings.balance != "none":
            row |= log.add_balance(epoch, [output["balance"] for output in train_outputs if "balance" in output])
        for name, value in row.items():
            for logger in self.logger.loggers:
                logger.log(f"hlfd/{name}", value, epoch)

    def _mean(self, steps: list[Any]) -> Any:
        """Mean of what is known of the steps, over all processes."""
        mean = mean_of_known(steps)
        if not self.is_ddp:
            return mean
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, mean)
        return mean_of_known(gathered)

    def on_epoch_end(self) -> None:
        """As nnU-Net, and rewrite distillation_log.csv and its plot beside progress.png."""
        super().on_epoch_end()
        if self.local_rank == 0:
            self.distiller.log.write(Path(self.output_folder))
