"""What a subcommand is, and the argument that several have."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass


def _as_they_are(_parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    return list(arguments)


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """One subcommand of `nnUNetv2_hlfd`.

    Attributes:
        help: its line in the list of subcommands.
        description: for its own help.
        add_arguments: adds its arguments to its parser.
        run: does the work and returns the exit code. Whatever takes long to import is imported inside.
        usage: in place of the one that argparse makes up.
        interrupted: what to say after Ctrl-C.
        takes_more: whether arguments that its parser does not know are allowed; `run` finds them as `more`.
        prepare: turns the arguments, its own name first, into ones that argparse reads as they are meant. May end the
            program with the given parser's `error`.
    """

    help: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    usage: str | None = None
    interrupted: str = "interrupted."
    takes_more: bool = False
    prepare: Callable[[argparse.ArgumentParser, Sequence[str]], list[str]] = _as_they_are


def add_device(parser: argparse.ArgumentParser, *, default: str | None = "cuda", text: str = "(default: cuda)") -> None:
    """Add `-device`."""
    parser.add_argument("-device", default=default, choices=("cpu", "cuda", "mps"), help=text)
