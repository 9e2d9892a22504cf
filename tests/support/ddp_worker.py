"""One of two processes that train together on a CPU: real DistributedDataParallel over gloo."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from helpers import make_trainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch.nn.parallel import DistributedDataParallel

STEPS = 3


def trainer_class(trainer):
    """The trainer on the CPU where nnU-Net expects one GPU for each process."""
    plain = recursive_find_trainer_class_by_name(trainer)

    class OnCPU(plain):
        def __init__(self, plans, configuration, fold, dataset_json, device):
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.device, self.grad_scaler = torch.device("cpu"), None

        def _build_loss(self):
            """Weight 1e-6 for the deepest output in one process too, as nnU-Net does under DDP (0 otherwise)."""
            loss = super()._build_loss()
            weights = [1 / 2**i for i in range(len(loss.weight_factors))]
            weights[-1] = 1e-6
            loss.weight_factors = tuple(each / sum(weights) for each in weights)
            return loss

    OnCPU.__name__ = plain.__name__
    return OnCPU


def train(root, trainer, plans, dataset, batch):
    """Take STEPS steps on one batch; what a process sees of them."""
    run = make_trainer(root, trainer, plans, dataset=dataset, trainer_class=trainer_class(trainer))
    run.on_train_start()
    run.on_epoch_start()
    run.on_train_epoch_start()
    network = run._inner_network()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # nnU-Net's residual blocks start as identities, in which most gradients are zero
        for each in (*network.parameters(), *run.distiller.method.parameters()):
            each += 0.05 * torch.randn(each.shape, generator=generator)
    outputs, gradients = [], []
    for _ in range(STEPS):
        outputs.append(run.train_step(batch))
        named = [
            *network.named_parameters(),
            *((f"adapter {n}", p) for n, p in run.distiller.method.named_parameters()),
        ]
        gradients.append({name: each.grad.clone() for name, each in named})
    run.on_train_epoch_end(outputs)
    return {
        "gradients": gradients,
        "adapters": run.distiller.method.state_dict(),
        "network": network.state_dict(),
        "terms": torch.tensor([each["terms"] for each in outputs]),
        "log": run.distiller.log.rows,
        "batch_size": run.batch_size,
        "wrapped": type(run.network).__name__,
        "loss": float(run.logger.get_value("train_losses", step=0)),
    }


def work(rank, folder, root, trainer, plans, dataset):
    """Entry point of a process: its half of the batch in `folder`, its results into `folder`."""
    folder = Path(folder)
    torch.set_num_threads(1)
    nnunet = sys.modules[nnUNetTrainer.__module__]
    nnunet.DDP = lambda network, device_ids: DistributedDataParallel(network)  # device_ids are GPUs
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    batch = torch.load(folder / "batch.pt")
    half = slice(rank * len(batch["data"]) // 2, (rank + 1) * len(batch["data"]) // 2)
    batch = {"data": batch["data"][half], "target": [each[half] for each in batch["target"]]}
    torch.save(train(Path(root), trainer, plans, dataset, batch), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
