"""Words for messages, and names in recorded paths."""

import re
from collections.abc import Iterable


def some_names(cases: Iterable[str]) -> str:
    """List a few of the names, and how many more there are."""
    names = sorted(cases)
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" if names else "none"


def file_name(recorded: str) -> str:
    r"""Return the last part of a path that Windows or another system has recorded.

    >>> file_name(r"D:\\results\\fold_0\\validation\\case.1.nii.gz"), file_name("/results/case.1.nii.gz")
    ('case.1.nii.gz', 'case.1.nii.gz')
    """
    return re.split(r"[/\\]", recorded)[-1]


def one_line(text: object) -> str:
    """Return a text of somebody else with single spaces only, as for a cell of a table."""
    return " ".join(str(text).split())
