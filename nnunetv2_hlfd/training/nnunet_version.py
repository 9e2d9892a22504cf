"""The versions of nnU-Net that the trainers are written for."""

import re
from importlib.metadata import version

from nnunetv2_hlfd.utilities.errors import UserError

_NNUNET_RANGE = ("2.8", "2.9")


def check_nnunet_version() -> None:
    """Refuse versions of nnU-Net whose trainer API this package was not written for.

    Raises:
        UserError: for a version out of range.
    """
    installed = version("nnunetv2")
    lowest, too_high = (tuple(map(int, limit.split("."))) for limit in _NNUNET_RANGE)
    release = re.match(r"(\d+)\.(\d+)(?!\d|\.?(a|b|rc)\d)", installed)
    if release is None or not lowest <= (int(release[1]), int(release[2])) < too_high:
        raise UserError(
            f"Expected nnunetv2 >={_NNUNET_RANGE[0]},<{_NNUNET_RANGE[1]}, got {installed}. Install a fitting one with: "
            f'pip install "nnunetv2>={_NNUNET_RANGE[0]},<{_NNUNET_RANGE[1]}"'
        )
