"""One rung of the prediction benchmark: all cases by one network and one way to run it, in a process of its own."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_hlfd.utilities.atomic import scratch_folder
from nnunetv2_hlfd.utilities.memory import peak_memory

STAGES = ("read", "preprocess", "network", "resample", "write")


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One way to predict.

    Attributes:
        name: for the table.
        model: model folder of nnU-Net, or an export.
        how: nnunet (nnUNetPredictor itself), predictor (this package's `Predictor`), or program (`predict.pyz`'s code).
        backend: of `Predictor`.
        mirroring: test-time mirroring.
        checkpoint: file in the folder of a fold.
    """

    name: str
    model: Path
    how: str
    backend: str = "torch"
    mirroring: bool = False
    checkpoint: str = "checkpoint_final.pth"


@dataclass(kw_only=True)
class Timing:
    """What a rung took.

    Attributes:
        start_up: seconds of imports, loading and a first case.
        cases: case -> stage -> seconds.
        peak_memory: bytes; None on systems that do not tell.
    """

    start_up: float = 0.0
    cases: dict[str, dict[str, float]] = field(default_factory=dict)
    peak_memory: int | None = None


Step = Callable[[Sequence[Path], Path, "_Clock"], None]


class _Clock:
    """A stopwatch for the stages of a case."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


def run_rung(
    rung: Rung, cases: Mapping[str, Sequence[Path]], output: Path, folds: Sequence[str], device: str, threads: int
) -> Timing:
    """Predict the cases one after the other; the first one is run once more before, as part of the start-up.

    Called in a fresh process, so that start-up includes the imports and the peak of the memory is this rung's.
    """
    start = time.perf_counter()
    output.mkdir(parents=True)
    step = (_program if rung.how == "program" else _with_nnunet)(rung, folds, device, threads)
    with scratch_folder() as warm_up:
        step(next(iter(cases.values())), warm_up / "case", _Clock())
    timing = Timing(start_up=time.perf_counter() - start)
    for case, files in cases.items():
        clock = _Clock()
        step(files, output / case, clock)
        timing.cases[case] = clock.seconds
    timing.peak_memory = peak_memory()
    return timing


def _with_nnunet(rung: Rung, folds: Sequence[str], device: str, threads: int) -> Step:
    """Return the steps of nnU-Net: its own reading, preprocessing, resampling and writing around a predictor."""
    import torch
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from nnunetv2_hlfd.deploy.predictor import Predictor
    from nnunetv2_hlfd.training.trainers_path import extend_trainer_search

    extend_trainer_search()
    torch.set_num_threads(threads)
    rung_device = torch.device(device if rung.backend == "torch" else "cpu")
    predictor: nnUNetPredictor
    if rung.how == "nnunet":
        predictor = nnUNetPredictor(use_mirroring=rung.mirroring, device=rung_device, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(rung.model), folds, rung.checkpoint)
    else:
        predictor = Predictor(
            rung.model,
            folds=folds,
            checkpoint=rung.checkpoint,
            device=rung_device,
            backend=rung.backend,
            mirroring=rung.mirroring,
        )
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    images, preprocessor = plans.image_reader_writer_class(), configuration.preprocessor_class(verbose=False)
    dataset_json, labels = predictor.dataset_json, predictor.label_manager

    def step(files: Sequence[Path], target: Path, clock: _Clock) -> None:
        with clock("read"):
            data, properties = images.read_images([str(file) for file in files])
        with clock("preprocess"):
            data, _, properties = preprocessor.run_case_npy(data, None, properties, plans, configuration, dataset_json)
        with clock("network"):
            logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).cpu()
        with clock("resample"):
            segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits, plans, configuration, labels, properties, num_threads_torch=threads
            )
        with clock("write"):
            images.write_seg(segmentation, f"{target}{dataset_json['file_ending']}", properties)

    return step


def _program(rung: Rung, folds: Sequence[str], _device: str, threads: int) -> Step:
    """Return the steps of `predict.pyz`."""
    from nnunetv2_hlfd.deploy.runtime.images import read_image, write_segmentation
    from nnunetv2_hlfd.deploy.runtime.network import find_networks, open_network
    from nnunetv2_hlfd.deploy.runtime.predict import predict_logits
    from nnunetv2_hlfd.deploy.runtime.preprocess import prepare, to_labels

    networks = [open_network(file, threads) for file in find_networks(rung.model, list(folds))]
    model = networks[0].description

    def step(files: Sequence[Path], target: Path, clock: _Clock) -> None:
        with clock("read"):
            image = read_image(files, model)
        with clock("preprocess"):
            prepared = prepare(image, model)
        with clock("network"):
            logits = predict_logits(prepared.data, networks, step_size=0.5, mirroring=rung.mirroring)
        with clock("resample"):
            labels = to_labels(logits, prepared, model)
        with clock("write"):
            write_segmentation(labels, image, target.with_name(f"{target.name}{model.file_ending}"), model)

    return step
