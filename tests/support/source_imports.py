"""What Python files import, read from their text: at the top, inside functions and for type checkers alike."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "nnunetv2_hlfd"


def imports(file: Path) -> Iterator[tuple[str, int]]:
    """(dotted name, line) of whatever a file imports: `from a.b import c` gives a.b.c, relative names are resolved."""
    parents = file.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def calls(file: Path, function: str) -> Iterator[list[str]]:
    """The constant arguments of every call of a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
            yield [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
