"""The HTML page: one file, with what its tables need to be sorted and filtered."""

import re

import pytest

from nnunetv2_hlfd.report import page as module
from nnunetv2_hlfd.report.page import Page, Section, Table, to_html, to_markdown


def page(*tables):
    return Page(title="a < b", warnings=["c & d"], sections=[Section(title="T", content=tables, note="n")])


def table(number, **more):
    return Table(head=["Arm", "Dice"], rows=[[f"<arm {row}>", "0.5"] for row in range(number)], **more)


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        (table(12), "table names-1"),
        (table(13), "table names-1 long"),
        (table(13, num_names=2), "table names-2 long"),
        (table(13, is_text=True), "table text"),
    ],
)
def test_long_tables_of_numbers_scroll_below_their_heads(content, classes):
    assert re.findall(r'<div class="(.*?)">', to_html(page(content))) == [classes]


def test_style_and_script_are_inside_and_load_nothing():
    text = to_html(page(table(3)))
    [script] = re.findall(r"<script>\n(.*?)</script>", text, re.DOTALL)
    assert script == module._read("page.js")
    assert module._read("page.css") in text
    assert not re.search(r"https?:|url\(|@import|\bfetch\b|import\(", text)


@pytest.mark.faults("hostile files")
def test_text_is_no_markup():
    text = to_html(page(table(1)))
    assert "&lt;arm 0&gt;" in text
    assert "<arm" not in text
    assert "a &lt; b" in text
    assert "c &amp; d" in text


@pytest.mark.faults("hostile files")
def test_names_are_no_markup_in_markdown_and_turn_no_text_around():
    name = "<img src=x onerror=y>|\n# [a](javascript:b)\x1b[31m\u202e"
    hostile = Table(head=["arm", name], rows=[[name, "1"]], summary=name)
    content = Page(title=name, warnings=[name], sections=[Section(title=name, content=[hostile, name], note=name)])
    markdown = to_markdown(content)
    assert "<img" not in markdown
    assert "](" not in markdown
    assert [line for line in markdown.splitlines() if line.startswith("# ")] == markdown.splitlines()[:1]
    assert len([line for line in markdown.splitlines() if line.startswith("|")]) == 3
    for text in (markdown, to_html(content)):
        assert not {"\x1b", "\u202e"} & {*text}


def test_a_folded_table_opens_on_its_summary():
    content = page(table(1, summary="2 other pairs"))
    assert re.search(r"<details><summary>2 other pairs</summary>\s*<div", to_html(content))
    assert "2 other pairs:" in to_markdown(content)
