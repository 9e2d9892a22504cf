"""Which images the comparison is made on, and which the student learns from."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.text import some_names

FEWEST = 2


@dataclass(frozen=True, kw_only=True)
class Division:
    """Names of the images to learn from and of those held out, each sorted."""

    training: Sequence[str]
    held_out: Sequence[str]


def divide(
    cases: Collection[str], held_out: float | Path, *, labelled: Collection[str] = (), own: Collection[str] = ()
) -> Division:
    """Divide the images.

    Those with labels are held out first, because only on them student and teacher can be compared with the truth. Those
    that the teacher was trained on come last: it knows them too well. The order is otherwise that of the names' hashes:
    an image that is added changes nothing for the others, unless it is held out itself.

    Args:
        cases: Names of all images.
        held_out: Share of the images, or a file with names, one a line.
        labelled: Those with true labels.
        own: Those that the teacher was trained on.

    Returns:
        At least 2 images are held out, and at most half.

    Raises:
        UserError: for a file that names no or other images, or all of them.
    """
    chosen = _read_names(held_out, cases) if isinstance(held_out, Path) else _choose(cases, held_out, labelled, own)
    return Division(training=sorted(set(cases) - chosen), held_out=sorted(chosen))


def _choose(cases: Collection[str], share: float, labelled: Collection[str], own: Collection[str]) -> set[str]:
    number = min(max(FEWEST, round(share * len(cases))), len(cases) // 2)
    ranked = sorted(cases, key=lambda case: (case in own, case not in labelled, _hash(case)))
    return set(ranked[:number])


def _hash(case: str) -> str:
    return hashlib.sha256(case.encode()).hexdigest()


def _read_names(file: Path, cases: Collection[str]) -> set[str]:
    try:
        names = {line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Expected a file with names of images for -held_out: {error}") from error
    if unknown := names - set(cases):
        raise UserError(f"{file} names images that are not there or cannot be used: {some_names(unknown)}.")
    if len(names) < FEWEST or len(cases) - len(names) < FEWEST:
        raise UserError(
            f"Expected names of at least {FEWEST} images in {file}, and {FEWEST} others to learn from, got "
            f"{len(names)} of {len(cases)}."
        )
    return names
