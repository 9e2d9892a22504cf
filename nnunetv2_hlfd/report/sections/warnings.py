"""What stands above all numbers."""

from nnunetv2_hlfd.models.record import source_networks
from nnunetv2_hlfd.report.arms import student_alone
from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.models import Model

_FEW_CASES = 30


def warnings(found: Findings) -> list[str]:
    """Why a reader should be careful."""
    warnings = []
    seen = [arm.name for arm in found.students if any(map(_may_have_seen, arm.models))]
    if seen:
        warnings.append(f"The teacher of {', '.join(seen)} may have seen validation cases: these results mean little.")
    num_cases, seeds = found.num_cases, min(len(arm.models) for arm in found.students)
    if num_cases < _FEW_CASES:
        warnings.append(f"{num_cases} cases cannot carry a conclusion about a method. Add the other folds.")
    if seeds < 2:
        warnings.append("Arms with a single run: nothing is known about the spread over seeds. Add runs.")
    if student_alone(found.students) is None:
        warnings.append("No student alone (nnUNetTrainerStudent) among the folders: what distillation adds is unknown.")
    return warnings


def _may_have_seen(model: Model) -> bool:
    networks = [network for record in model.records.values() for network in source_networks(record)]
    return any(network.get("may_have_seen_validation_cases") for network in networks)
