"""One of two processes that compute a soft-label loss together over gloo, each on its half of a batch."""

from pathlib import Path

import torch
import torch.distributed as dist

from nnunetv2_hlfd.losses.soft_labels import SoftLabelLoss


def work(rank, folder):
    """Entry point of a process: `cases.pt` in `folder` holds the cases, its results go to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = []
    for case in torch.load(Path(folder) / "cases.pt"):
        logits, target, valid = (
            None if case[key] is None else case[key][rank] for key in ("logits", "target", "valid")
        )
        logits.requires_grad_()
        value = SoftLabelLoss(**case["options"], ddp=True)(logits, target, valid)
        value.backward()
        results.append({"value": value.detach(), "gradient": logits.grad})
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
