"""`nnUNetv2_hlfd compress`: from a trained model and images to a small model and its proof."""

import json
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunetv2_hlfd.compress.data import write_failed
from nnunetv2_hlfd.compress.duration import estimate
from nnunetv2_hlfd.compress.held_out import divide
from nnunetv2_hlfd.compress.inventory import Inventory, take_inventory, warnings
from nnunetv2_hlfd.compress.model import UNPACKED, with_model_folder
from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.compress.places import Places
from nnunetv2_hlfd.compress.steps import Steps
from nnunetv2_hlfd.compress.teacher import Taught
from nnunetv2_hlfd.compress.teaching import choose_teaching
from nnunetv2_hlfd.deploy.source import Source, read_source
from nnunetv2_hlfd.models.checkpoints import sha256
from nnunetv2_hlfd.settings.settings import TRUST_IMPORTS_VARIABLE, TRUST_VARIABLE
from nnunetv2_hlfd.utilities.atomic import write_json
from nnunetv2_hlfd.utilities.device import choose_device
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json, read_record
from nnunetv2_hlfd.utilities.steps import Step, Workspace, nnunet_environment, run_steps

_WORK = "compress"
_KEPT = (
    "nnUNet_extTrainer",
    "nnUNet_n_proc_DA",
    "nnUNet_def_n_proc",
    "nnUNet_compile",
    TRUST_VARIABLE,
    TRUST_IMPORTS_VARIABLE,
)
_DECIDE = (
    *("student", "steps", "seed", "settings", "held_out", "mirroring", "control", "max_dice_drop", "margin"),
    *("spacing", "checkpoint"),
)


def compress_model(options: CompressOptions, *, dry_run: bool = False) -> int:
    """Run what is not finished yet.

    Args:
        options: What to compress, and how.
        dry_run: Only check, and say what it would take; nothing is written.

    Returns:
        Number of images that were left out because they, or the teacher on them, failed.

    Raises:
        UserError: for what cannot be compressed, saying what to change.
        StepFailedError: where a step fails; the message holds its log's last lines.
    """
    with with_model_folder(options, dry_run=dry_run) as options:
        return _compress(options, dry_run=dry_run)


def _compress(options: CompressOptions, *, dry_run: bool) -> int:
    start = time.perf_counter()
    choose_device(options.device)
    source = read_source(options.model, options.folds, options.checkpoint)
    places = Places(options.output.absolute(), source, choose_teaching(source, options))
    made_with = _made_with(source, options)
    record = places.folder / f"{_WORK}.json"
    inventory = None
    if record.is_file():
        _refuse_other_images(record, made_with["images"])
    if dry_run or not places.inventory.is_file():
        inventory = take_inventory(source, options)
        _say_what_comes(places, options, inventory)
    if dry_run:
        print("Dry run: nothing was trained or written.", flush=True)
        return len(inventory.failed) if inventory else 0
    folders = ("raw", "preprocessed", "results")
    environment = nnunet_environment(places.folder, kept=_KEPT)
    workspace = Workspace(
        places.folder, _WORK, made_with, folders=folders, environment=environment, there_before=UNPACKED
    )
    if inventory is not None:
        write_json(places.inventory, inventory.to_dict())
        write_failed(places.failed, inventory.failed)
    run_steps(workspace, compress_steps(options))
    print(f"Finished in {(time.perf_counter() - start) / 60:.1f} min\n\n{places.report.read_text(encoding='utf-8')}")
    print(f"Report: {places.folder / 'report.html'}\nStudent: {places.archive}", flush=True)
    return len({**read_record(Inventory, places.inventory).failed, **read_record(Taught, places.taught).failed})


def compress_steps(options: CompressOptions) -> list[Step]:
    """All steps, in order; a zip of models is unpacked first.

    Raises:
        UserError: for what is no model.
    """
    with with_model_folder(options, dry_run=False) as options:
        source = read_source(options.model, options.folds, options.checkpoint)
    return Steps(options, Places(options.output.absolute(), source, choose_teaching(source, options))).all()


def _say_what_comes(places: Places, options: CompressOptions, inventory: Inventory) -> None:
    """Print how many images there are, what is wrong with them, how they teach, and how long the work takes."""
    divided = divide(inventory.images.keys(), options.held_out, labelled=inventory.labels.keys(), own=inventory.own)
    print(
        f"{len(inventory.images)} images, {len(inventory.labels)} with labels: {len(divided.training)} to learn from, "
        f"{len(divided.held_out)} held out\n{estimate(places.source, options, inventory)}",
        flush=True,
    )
    for warning in (*warnings(inventory), *places.teaching.warnings):
        print(f"WARNING: {warning}", flush=True)


def _made_with(source: Source, options: CompressOptions) -> dict[str, Any]:
    """What decides the result: a folder that was made with something else is not gone on with."""
    decide = {name: value for name in _DECIDE if (value := getattr(options, name)) is not None}
    made_with = {
        "version": version("nnunetv2_hlfd"),
        "teacher": {fold: sha256(source.file(fold)) for fold in source.folds},
        **{name: str(value) if isinstance(value, Path) else value for name, value in decide.items()},
        "images": _sizes(options.images),
        "labels": _sizes(options.labels) if options.labels else {},
    }
    return dict(json.loads(json.dumps(made_with)))


def _sizes(folder: Path) -> dict[str, int]:
    """File -> bytes."""
    if not folder.is_dir():
        raise UserError(f"Expected a folder, no {folder}. Name it with -i or -l.")
    return {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}


def _refuse_other_images(record: Path, images: Mapping[str, int]) -> None:
    before = read_json(record).get("made_with", {}).get("images", {})
    if before != images:
        more, fewer = len(images.keys() - before.keys()), len(before.keys() - images.keys())
        raise UserError(
            f"{record.parent} was made from other images ({more} more, {fewer} fewer, "
            f"{sum(before[name] != images[name] for name in before.keys() & images.keys())} of another size). Choose a "
            f"new folder with -o."
        )
