"""Text and tables in Markdown."""

import re
from collections.abc import Sequence

from nnunetv2_hlfd.utilities.text import printable


def as_plain(text: str) -> str:
    r"""Return a text in one line that holds neither HTML nor links, whoever has named what it names.

    >>> as_plain("p < 0.05\n# <b>x</b> [here](javascript:y)")
    'p < 0.05 # &lt;b>x&lt;/b> [here]\\(javascript:y)'
    """
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", printable(text)).replace("](", "]\\(")


def _cell(text: str) -> str:
    r"""Keep what looks like the end of the cell inside it; a backslash before it would take away that of its own."""
    return re.sub(r"\\*\|", r"\|", as_plain(text))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table whose source is aligned, too, of cells without HTML and links."""
    head, *rows = ([_cell(text) for text in row] for row in (head, *rows))
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (head, *rows)
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)
