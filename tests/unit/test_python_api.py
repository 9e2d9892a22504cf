"""The public names: importable, described, and the page's example runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnunetv2_hlfd

PAGE = (Path(__file__).parents[2] / "docs/reference/python-api.md").read_text()


def test_the_page_names_what_is_public():
    table = "\n".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))
    assert sorted(re.findall(r"`(\w+)`", table)) == sorted(nnunetv2_hlfd.__all__)


@pytest.mark.parametrize("name", nnunetv2_hlfd.__all__)
def test_public_names_are_importable(name):
    assert getattr(nnunetv2_hlfd, name).__name__ == name


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'nnunetv2_hlfd' has no attribute 'Teacher'"):
        nnunetv2_hlfd.Teacher  # noqa: B018


def test_the_pages_example_runs():
    [example] = re.findall(r"^## HLFD's loss.*?^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    exec(example, {})


def test_importing_the_package_is_light():
    """The command line starts with it, for --version and help."""
    code = "import nnunetv2_hlfd, sys; assert not {'torch', 'nnunetv2', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
