"""Where the site differs from the repository: links to folders and out of docs/, names of code blocks, equations.

MkDocs calls these functions (https://www.mkdocs.org/user-guide/configuration/#hooks).
"""

import html
import re
from pathlib import Path
from posixpath import relpath
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_LINK = re.compile(r"\]\(([^):#\s]+)\)")
_RESULTS = "benchmarks"
_NAMED_BLOCK = re.compile(r"^```(\w+) +([\w./-]+)$", re.MULTILINE)
_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> None:
    """Give every folder of raw results a page that lists its files."""
    for folder in sorted(path for path in Path(config.docs_dir, _RESULTS).rglob("*") if path.is_dir()):
        names = sorted(path.name for path in folder.iterdir())
        links = [f"- [{name}]({name}{_page_of(folder / name)})" for name in names]
        place = f"{folder.relative_to(config.docs_dir).as_posix()}/README.md"
        files.append(File.generated(config, place, content="\n".join([f"# {folder.name}", "", *links])))


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to the pages of folders, carry linked files of the repository along, and title named code blocks."""
    docs = Path(config.docs_dir)
    here = Path(page.file.src_uri).parent

    def on_site(link: re.Match[str]) -> str:
        target = (docs / here / link[1]).resolve()
        if target.is_relative_to(docs):
            return f"]({link[1]}{_page_of(target)})"
        place = f"repository/{target.relative_to(docs.parent).as_posix()}"
        if not files.get_file_from_path(place):
            files.append(File.generated(config, place, abs_src_path=str(target)))
        return f"]({relpath(place, here.as_posix())})"

    return _NAMED_BLOCK.sub(r'```\1 title="\2"', _LINK.sub(on_site, markdown))


def on_page_content(content: str, **_: Any) -> str:
    """Write equations as MathML, which browsers render without a script."""

    def equation(match: re.Match[str]) -> str:
        return convert(html.unescape(match[2]), display="block" if match[1] == "div" else "inline")

    return _EQUATION.sub(equation, content)


def _page_of(path: Path) -> str:
    return "/README.md" if path.is_dir() else ""
