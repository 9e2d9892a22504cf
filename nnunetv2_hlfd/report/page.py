"""The report as Markdown and as one HTML page that needs nothing else; page.css and page.js are inside."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from matplotlib.figure import Figure

from nnunetv2_hlfd.utilities.markdown import as_plain, markdown_table
from nnunetv2_hlfd.utilities.text import printable

_LONG = 12  # rows


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text.

    Attributes:
        num_names: how many columns name the row: 1 to 3.
        summary: the table opens on a click on it in HTML.
        is_text: long cells, which are wrapped; those of other tables are numbers.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_names: int = 1
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
    parts = [f"# {as_plain(page.title)}", *(f"**Warning:** {as_plain(warning)}" for warning in page.warnings)]
    for section in page.sections:
        parts.append(f"## {as_plain(section.title)}")
        for content in section.content:
            if isinstance(content, Table):
                parts += [f"{as_plain(content.summary)}:"] if content.summary else []
                parts.append(markdown_table(content.head, content.rows))
            elif isinstance(content, Picture):
                parts.append(f"![{as_plain(content.text)}]({content.name})")
            else:
                parts.append(as_plain(content))
        if section.note:
            parts.append(f"*{as_plain(section.note)}*")
    return "\n\n".join(parts) + "\n"


def to_html(page: Page) -> str:
    """Pictures, style and script are inside."""
    title = _escape(page.title)
    parts = [f"<h1>{title}</h1>", *(f'<p class="warning">{_escape(warning)}</p>' for warning in page.warnings)]
    for section in page.sections:
        parts.append(f"<h2>{_escape(section.title)}</h2>")
        parts += [_html(content) for content in section.content]
        if section.note:
            parts.append(f'<p class="note">{_escape(section.note)}</p>')
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>\n{_read('page.css')}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<script>\n{_read('page.js')}</script>\n</body>\n</html>\n"
    )


def _html(content: Table | Picture | str) -> str:
    if isinstance(content, str):
        return f"<p>{_escape(content)}</p>"
    if isinstance(content, Picture):
        data = base64.b64encode(to_png(content.figure)).decode()
        image = f'<img src="data:image/png;base64,{data}" alt="{_escape(content.text)}">'
        return f'<div class="picture">{image}</div>'
    head = "".join(f'<th scope="col">{_escape(cell)}</th>' for cell in content.head)
    rows = "\n".join("<tr>" + "".join(f"<td>{_escape(cell)}</td>" for cell in row) + "</tr>" for row in content.rows)
    kind = ["table", "text" if content.is_text else f"names-{content.num_names}"]
    if len(content.rows) > _LONG and not content.is_text:
        kind.append("long")
    table = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    table = f'<div class="{" ".join(kind)}">{table}</div>'
    return f"<details><summary>{_escape(content.summary)}</summary>\n{table}</details>" if content.summary else table


def _escape(text: str) -> str:
    return html.escape(printable(text))


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def to_png(figure: Figure) -> bytes:
    """The figure as a file's content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
