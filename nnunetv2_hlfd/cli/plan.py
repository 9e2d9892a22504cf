"""`nnUNetv2_hlfd plan`."""

import argparse
from collections.abc import Sequence

from nnunetv2_hlfd.cli.subcommand import Subcommand, unknown_options
from nnunetv2_hlfd.settings.rules import as_text, nearest
from nnunetv2_hlfd.settings.settings import RULES, Settings


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", required=True, help="data set name or ID")
    parser.add_argument("-p", default="nnUNetPlans", help="plans to start from (default: nnUNetPlans)")
    parser.add_argument("-name", required=True, help="name of the variant, which is appended to that of the plans")
    parser.add_argument(
        "-window",
        metavar="WINDOW",
        help="clip CT at 'kidney' (-200,300), 'liver' (-40,160) or LOW,HIGH in HU "
        "instead of nnU-Net's percentiles; these plans need their own preprocessed data",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an existing variant of that name that has other settings"
    )
    settings = parser.add_argument_group("settings (docs/reference/settings.md)")
    defaults = Settings().to_dict()
    for name, rule in RULES.items():
        text = f"{rule.text} ({rule}; default: {as_text(defaults[name])})".replace("%", "%%")
        settings.add_argument(f"-{name}", dest=f"setting_{name}", metavar="VALUE", help=text)


def _prepare(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    arguments = _bind_window(arguments)
    known = ["-d", "-p", "-name", "-window", "--overwrite", *(f"-{name}" for name in RULES)]
    for option in unknown_options(arguments, known):
        parser.error(f"unknown setting '{option}'.{nearest(option, known)}")
    return arguments


def _bind_window(arguments: Sequence[str]) -> list[str]:
    """Join -window and its value by '=': argparse takes -200,300 for an option."""
    bound: list[str] = []
    for argument in arguments:
        if bound and bound[-1] == "-window":
            bound[-1] += f"={argument}"
        else:
            bound.append(argument)
    return bound


def _run(options: argparse.Namespace) -> int:
    from nnunetv2_hlfd.plans.variants import write_variant
    from nnunetv2_hlfd.plans.window import parse_window, preprocess_command
    from nnunetv2_hlfd.utilities.json_file import read_json

    texts = {name: getattr(options, f"setting_{name}") for name in RULES}
    settings = {name: RULES[name].parse(name, text) for name, text in texts.items() if text is not None}
    window = parse_window(options.window) if options.window is not None else None
    file = write_variant(options.d, options.p, options.name, settings, window=window, overwrite=options.overwrite)
    print(f"Wrote {file}\nUse it with -p {file.stem}")
    if window:
        print(
            f"It clips at {window[0]:g} and {window[1]:g} HU; mean and std stay those of the foreground. It needs a "
            f"teacher and preprocessed data of its own:\n{preprocess_command(read_json(file))}"
        )
    return 0


PLAN = Subcommand(
    help="make a variant of the plans with other settings",
    description="Write PLANS_NAME.json beside the plans. This variant has its own settings and uses the same "
    "preprocessed data. Train with it by: nnUNetv2_hlfd train DATASET CONFIGURATION FOLD -tr nnUNetTrainerHLFD -p "
    "PLANS_NAME",
    add_arguments=_add_arguments,
    run=_run,
    prepare=_prepare,
)
