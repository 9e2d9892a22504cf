"""`nnUNetv2_hlfd predict`: nnUNetv2_predict's files, by a faster predictor that no single case can stop."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from nnunetv2_hlfd.deploy.case import prepare_case
from nnunetv2_hlfd.deploy.predictor import Predictor
from nnunetv2_hlfd.deploy.runtime.errors import last_line
from nnunetv2_hlfd.deploy.runtime.images import find_cases
from nnunetv2_hlfd.deploy.segmentation import is_finished, write_case
from nnunetv2_hlfd.utilities.atomic import write_json
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.lock import LOCK_FILE, locked


@dataclass(frozen=True, kw_only=True)
class Work:
    """What to predict, and how; the words are those of nnUNetv2_predict.

    Threads prepare and write, at most `npp` and `nps` cases ahead and behind: they share the process's memory, and
    what they call releases Python's lock.
    """

    images: Path
    output: Path
    save_probabilities: bool = False
    continue_prediction: bool = False
    npp: int = 3
    nps: int = 3
    prev_stage_predictions: Path | None = None
    num_parts: int = 1
    part_id: int = 0
    progress_bar: bool = True


class Keeper(Protocol):
    """Keeps something of each case beside its segmentation."""

    def keep(self, case: str, logits: NDArray[np.floating]) -> None:
        """Keep it; called before the segmentation appears.

        Args:
            case: its name.
            logits: (K, z, y, x) on the grid of the preprocessed image.
        """

    def has(self, case: str) -> bool:
        """Whether it is there and whole."""


def predict_cases(
    predictor: Predictor, work: Work, *, only: Collection[str] | None = None, keeper: Keeper | None = None
) -> dict[str, str]:
    """Predict every case; returns those that failed with the reason.

    Each segmentation appears under its name when it is whole.

    Args:
        predictor: of the model.
        work: what to predict.
        only: names of the cases; unset: all of the folder.
        keeper: of something else that is made of each case.

    Raises:
        UserError: for an empty folder, a cascade without predictions of the previous stage, or an output that another
            process predicts the same part into.
    """
    _check_input(predictor, work)
    part = f".part{work.part_id}of{work.num_parts}" if work.num_parts > 1 else ""
    with locked(work.output, "nnUNetv2_hlfd predict", name=f"{part}{LOCK_FILE}"):
        return _predict(predictor, work, _cases(predictor, work, only, keeper), keeper)


def _predict(
    predictor: Predictor, work: Work, cases: Mapping[str, Sequence[Path]], keeper: Keeper | None
) -> dict[str, str]:
    _write_what_was_asked(predictor, work)
    failed: dict[str, str] = {}
    writing: deque[tuple[str, Future[None]]] = deque()

    def collect(pending: int) -> None:
        while len(writing) > pending:
            case, future = writing.popleft()
            if error := future.exception():
                failed[case] = last_line(error)

    with (
        ThreadPoolExecutor(max(1, work.npp)) as readers,
        ThreadPoolExecutor(max(1, work.nps)) as writers,
        tqdm(total=len(cases), desc="Predicting", disable=not work.progress_bar) as bar,
        ExitStack() as stack,
    ):
        stack.callback(readers.shutdown, wait=False, cancel_futures=True)  # where a signal ends it
        for case, prepared in _prepared(predictor, work, cases, readers):
            try:
                data, properties = prepared.result()
                logits = predictor.predict_logits_from_preprocessed_data(data).numpy()
            except Exception as error:  # one bad case must not cost the others
                failed[case] = last_line(error)
            else:
                writing.append((case, writers.submit(_write, predictor, work, case, logits, properties, keeper)))
                collect(max(1, work.nps))
            bar.update()
        collect(0)
    return failed


def _check_input(predictor: Predictor, work: Work) -> None:
    """Refuse what cannot be predicted, before anything is written."""
    find_cases(work.images, predictor.dataset_json["file_ending"])
    if predictor.configuration_manager.previous_stage_name and work.prev_stage_predictions is None:
        raise UserError(
            f"This model is the second stage of a cascade: expected the folder with predictions of "
            f"{predictor.configuration_manager.previous_stage_name} for -prev_stage_predictions."
        )


def _cases(
    predictor: Predictor, work: Work, only: Collection[str] | None, keeper: Keeper | None
) -> Mapping[str, Sequence[Path]]:
    ending = predictor.dataset_json["file_ending"]
    found = find_cases(work.images, ending)
    cases = [item for item in found.items() if only is None or item[0] in only][work.part_id :: work.num_parts]
    if work.continue_prediction:
        cases = [(case, files) for case, files in cases if not _is_finished(predictor, work, case, keeper)]
    return dict(cases)


def _is_finished(predictor: Predictor, work: Work, case: str, keeper: Keeper | None) -> bool:
    if keeper is not None and not keeper.has(case):
        return False
    target = work.output / f"{case}{predictor.dataset_json['file_ending']}"
    return is_finished(predictor, target, with_probabilities=work.save_probabilities)


def _prepared(
    predictor: Predictor, work: Work, cases: Mapping[str, Sequence[Path]], readers: ThreadPoolExecutor
) -> Iterator[tuple[str, "Future[tuple[Tensor, dict[str, Any]]]"]]:
    """Yield the cases in order, read and preprocessed a few ahead."""
    waiting: deque[tuple[str, Future[tuple[Tensor, dict[str, Any]]]]] = deque()
    for case, files in cases.items():
        waiting.append((case, readers.submit(_read, predictor, work, case, files)))
        if len(waiting) > max(1, work.npp):
            yield waiting.popleft()
    yield from waiting


def _read(predictor: Predictor, work: Work, case: str, files: Sequence[Path]) -> tuple[Tensor, dict[str, Any]]:
    previous = None
    if work.prev_stage_predictions is not None:
        previous = work.prev_stage_predictions / f"{case}{predictor.dataset_json['file_ending']}"
    return prepare_case(predictor, files, previous)


def _write(
    predictor: Predictor,
    work: Work,
    case: str,
    logits: NDArray[np.floating],
    properties: dict[str, Any],
    keeper: Keeper | None,
) -> None:
    if keeper is not None:
        keeper.keep(case, logits)
    target = work.output / f"{case}{predictor.dataset_json['file_ending']}"
    write_case(predictor, logits, properties, target, save_probabilities=work.save_probabilities)


def _write_what_was_asked(predictor: Predictor, work: Work) -> None:
    """Write the three files that nnUNetv2_predict leaves beside its predictions."""
    asked = {key: str(value) if isinstance(value, Path) else value for key, value in vars(work).items()}
    write_json(work.output / "predict_from_raw_data_args.json", asked)
    write_json(work.output / "dataset.json", predictor.dataset_json)
    write_json(work.output / "plans.json", predictor.plans_manager.plans)
