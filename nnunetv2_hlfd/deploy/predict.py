"""`nnUNetv2_hlfd predict`: nnUNetv2_predict's files, by a faster predictor that no single case can stop."""

import zipfile
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from nnunetv2_hlfd.deploy.case import prepare_case
from nnunetv2_hlfd.deploy.predictor import Predictor
from nnunetv2_hlfd.deploy.runtime.errors import UserError as RuntimeUserError
from nnunetv2_hlfd.deploy.runtime.images import find_cases
from nnunetv2_hlfd.deploy.runtime.nifti_file import check_complete, is_complete
from nnunetv2_hlfd.utilities.atomic import partial_folder, publish, write_json, writing
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


Keep = Callable[[str, NDArray[np.floating]], None]


def predict_cases(
    predictor: Predictor, work: Work, *, only: Collection[str] | None = None, keep: Keep | None = None
) -> dict[str, str]:
    """Predict every case; returns those that failed with the reason.

    Each segmentation appears under its name when it is whole.

    Args:
        predictor: of the model.
        work: what to predict.
        only: names of the cases; unset: all of the folder.
        keep: is handed the name and the logits (K, z, y, x) of each case before its segmentation appears, on the grid
            of the preprocessed image.

    Raises:
        UserError: for an empty folder, a cascade without predictions of the previous stage, or an output that another
            process predicts the same part into.
    """
    _check_input(predictor, work)
    part = f".part{work.part_id}of{work.num_parts}" if work.num_parts > 1 else ""
    with locked(work.output, "nnUNetv2_hlfd predict", name=f"{part}{LOCK_FILE}"):
        return _predict(predictor, work, _cases(predictor, work, only), keep)


def _predict(
    predictor: Predictor, work: Work, cases: Mapping[str, Sequence[Path]], keep: Keep | None
) -> dict[str, str]:
    _write_what_was_asked(predictor, work)
    failed: dict[str, str] = {}
    writing: deque[tuple[str, Future[None]]] = deque()

    def collect(pending: int) -> None:
        while len(writing) > pending:
            case, future = writing.popleft()
            if error := future.exception():
                failed[case] = _reason(error)

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
                failed[case] = _reason(error)
            else:
                writing.append((case, writers.submit(_write, predictor, work, case, logits, properties, keep)))
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


def _cases(predictor: Predictor, work: Work, only: Collection[str] | None) -> Mapping[str, Sequence[Path]]:
    ending = predictor.dataset_json["file_ending"]
    found = find_cases(work.images, ending)
    cases = [item for item in found.items() if only is None or item[0] in only][work.part_id :: work.num_parts]
    if work.continue_prediction:
        cases = [(case, files) for case, files in cases if not _is_finished(work, case, ending)]
    return dict(cases)


def _is_finished(work: Work, case: str, ending: str) -> bool:
    files = [work.output / f"{case}{ending}", *([work.output / f"{case}.npz"] if work.save_probabilities else [])]
    return all(zipfile.is_zipfile(file) if file.suffix == ".npz" else is_complete(file) for file in files)


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
    keep: Keep | None,
) -> None:
    """Write by nnU-Net's export, whole or not at all; the segmentation, which marks a finished case, comes last."""
    if keep is not None:
        keep(case, logits)
    target = work.output / f"{case}{predictor.dataset_json['file_ending']}"
    with partial_folder(target) as folder:
        export_prediction_from_logits(
            logits,
            properties,
            predictor.configuration_manager,
            predictor.plans_manager,
            predictor.dataset_json,
            str(folder / case),
            work.save_probabilities,
        )
        with writing(target, library_errors=(RuntimeUserError,)):
            check_complete(folder / target.name)  # SimpleITK writes half of a file onto a full disk and says nothing
        for file in sorted(folder.iterdir(), key=lambda file: file.name == target.name):
            publish(file, work.output / file.name)


def _write_what_was_asked(predictor: Predictor, work: Work) -> None:
    """Write the three files that nnUNetv2_predict leaves beside its predictions."""
    asked = {key: str(value) if isinstance(value, Path) else value for key, value in vars(work).items()}
    write_json(work.output / "predict_from_raw_data_args.json", asked)
    write_json(work.output / "dataset.json", predictor.dataset_json)
    write_json(work.output / "plans.json", predictor.plans_manager.plans)


def _reason(error: BaseException) -> str:
    """Return the line that says most: SimpleITK's and nnU-Net's messages end with it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
