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
        interrupted: what to say after Ctrl-C.
        prepare: turns the arguments, its own name first, into ones that argparse reads as they are meant. May end the
            program with the given parser's `error`.
    """

    help: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    interrupted: str = "interrupted."
    prepare: Callable[[argparse.ArgumentParser, Sequence[str]], list[str]] = _as_they_are


def unknown_options(arguments: Sequence[str], known: Sequence[str]) -> list[str]:
    """The options among arguments that are not known; argparse would read -distil_ignored as -d istil_ignored."""
    options = [argument.split("=")[0] for argument in arguments if argument.lstrip("-")[:1].isalpha()]
    return [option for option in options if option[0] == "-" and option not in (*known, "-h", "--help")]


def add_device(
    parser: argparse._ActionsContainer, *, default: str | None = "cuda", text: str = "device to run on (default: cuda)"
) -> None:
    """Add `-device`."""
    parser.add_argument("-device", default=default, choices=("cpu", "cuda", "mps"), help=text)


def add_license(parser: argparse.ArgumentParser) -> None:
    """Add `-license` and `-data_license`, for the model card."""
    stated = "for the model card (default: not stated)"
    parser.add_argument("-license", metavar="TEXT", help=f"license of the weights, such as CC-BY-4.0, {stated}")
    parser.add_argument(
        "-data_license", metavar="TEXT", help="license of the training data (default: that of dataset.json, if any)"
    )
