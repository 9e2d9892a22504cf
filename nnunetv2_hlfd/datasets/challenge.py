"""What a public data set is, and a case of it, as they lie in a download."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class SourceCase:
    """A case as it lies in a download; `problem` says why it is ambiguous."""

    name: str
    image: Path | None
    label: Path | None
    problem: str = ""

    def stamp(self) -> str:
        """Return sizes and times of its files: a converted case with another stamp is converted again."""
        stats = [file.stat() for file in (self.image, self.label) if file]
        return " ".join(f"{stat.st_size}@{stat.st_mtime_ns}" for stat in stats)


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A public data set of CT scans with the labels 1 (an organ) and 2 (its tumors).

    Attributes:
        name: on the command line.
        dataset: nnU-Net's name for it unless another one is given.
        organ: name of label 1.
        find_cases: a folder's cases, by name.
        layout: what that folder should hold, in words.
        reference: where it comes from.
    """

    name: str
    dataset: str
    organ: str
    find_cases: Callable[[Path], list[SourceCase]]
    layout: str
    reference: str
