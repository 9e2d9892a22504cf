"""What the package and its tests import is declared in pyproject.toml, under the extra that a message names."""

import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from source_imports import PACKAGE, ROOT, calls, imports

tomllib = pytest.importorskip("tomllib")  # of Python 3.11

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    name: {canonicalize_name(Requirement(text).name) for text in requirements}
    for name, requirements in PROJECT["optional-dependencies"].items()
}
NEEDED = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
OPTIONAL = set().union(*(names for extra, names in EXTRAS.items() if extra != "dev"))
DISTRIBUTIONS = packages_distributions()  # reads the metadata of all that is installed
OURS = {PACKAGE.name, *(path.stem for path in (ROOT / "tests/support").iterdir())}


def distribution(package: str) -> str:
    """Name of what has to be installed for a package to be imported."""
    [name] = set(DISTRIBUTIONS[package])
    return canonicalize_name(name)


def undeclared(folder: str, declared: set[str]) -> list[str]:
    """The imports of all files below a folder that are not of a declared distribution."""
    found = []
    for file in sorted((ROOT / folder).rglob("*.py")):
        for name, line in imports(file):
            package = name.split(".")[0]
            known = package in OURS or package in sys.stdlib_module_names
            if not known and distribution(package) not in declared:
                found.append(f"{file.relative_to(ROOT)}:{line} imports {package}")
    return found


@pytest.mark.parametrize("folder", ["nnunetv2_hlfd", "trainers"])
def test_what_the_package_imports_is_a_dependency_or_an_extra(folder):
    assert undeclared(folder, NEEDED | OPTIONAL) == []


def test_what_the_tests_import_is_a_dependency_or_an_extra():
    assert undeclared("tests", NEEDED | OPTIONAL | EXTRAS["dev"]) == []


def test_an_extra_that_a_message_names_installs_what_is_missing():
    """`needed(PACKAGE, EXTRA)` imports a package, or says which extra has it."""
    named = [arguments for file in sorted(PACKAGE.rglob("*.py")) for arguments in calls(file, "needed")]
    assert named
    for package, extra in named:
        assert distribution(package.split(".")[0]) in EXTRAS[extra], f"{package} is not in the extra {extra}"


def test_every_dependency_is_imported():
    """An extra may hold what other packages import."""
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "trainers").rglob("*.py")]
    packages = {name.split(".")[0] for file in files for name, _ in imports(file)}
    imported = {distribution(package) for package in packages - OURS - sys.stdlib_module_names}
    assert imported >= NEEDED
