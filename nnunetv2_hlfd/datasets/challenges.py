"""The data sets that `nnUNetv2_hlfd convert` reads, and how it tells what came out."""

from collections.abc import Mapping

from nnunetv2_hlfd.datasets.challenge import Challenge
from nnunetv2_hlfd.datasets.conversion import REPORT_FILE, Conversion
from nnunetv2_hlfd.datasets.kits19 import KITS19
from nnunetv2_hlfd.datasets.lits import LITS

CHALLENGES: Mapping[str, Challenge] = {challenge.name: challenge for challenge in (KITS19, LITS)}


def summary(conversion: Conversion) -> str:
    """Name every case that was not simply converted, and say where the details stand."""
    repaired, unlabelled = conversion.names("repaired"), conversion.names("unlabelled")
    lines = [f"Skipped {row['case']}: {row['reason']}" for row in conversion.rows if row["state"] == "skipped"]
    if unlabelled:
        lines.append(f"Skipped, as they have no label: {', '.join(unlabelled)}")
    if repaired:
        lines.append(f"Labels that got their image's geometry (header noise): {', '.join(repaired)}")
    good, bad = len(conversion.names("converted", "repaired")), len(conversion.names("skipped"))
    lines.append(f"{good} cases in {conversion.folder}, {bad} labeled cases skipped. Details: {REPORT_FILE}")
    return "\n".join(lines)
