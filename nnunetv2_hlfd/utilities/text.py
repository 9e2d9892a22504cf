"""Words for messages."""

from collections.abc import Iterable


def some_names(cases: Iterable[str]) -> str:
    """List a few of the names, and how many more there are."""
    names = sorted(cases)
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" if names else "none"
