"""The teacher's label maps and the images as a data set of nnU-Net, and the teacher's final maps beside it."""

import csv
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunetv2_hlfd.compress.held_out import Division, divide
from nnunetv2_hlfd.compress.inventory import Inventory
from nnunetv2_hlfd.compress.options import CompressOptions
from nnunetv2_hlfd.compress.places import Places
from nnunetv2_hlfd.compress.plans import base_plans, student_configuration, teacher_size
from nnunetv2_hlfd.compress.teacher import STEP_SIZE, Taught
from nnunetv2_hlfd.teacher.checkpoint import describe_origin
from nnunetv2_hlfd.teacher.stored.dataset import maps_file, open_maps
from nnunetv2_hlfd.teacher.stored.description import Description
from nnunetv2_hlfd.teacher.stored.encoding import resize_codes
from nnunetv2_hlfd.teacher.stored.folder import MapsFolder
from nnunetv2_hlfd.utilities.atomic import write_json, write_text
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_record

_FINGERPRINT = "dataset_fingerprint.json"


def division(places: Places, options: CompressOptions) -> Division:
    """Which images train and which are held out, now that the teacher has predicted them.

    Raises:
        UserError: for a file of held-out images that does not fit.
    """
    inventory, taught = read_record(Inventory, places.inventory), read_record(Taught, places.taught)
    return divide(taught.found.keys(), options.held_out, labelled=inventory.labels.keys(), own=inventory.own)


def write_failed(file: Path, failed: Mapping[str, str]) -> None:
    """Write failed.csv: the images that were left out, with the reasons."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "reason"])
    writer.writerows(sorted(failed.items()))
    write_text(file, text.getvalue())


_OF_THE_TEACHERS = ("dataset", "license", "licence")  # in its dataset.json: not true of these images


def write_raw(places: Places, options: CompressOptions) -> None:
    """Write nnU-Net's raw data set, and what planning would have put beside the preprocessed one.

    Images are linked, not listed in dataset.json: nnU-Net copies that file into every model.
    """
    inventory, divided, model = read_record(Inventory, places.inventory), division(places, options), places.model
    for folder in (places.raw, places.preprocessed):
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
        folder.mkdir()
    for name in ("imagesTr", "imagesTs", "labelsTr"):
        (places.raw / name).mkdir()
    cases = [*divided.training, *divided.held_out]
    for case in cases:
        for file in map(Path, inventory.images[case]):
            link(file, places.raw / "imagesTr" / file.name)
            if case in divided.held_out:
                link(file, places.images_held_out / file.name)
        name = f"{case}{model.file_ending}"
        label = Path(inventory.labels[case]) if case in inventory.labels else places.teacher / name
        link(label, places.raw / "labelsTr" / name)
    dataset_json = {key: value for key, value in model.dataset_json.items() if key not in _OF_THE_TEACHERS}
    dataset_json |= {"numTraining": len(cases), "name": places.dataset}
    write_json(places.preprocessed / "dataset.json", dataset_json)
    write_json(places.preprocessed / f"{places.base_plans}.json", base_plans(model, places.dataset, options.spacing))
    if (model.path / _FINGERPRINT).is_file():
        shutil.copyfile(model.path / _FINGERPRINT, places.preprocessed / _FINGERPRINT)
    write_json(places.raw / "dataset.json", dataset_json)  # last: it marks the end


def link(file: Path, target: Path) -> None:
    """Make a file appear under another name, without a copy where the file systems can."""
    for make in (os.symlink, os.link):
        with suppress(OSError):  # file systems without such links, and Windows without the right to make them
            make(file.resolve(), target)
            return
    shutil.copyfile(file, target)


def fingerprint_file(places: Places) -> Path:
    """Where nnU-Net expects the data set's fingerprint."""
    return places.preprocessed / _FINGERPRINT


def divide_images(places: Places, options: CompressOptions) -> None:
    """Put the teacher's final maps where training finds them, if it has made any, and write the split.

    Raises:
        UserError: where a map has another shape than its preprocessed image.
    """
    divided = division(places, options)
    if places.teaching.kind == "stored":
        _adopt_maps(places, options, divided.training)
    write_json(places.splits, [{"train": list(divided.training), "val": list(divided.held_out)}])
    shutil.rmtree(places.fresh_maps, ignore_errors=True)


def _adopt_maps(places: Places, options: CompressOptions, cases: Sequence[str]) -> None:
    model = places.model
    regions = model.plans.get_label_manager(model.dataset_json).has_regions
    dataset = infer_dataset_class(str(places.data))(str(places.data), list(cases))
    folder = MapsFolder.for_teacher(places.data, _describe(places, options))
    for case in cases:
        if folder.state(case, dataset) == "whole":
            continue
        codes = np.asarray(open_maps(maps_file(places.fresh_maps, case))[:])
        shape = tuple(dataset.load_case(case)[0].shape[1:])
        if options.spacing is not None:
            codes = resize_codes(codes, shape, regions)
        if codes.shape[1:] != shape:
            raise UserError(
                f"The teacher's map of {case} has the shape {codes.shape[1:]}, its preprocessed image {shape}: the "
                f"teacher's plans prepare images for prediction and for training differently."
            )
        folder.add(
            case,
            codes,
            dataset,
            patch_size=student_configuration(model, options).patch_size,
            networks=list(range(len(places.source.folds))),
        )


def _describe(places: Places, options: CompressOptions) -> Description:
    source, model = places.source, places.model
    labels, size = model.plans.get_label_manager(model.dataset_json), teacher_size(source)
    return Description(
        teacher_maps="stored",
        step_size=STEP_SIZE,
        mirroring=options.mirroring,
        channels=labels.num_segmentation_heads,
        regions=labels.has_regions,
        networks=[describe_origin(model, source.file(fold)) for fold in source.folds],
        parameters=size.parameters,
        macs=size.macs,
        patch_size=model.input_shape[1:],
    )
