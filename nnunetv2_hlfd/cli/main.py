"""Command line: `nnUNetv2_hlfd SUBCOMMAND`."""

import argparse
import sys
from collections.abc import Mapping, Sequence

from nnunetv2_hlfd import __version__
from nnunetv2_hlfd.cli.benchmark import BENCHMARK
from nnunetv2_hlfd.cli.compress import COMPRESS
from nnunetv2_hlfd.cli.convert import CONVERT
from nnunetv2_hlfd.cli.demo import DEMO
from nnunetv2_hlfd.cli.export import EXPORT
from nnunetv2_hlfd.cli.plan import PLAN
from nnunetv2_hlfd.cli.predict import PREDICT
from nnunetv2_hlfd.cli.report import REPORT
from nnunetv2_hlfd.cli.study import STUDY
from nnunetv2_hlfd.cli.subcommand import Subcommand
from nnunetv2_hlfd.cli.system_errors import BROKEN_PIPE, describe, drop_output, flush_output, stop_printing
from nnunetv2_hlfd.cli.teach import TEACH
from nnunetv2_hlfd.cli.train import TRAIN
from nnunetv2_hlfd.cli.trainers import TRAINERS
from nnunetv2_hlfd.cli.trainers_path import TRAINERS_PATH
from nnunetv2_hlfd.deploy.runtime.errors import UserError as RuntimeUserError
from nnunetv2_hlfd.deploy.runtime.signals import InterruptedBySignalError, signals_interrupt
from nnunetv2_hlfd.utilities.errors import UserError

_DESCRIPTION = """Compress a trained nnU-Net into a small student by knowledge distillation (HLFD).

  export nnUNet_extTrainer=$(nnUNetv2_hlfd trainers_path)
  nnUNetv2_train DATASET 2d 0                            train the teacher (stock nnU-Net)
  nnUNetv2_train DATASET 2d 0 -tr nnUNetTrainerHLFD      train the student
  nnUNetv2_predict -d DATASET -c 2d -f 0 -tr nnUNetTrainerHLFD -i IN -o OUT"""

SUBCOMMANDS: Mapping[str, Subcommand] = {
    "compress": COMPRESS,
    "convert": CONVERT,
    "plan": PLAN,
    "teach": TEACH,
    "train": TRAIN,
    "study": STUDY,
    "report": REPORT,
    "benchmark": BENCHMARK,
    "export": EXPORT,
    "predict": PREDICT,
    "demo": DEMO,
    "trainers": TRAINERS,
    "trainers_path": TRAINERS_PATH,
}


def make_parser() -> argparse.ArgumentParser:
    """Build the parser; its `command` is the subcommand's name."""
    parser = argparse.ArgumentParser(
        prog="nnUNetv2_hlfd",
        description=_DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parsers = parser.add_subparsers(dest="command", metavar="SUBCOMMAND", required=True)
    for name, subcommand in SUBCOMMANDS.items():
        own = parsers.add_parser(
            name,
            allow_abbrev=False,
            help=subcommand.help,
            description=subcommand.description,
        )
        subcommand.add_arguments(own)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    A mistake of the user ends with one message and 2, and so does what is wrong with a disk or with rights; Ctrl-C
    with a word and 130, as other requests to end with their own code. Any other exception is a fault of the program and
    keeps its traceback.
    """
    words = sys.argv[1:] if arguments is None else arguments
    command = words[0] if words and words[0] in SUBCOMMANDS else ""
    try:
        return _run(words)
    except (UserError, RuntimeUserError) as error:
        return _end(command, str(error), 2)
    except InterruptedBySignalError as error:
        return _end(command, _interrupted(command), error.exit_code)
    except KeyboardInterrupt:
        return _end(command, _interrupted(command), 130)
    except BrokenPipeError:
        if not stop_printing():
            raise
        return BROKEN_PIPE
    except (OSError, RuntimeError) as error:
        message = describe(error)
        if message is None:
            raise
        return _end(command, message, 2)


def _run(words: Sequence[str]) -> int:
    try:
        options = _parse(words)
        with signals_interrupt():
            return SUBCOMMANDS[options.command].run(options)
    finally:
        flush_output()  # here, where a closed pipe is no fault; of the help, too


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = make_parser()
    if arguments and arguments[0] in SUBCOMMANDS:
        arguments = SUBCOMMANDS[arguments[0]].prepare(parser, arguments)
    return parser.parse_args(arguments)


def _interrupted(command: str) -> str:
    return SUBCOMMANDS[command].interrupted if command else "interrupted."


def _end(command: str, message: str, code: int) -> int:
    print(f"{f'nnUNetv2_hlfd {command}'.strip()}: {message}", file=sys.stderr)
    drop_output()
    return code


if __name__ == "__main__":
    sys.exit(main())
