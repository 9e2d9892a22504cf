"""What the networks cost."""

from nnunetv2_hlfd.report.costs import machine
from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.page import Section, Table

_BYTES_PER_PARAMETER = 4  # fp32


def networks(found: Findings) -> list[Section]:
    """Parameters, operations, latency."""
    rows, missing = [], []
    for name, cost in found.costs.items():
        parameters = cost.size.parameters if cost.size else None
        rows.append(
            [
                name,
                cost.checkpoint or "-",
                f"{parameters / 1e6:.3g} M" if parameters else "-",
                f"{cost.size.macs / 1e9:.3g}" if cost.size else "-",
                f"{parameters * _BYTES_PER_PARAMETER / 1e6:.1f} MB" if parameters else "-",
                f"{cost.checkpoint_bytes / 1e6:.1f} MB" if cost.checkpoint_bytes else "-",
                f"{1e3 * cost.latency:.1f} ms" if cost.latency else "-",
            ]
        )
        if cost.missing:
            missing.append(f"{name}: {cost.missing}")
    note = f"GMAC and latency of one patch, batch 1, median of 7 forward passes on this machine: {machine()}. The "
    note += "checkpoint also holds the optimizer's state; nnUNetv2_hlfd export leaves it out."
    if missing:
        note += f" Not available: {'; '.join(missing)}"
    head = ["Arm", "Measured", "Parameters", "GMAC", "Weights, fp32", "Checkpoint", "Latency"]
    return [Section(title="Networks", content=[Table(head=head, rows=rows)], note=note)]
