"""The fold of a training, as it is named on the command line."""

from nnunetv2_hlfd.utilities.errors import UserError


def parse_fold(text: str) -> int | str:
    """A number, or 'all'.

    Raises:
        UserError: for another text.
    """
    if text == "all":
        return text
    if not text.isdecimal():
        raise UserError(f"Expected a fold number or 'all', got '{text}'.")
    return int(text)
