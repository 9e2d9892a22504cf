"""The site and the pages that repeat something of the code; `make docs` builds the site."""

import ast
import json
import re

import pytest
import yaml
from source_imports import PACKAGE, ROOT

import nnunetv2_hlfd
from nnunetv2_hlfd.utilities.text import without_folders

DOCS = ROOT / "docs"
RESULTS = re.compile(r"benchmarks/[^/]+/")


def _pages(nav):
    """The files that a part of the navigation names."""
    for entry in nav:
        yield from [entry] if isinstance(entry, str) else (page for part in entry.values() for page in _pages(part))


def _messages():
    """Every text of the package; what is filled in is an ellipsis."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_navigation_names_every_page_once():
    navigation = sorted(_pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))
    assert navigation == [page for page in pages if not RESULTS.match(page)]


def test_raw_results_name_no_folder_of_the_machine():
    files = list((DOCS / "benchmarks").rglob("*.json"))
    assert files
    for file in files:
        content = json.loads(file.read_text(encoding="utf-8"))
        assert content == without_folders(content), file


def test_api_reference_shows_every_public_name():
    shown = re.findall(r"^::: nnunetv2_hlfd\.(\w+)$", (DOCS / "reference/api.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(nnunetv2_hlfd.__all__)


def test_the_messages_of_the_troubleshooting_page_are_the_codes():
    quoted = re.findall(r"^\| `([^`]+)` \|", (DOCS / "how-to/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) > 10
    messages = "\n".join(_messages())
    for message in quoted:
        pattern = ".*".join(map(re.escape, message.split("...")))
        assert re.search(pattern, messages), message


def test_templates_of_issues_are_forms_and_a_problem_needs_the_record():
    folder = ROOT / ".github/ISSUE_TEMPLATE"
    forms = {file.stem: yaml.safe_load(file.read_text()) for file in folder.glob("*.yml") if file.stem != "config"}
    for form in forms.values():
        assert form["name"]
        assert form["description"]
        assert all(field["type"] == "markdown" or field["attributes"]["label"] for field in form["body"])
    for name in ("problem", "result"):
        [record] = [field for field in forms[name]["body"] if field["attributes"].get("label") == "distillation.json"]
        assert record["validations"] == {"required": True}


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    page = (tmp_path / "reference/paper_to_code.html").read_text(encoding="utf-8")
    assert page.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"') == 3
