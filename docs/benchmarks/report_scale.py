"""Seconds and memory of a report over 210 cases x 20 runs, on validation results made up by the tests.

python docs/benchmarks/report_scale.py
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from nnunetv2_hlfd.report.write import write_report

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))
from report_folders import cases, write_model

CASES, RUNS, SEEDS = 210, 20, 4


def main() -> None:
    """Five arms of four seeds, two labels, beside a teacher."""
    random = np.random.default_rng(0)
    easy = random.uniform(0.3, 0.8, (CASES, 1))
    with tempfile.TemporaryDirectory() as folder:
        teacher = write_model(folder, "nnUNetTrainer", cases(*(easy + np.array([0.2, 0.1]))), kind="labels")
        students = [
            write_model(
                folder,
                f"nnUNetTrainer{name}",
                cases(*(easy + random.normal(0, 0.05, (CASES, 2)))),
                kind="labels",
                plans=f"{name}.s{seed}",
                settings={"beta": 0.9},
                seed=seed,
                title=name,
            )
            for name in ("Student", "HLFD", "KD", "AT", "CWD")
            for seed in range(RUNS // SEEDS - 1)
        ]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        write_report(teacher, students, Path(folder) / "report")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{CASES} cases x {len(students)} runs: {time.perf_counter() - start:.1f} s, peak memory {after / 2**10:.0f} "
        f"MiB, {(after - before) / 2**10:.0f} MiB above the imports"
    )


if __name__ == "__main__":
    main()
