"""The prediction benchmark's table, raw numbers and plot."""

import csv
import io
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_hlfd.benchmark.rung import STAGES, Timing
from nnunetv2_hlfd.utilities.atomic import write_files
from nnunetv2_hlfd.utilities.device import processor_name
from nnunetv2_hlfd.utilities.markdown import markdown_table

_PACKAGES = ("nnunetv2_hlfd", "nnunetv2", "torch", "openvino", "nncf")


def write_ladder(
    output: Path, timings: Mapping[str, Timing], dice: Mapping[str, float], about: Mapping[str, Any]
) -> Path:
    """Write ladder.md, ladder.csv (every case), ladder.json (the rest) and ladder.png, and print the first.

    Args:
        output: folder.
        timings: of each rung.
        dice: mean Dice of each rung; empty without labels.
        about: models, patch, device, threads, and the networks' rooflines.

    Returns:
        ladder.md.
    """
    about = {
        **about,
        "processor": processor_name(),
        "versions": {package: version(package) for package in _PACKAGES},
        "cases": len(next(iter(timings.values())).cases),
        "rungs": {
            name: {"start_up": timing.start_up, "peak_memory": timing.peak_memory, "dice": dice.get(name)}
            for name, timing in timings.items()
        },
    }
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["rung", "case", *STAGES])
    for name, timing in timings.items():
        for case, seconds in timing.cases.items():
            writer.writerow([name, case, *(f"{seconds[stage]:.5f}" for stage in STAGES)])
    text = _markdown(about, timings, dice)
    print(text)
    contents = {
        "ladder.json": json.dumps(about, indent=4) + "\n",
        "ladder.csv": table.getvalue(),
        "ladder.md": text,
    }
    write_files(output, {"ladder.png": _plot(timings), **{name: words.encode() for name, words in contents.items()}})
    return output / "ladder.md"


def _markdown(about: Mapping[str, Any], timings: Mapping[str, Timing], dice: Mapping[str, float]) -> str:
    first = _mean_total(next(iter(timings.values())))  # what the others are faster than
    head = [
        "Rung",
        "Start-up",
        *(f"{stage.capitalize()}" for stage in STAGES),
        "Case",
        "Times faster",
        "Cases per min",
        "Peak memory",
        *(["Dice"] if dice else []),
    ]
    rows = []
    for name, timing in timings.items():
        total = _mean_total(timing)
        memory = f"{timing.peak_memory / 2**30:.2f} GiB" if timing.peak_memory else "-"
        means = [f"{_mean(timing, stage):.3f}" for stage in STAGES]
        rows.append(
            [
                name,
                f"{timing.start_up:.1f}",
                *means,
                f"{total:.3f}",
                f"{first / total:.1f}",
                f"{60 / total:.1f}",
                memory,
                *([f"{dice[name]:.4f}"] if dice else []),
            ]
        )
    parts = [
        f"{about['processor']}, {about['threads']} threads, device {about['device']}; "
        + ", ".join(f"{package} {number}" for package, number in about["versions"].items())
        + f"; patch {about['patch']}, {about['cases']} cases. Seconds are means over the cases.",
        markdown_table(head, rows),
    ]
    return "\n\n".join([*parts, *(_networks(about["networks"]) if about["networks"] else [])]) + "\n"


def _networks(lines: list[dict[str, Any]]) -> list[str]:
    rows = [
        [
            line["network"],
            line["backend"],
            f"{line['gflops']:.2f}",
            f"{line['mbytes']:.0f}",
            f"{line['bound_ms']:.1f}",
            f"{line['measured_ms']:.1f}",
            f"{line['measured_ms'] / line['bound_ms']:.2f}",
        ]
        for line in lines
    ]
    head = ["Network", "Backend", "GFLOP", "MB moved", "Bound, ms", "Measured, ms", "Ratio"]
    machine = lines[0]
    return [
        f"One patch through the network alone, beside its roofline ({machine['peak_gflops_per_s']:.0f} GFLOP/s of a "
        f"convolution, {machine['bandwidth_gb_per_s']:.1f} GB/s of a copy, both measured here):",
        markdown_table(head, rows),
    ]


def _mean_total(timing: Timing) -> float:
    return float(np.mean([sum(seconds.values()) for seconds in timing.cases.values()]))


def _mean(timing: Timing, stage: str) -> float:
    return float(np.mean([seconds[stage] for seconds in timing.cases.values()]))


def _plot(timings: Mapping[str, Timing]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.45 * len(timings) + 2.5), layout="constrained")
    axes = figure.subplots()
    names = list(timings)
    left = np.zeros(len(names))
    for stage in STAGES:
        width = np.array([_mean(timing, stage) for timing in timings.values()])
        axes.barh(names, width, left=left, label=stage)
        left += width
    for row, total in enumerate(left):
        axes.annotate(f" {total:.2f} s", (total, row), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="seconds per case", xlim=(0, left.max() * 1.12))
    axes.legend(loc="lower right")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()
