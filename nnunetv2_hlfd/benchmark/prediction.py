"""`nnUNetv2_hlfd benchmark`: prediction from image file to segmentation file, rung by rung, in one run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from nnunetv2_hlfd.benchmark.ladder import write_ladder
from nnunetv2_hlfd.benchmark.roofline import Machine, best_seconds, roofline
from nnunetv2_hlfd.benchmark.rung import Rung, Timing, run_rung
from nnunetv2_hlfd.deploy.convert import to_openvino
from nnunetv2_hlfd.deploy.network_export import Options, export_openvino
from nnunetv2_hlfd.deploy.runtime.images import find_cases
from nnunetv2_hlfd.deploy.runtime.network import compile_openvino
from nnunetv2_hlfd.deploy.source import Source, read_source
from nnunetv2_hlfd.training.trainers_path import extend_trainer_search
from nnunetv2_hlfd.utilities.atomic import scratch_folder
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.dice import dice
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.orphans import process_pool


def benchmark_prediction(
    teacher: Path,
    student: Path,
    images: Path,
    output: Path,
    *,
    truth: Path | None = None,
    fold: str = "0",
    device: str = "cpu",
    max_dice_drop: float = 0.01,
) -> Path:
    """Measure every rung; write ladder.md, ladder.csv, ladder.png and ladder.json.

    Every rung is a process of its own, and runs the cases one after the other.

    Args:
        teacher: model folder.
        student: model folder.
        images: folder with CASE_0000 images, 10 or more for figures that mean something.
        output: folder to write to.
        truth: folder with the cases' labels, for Dice.
        fold: of both models.
        device: of the torch rungs: cpu or cuda.
        max_dice_drop: allowed to the 8-bit networks (their validation cases).

    Raises:
        UserError: for missing models, images, labels or packages, or no GPU for -device cuda.
    """
    choose_device(device)
    extend_trainer_search()
    sources = {
        "teacher": read_source(teacher, [fold], "checkpoint_final.pth"),
        "student": read_source(student, [fold], "checkpoint_final.pth"),
    }
    cases = find_cases(images, sources["teacher"].model.dataset_json["file_ending"])
    _check_truth(truth, cases, sources["teacher"])
    threads = torch.get_num_threads()
    timings: dict[str, Timing] = {}
    scores: dict[str, float] = {}
    output.mkdir(parents=True, exist_ok=True)
    with scratch_folder() as temporary:
        small = {
            name: export_openvino(source, temporary / name, Options(int8=True, max_dice_drop=max_dice_drop)).folder
            for name, source in sources.items()
        }
        rungs = _rungs(teacher, student, small)
        for rung in tqdm(rungs, desc="Rungs"):
            folder = temporary / f"{len(timings)}"
            timings[rung.name] = _in_process(rung, cases, folder, fold, device, threads)
            if truth:
                scores[rung.name] = _mean_dice(folder, truth, sources["teacher"])
    about = {
        "models": {name: source.model.name for name, source in sources.items()},
        "patch": list(sources["teacher"].model.input_shape),
        "device": device,
        "threads": threads,
        "networks": _network_lines(sources, fold) if device == "cpu" else [],
    }
    return write_ladder(output, timings, scores, about)


def _rungs(teacher: Path, student: Path, small: Mapping[str, Path]) -> list[Rung]:
    return [
        Rung(name="nnU-Net, teacher", model=teacher, how="nnunet", mirroring=True),
        Rung(name="no mirroring", model=teacher, how="nnunet"),
        Rung(name="our tile loop", model=teacher, how="predictor"),
        Rung(name="student", model=student, how="predictor"),
        Rung(name="student, nnU-Net's tile loop", model=student, how="nnunet"),
        Rung(name="student, OpenVINO", model=student, how="predictor", backend="openvino"),
        Rung(name="student, 8 bits", model=small["student"], how="predictor", backend="openvino"),
        Rung(name="student, 8 bits, predict.pyz", model=small["student"], how="program"),
        Rung(name="teacher, OpenVINO", model=teacher, how="predictor", backend="openvino"),
        Rung(name="teacher, 8 bits", model=small["teacher"], how="predictor", backend="openvino"),
        Rung(name="teacher, 8 bits, predict.pyz", model=small["teacher"], how="program"),
    ]


def _in_process(
    rung: Rung, cases: Mapping[str, Sequence[Path]], folder: Path, fold: str, device: str, threads: int
) -> Timing:
    with process_pool(1) as pool:
        return pool.submit(run_rung, rung, cases, folder, [fold], device, threads).result()


def _check_truth(truth: Path | None, cases: Mapping[str, Sequence[Path]], source: Source) -> None:
    ending = source.model.dataset_json["file_ending"]
    missing = [case for case in cases if truth and not (truth / f"{case}{ending}").is_file()]
    if missing:
        raise UserError(f"Expected labels of {len(cases)} cases in {truth}; missing: {', '.join(missing[:5])}.")


def _mean_dice(folder: Path, truth: Path, source: Source) -> float:
    """Average Dice over cases, and over the labels or regions that the truth or the prediction of a case has."""
    manager = source.model.plans.get_label_manager(source.model.dataset_json)
    reader = source.model.plans.image_reader_writer_class()
    values = []
    for file in folder.glob(f"*{source.model.dataset_json['file_ending']}"):
        predicted, wanted = (reader.read_seg(str(path / file.name))[0] for path in (folder, truth))
        for label in manager.foreground_regions if manager.has_regions else manager.foreground_labels:
            values.append(dice(np.isin(predicted, label), np.isin(wanted, label)))
    return float(np.nanmean(values))


def _network_lines(sources: Mapping[str, Source], fold: str) -> list[dict[str, Any]]:
    """Measure forward passes of one patch, and give each a line beside its roofline."""
    shape = next(iter(sources.values())).model.input_shape
    machine = Machine.measure(len(shape) - 1)
    lines = []
    for name, source in sources.items():
        network, image = source.network(fold), torch.randn(1, *source.model.input_shape)
        bound = roofline(network, image, machine)
        compiled = compile_openvino(to_openvino(network, source.model.input_shape), torch.get_num_threads())
        runs = {"torch": best_seconds(network, image), "openvino": best_seconds(compiled, image.numpy())}
        lines += [
            {
                "network": name,
                "backend": backend,
                "gflops": bound.flops / 1e9,
                "mbytes": bound.bytes_moved / 1e6,
                "bound_ms": bound.seconds * 1e3,
                "measured_ms": seconds * 1e3,
                "peak_gflops_per_s": machine.flops_per_second / 1e9,
                "bandwidth_gb_per_s": machine.bytes_per_second / 1e9,
            }
            for backend, seconds in runs.items()
        ]
    return lines
