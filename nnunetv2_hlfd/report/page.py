"""The report as Markdown and as one HTML page that needs nothing else."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from nnunetv2_hlfd.utilities.markdown import markdown_table

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2433; background: #fff; margin: 0 auto; max-width: 76rem;
       padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
p, li { max-width: 52rem; } .table { overflow-x: auto; margin: .8rem 0; } .note { color: #566072; font-size: .9rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #dde2ea; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { border-bottom: 2px solid #98a2b3; }
.text td { white-space: normal; text-align: left; vertical-align: top; min-width: 8rem; overflow-wrap: anywhere; }
.text th { text-align: left; }
.warning { border-left: 4px solid #c77700; background: #fff6e6; padding: .5rem .9rem; margin: .6rem 0; }
details { margin: .8rem 0; } summary { cursor: pointer; }
@media (prefers-color-scheme: dark) {
  body { color: #e4e8ef; background: #14181f; } .note { color: #a3adbd; }
  th, td { border-color: #333b49; } thead th { border-color: #6b7688; }
  .warning { background: #3a2c10; } img { background: #fff; }
}
@media print { body { max-width: none; } .table { overflow: visible; } table { font-size: .7rem; }
  th, td { white-space: normal; padding: .15rem .3rem; } img, tr { break-inside: avoid; } }
img { max-width: 100%; height: auto; }
"""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text; the first column names the row.

    Attributes:
        summary: the table opens on a click on it in HTML.
        is_text: long cells, which are wrapped; those of other tables are numbers.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str = ""
    is_text: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure, the name of its file beside report.md, and what it shows in words."""

    figure: Figure
    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, what stands below it, and a note on how to read it."""

    title: str
    content: Sequence[Table | Picture | str]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report."""

    title: str
    warnings: Sequence[str]
    sections: Sequence[Section]

    @property
    def pictures(self) -> list[Picture]:
        """All figures."""
        return [content for section in self.sections for content in section.content if isinstance(content, Picture)]


def to_markdown(page: Page) -> str:
    """Pictures are linked by their names."""
    parts = [f"# {page.title}", *(f"**Warning:** {warning}" for warning in page.warnings)]
    for section in page.sections:
        parts.append(f"## {section.title}")
        for content in section.content:
            if isinstance(content, Table):
                parts += [f"{content.summary}:"] if content.summary else []
                parts.append(markdown_table(content.head, content.rows))
            else:
                parts.append(f"![{content.text}]({content.name})" if isinstance(content, Picture) else content)
        if section.note:
            parts.append(f"*{section.note}*")
    return "\n\n".join(parts) + "\n"


def to_html(page: Page) -> str:
    """Pictures and style are inside."""
    title = html.escape(page.title)
    parts = [f"<h1>{title}</h1>", *(f'<p class="warning">{html.escape(warning)}</p>' for warning in page.warnings)]
    for section in page.sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [_html(content) for content in section.content]
        if section.note:
            parts.append(f'<p class="note">{html.escape(section.note)}</p>')
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _html(content: Table | Picture | str) -> str:
    if isinstance(content, str):
        return f"<p>{html.escape(content)}</p>"
    if isinstance(content, Picture):
        data = base64.b64encode(to_png(content.figure)).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{html.escape(content.text)}">'
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in content.head)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in content.rows
    )
    kind = "table text" if content.is_text else "table"
    table = f'<div class="{kind}"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'
    return (
        f"<details><summary>{html.escape(content.summary)}</summary>\n{table}</details>" if content.summary else table
    )


def to_png(figure: Figure) -> bytes:
    """The figure as a file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
