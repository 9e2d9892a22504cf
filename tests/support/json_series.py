"""Damaged JSON files, one after the other, through all code that reads them: `run(main, ...)` in its own process."""

import contextlib
import copy
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import damage_series
import matplotlib.pyplot as plt
import torch
from damage import MARKUP, damage_json
from damage_series import HEADROOM, SECONDS, HangError
from dynamic_network_architectures.initialization.weight_init import InitWeights_He

from nnunetv2_hlfd.deploy.card import CARD_FILE, write_card
from nnunetv2_hlfd.deploy.describe import describe
from nnunetv2_hlfd.deploy.export import export_nnunet
from nnunetv2_hlfd.deploy.inputs import FINGERPRINT
from nnunetv2_hlfd.deploy.package import read_exported
from nnunetv2_hlfd.deploy.predictor import Predictor
from nnunetv2_hlfd.deploy.runtime.errors import UserError as RuntimeUserError
from nnunetv2_hlfd.deploy.source import read_source
from nnunetv2_hlfd.distillation.method import ALL_NEEDS
from nnunetv2_hlfd.models import checkpoints
from nnunetv2_hlfd.models.folder import ModelFolder
from nnunetv2_hlfd.models.split import held_out_cases, split_of
from nnunetv2_hlfd.report.arms import Arm, group_models
from nnunetv2_hlfd.report.costs import Cost
from nnunetv2_hlfd.report.findings import Findings
from nnunetv2_hlfd.report.lesions import lesion_recall, measure_lesions
from nnunetv2_hlfd.report.models import check_same_cases, read_models
from nnunetv2_hlfd.report.page import Page, Picture, to_html, to_markdown
from nnunetv2_hlfd.report.sections import compose
from nnunetv2_hlfd.report.summary import summarize
from nnunetv2_hlfd.report.write import tables_of
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.study.plan import plan_runs
from nnunetv2_hlfd.study.spec import read_study
from nnunetv2_hlfd.teacher.teacher import StudentSide, load_teacher
from nnunetv2_hlfd.training import find_trainer
from nnunetv2_hlfd.utilities.errors import UserError

DATASET = "Dataset901_Phantom"
STUDY = {
    "study": "damaged",
    "dataset": 901,
    "configuration": "2d",
    "folds": [0],
    "seeds": [1, 2],
    "settings": {"num_epochs": 1, "beta": 0.9},
    "teachers": {"big": {"settings": {"num_epochs": 2}}},
    "arms": {
        "alone": {"trainer": "nnUNetTrainerStudent"},
        "HLFD": {"trainer": "nnUNetTrainerHLFD", "grid": {"beta": [1, 2]}},
    },
    "report": {"paper_evaluation": "tumor", "margin": 0.02},
}


class Files:
    """Two finished models, an export of one, and what is beside them."""

    def __init__(self, work: Path, teacher: Path, student: Path) -> None:
        self.work = work
        without_maps = shutil.ignore_patterns("*.nii.gz")  # whose lesions take long to count
        self.teacher = shutil.copytree(teacher, work / teacher.name, ignore=without_maps)
        self.student = shutil.copytree(student, work / student.name, ignore=without_maps)
        for model in (self.teacher, self.student):
            _shorten(model / "fold_0/checkpoint_final.pth")
        self.splits = Path(os.environ["nnUNet_preprocessed"]) / DATASET / "splits_final.json"
        self.exported = export_nnunet(read_source(self.student, ["0"], "checkpoint_final.pth"), work / "export").folder
        self.study = work / "study.yaml"
        self.study.write_text(json.dumps(STUDY))
        model = ModelFolder.open(self.student)
        cases = json.loads((teacher / "fold_0/validation/summary.json").read_text())["metric_per_case"]
        names = [Path(case["prediction_file"]).name.removesuffix(".nii.gz") for case in cases]
        self.student_side = StudentSide(
            plans=model.plans,
            plans_names=["nnUNetPlans"],
            configuration="2d",
            dataset_json=copy.deepcopy(model.dataset_json),
            fold=0,
            validation_cases=names,
            results_folder=work,
        )
        self.summary = self._report(True)

    def kinds(self) -> dict[str, tuple[Path, Callable[[], object]]]:
        """Name -> the file, and what reads it."""
        kinds: dict[str, tuple[Path, Callable[[], object]]] = {}
        for name, reads in {
            "validation/summary.json": lambda: self._report(True),
            "distillation.json": self._report,
            "debug.json": self._report,
        }.items():
            kinds[f"{name}, report"] = (self.student / "fold_0" / name, reads)
        for name in ("plans.json", "dataset.json"):
            kinds[f"{name}, report"] = (self.student / name, self._report)
            kinds[f"{name}, export"] = (self.student / name, self._export)
            kinds[f"{name}, predict"] = (self.student / name, self._predict)
        kinds["dataset_fingerprint.json, export"] = (self.student / FINGERPRINT, self._export)
        kinds["export.json, model card"] = (self.exported / "export.json", self._complete_card)
        kinds["distillation.json, export"] = (self.student / "fold_0/distillation.json", self._export)
        kinds["validation/summary.json, teacher"] = (self.teacher / "fold_0/validation/summary.json", self._teach)
        kinds["dataset.json, teacher"] = (self.teacher / "dataset.json", self._teach)
        kinds["plans.json, teacher"] = (self.teacher / "plans.json", self._teach)
        kinds["export.json, predict"] = (self.exported / "export.json", lambda: read_exported(self.exported))
        kinds["splits_final.json, teacher"] = (self.splits, self._splits)
        kinds["splits_final.json, study"] = (self.splits, self._plan)
        kinds["study.yaml, study"] = (self.study, lambda: read_study(self.study))
        return kinds

    def _report(self, measure: bool = False) -> Any:
        """All of the report but drawing, and the measurements of networks."""
        models = read_models([self.teacher, self.student])
        folds = check_same_cases(models)
        teacher, arms = Arm(name="teacher", models=models[:1]), group_models(models[1:])
        summary = summarize(teacher, arms, folds) if measure else self.summary
        everyone = [teacher, *arms]
        lesions, missing = measure_lesions(models, folds)
        found = Findings(
            teacher=teacher,
            students=arms if measure else [replace(arm, name=arms[0].name) for arm in arms],
            folds=folds,
            summary=summary,
            recall=lesion_recall(lesions),
            without_lesions=missing,
            costs={arm.name: Cost(missing="not measured") for arm in everyone},
            curves={},
            margin=0.02,
        )
        try:
            page = compose(found)
            _check_plain(to_markdown(page))
            _check_plain(to_html(_without_pictures(page)).replace("](", "] ("))  # a link in Markdown alone
            for table in tables_of(found, lesions).values():
                table.to_csv(index=False)
        finally:
            plt.close("all")
        return summary

    def _export(self) -> None:
        try:
            exported = export_nnunet(read_source(self.student, ["0"], "checkpoint_final.pth"), self.work / "out").folder
            _check_card(exported)
            describe(ModelFolder.open(self.student), mirroring=True)
        finally:
            shutil.rmtree(self.work / "out", ignore_errors=True)

    def _complete_card(self) -> None:
        write_card(self.exported)
        _check_card(self.exported)

    def _predict(self) -> None:
        Predictor(self.student, device=torch.device("cpu"))

    def _teach(self) -> None:
        os.environ["nnUNet_hlfd_teacher"] = str(self.teacher)
        load_teacher(self.student_side, Settings(), {"HLFD": ALL_NEEDS})
        held_out_cases(ModelFolder.open(self.teacher), "0")

    def _splits(self) -> None:
        split_of(DATASET, "0")
        held_out_cases(ModelFolder.open(self.teacher), "0")

    def _plan(self) -> None:
        plan_runs(read_study(self.study))


def _without_pictures(page: Page) -> Page:
    """Drawing takes long."""
    sections = [
        replace(section, content=[part for part in section.content if not isinstance(part, Picture)])
        for section in page.sections
    ]
    return replace(page, sections=sections)


def _check_card(folder: Path) -> None:
    card = (folder / CARD_FILE).read_text()
    _check_plain(re.sub(r"\n```bash\n.*?\n```", "", card, flags=re.DOTALL))  # there, names are quoted for the shell


def _check_plain(text: str) -> None:
    found = [mark for mark in MARKUP if mark in text]
    assert not found, f"markup of a stranger: {found}"


def _leave_out_what_stays_whole() -> None:
    """Read each checkpoint and look up each trainer once, and draw no weights that are replaced at once.

    Doing so again for each damaged file would be most of the work.
    """
    InitWeights_He.__call__ = lambda *_: None
    find_trainer.recursive_find_trainer_class_by_name = cache(find_trainer.recursive_find_trainer_class_by_name)
    read, known = checkpoints._restricted, {}

    def read_once(path: Path, keys: Collection[str] | None) -> Any:
        if path not in known:
            known[path] = read(path, None)
        content = {key: value for key, value in known[path].items() if keys is None or key in keys}
        return {key: value if key == "network_weights" else copy.deepcopy(value) for key, value in content.items()}

    checkpoints._restricted = read_once


def _shorten(checkpoint: Path) -> None:
    """Leave out what only a training needs: these checkpoints are read again and again."""
    content = torch.load(checkpoint, weights_only=False)
    torch.save({**content, "optimizer_state": {}, "logging": {}}, checkpoint)


def read_all(files: Files, samples: int, seed: int, only: str = "") -> dict[str, Any]:
    """Read each file in so many damaged forms; a failure is anything but success and UserError."""
    result: dict[str, Any] = {"counts": {}, "failures": [], "slowest_seconds": 0.0}
    for kind, (path, read) in files.kinds().items():
        if only not in ("", kind):
            continue
        whole = path.read_bytes()
        content = json.loads(whole)
        read()  # undamaged
        counts: Counter[str] = Counter()
        start_kind = time.process_time()
        for number in range(samples):
            path.write_bytes(damage_json(content, random.Random(f"{seed}-{kind}-{number}")))
            start = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                read()
                counts["read"] += 1
            except (UserError, RuntimeUserError):
                counts["refused"] += 1
            except BaseException as error:
                where = traceback.format_exc().splitlines()[-7:]
                result["failures"].append({"number": number, "kind": kind, "error": repr(error)[:300], "where": where})
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            result["slowest_seconds"] = max(result["slowest_seconds"], round(time.process_time() - start, 2))
        path.write_bytes(whole)
        result["counts"][kind] = {**counts, "seconds": round(time.process_time() - start_kind)}
    return result


def _hang(*_: object) -> None:
    raise HangError


def main(teacher: Path, student: Path, samples: int, seed: int, only: str = "") -> None:
    """Print as JSON what came out.

    Args:
        teacher: folder of a finished nnUNetTrainerTeacher.
        student: folder of a finished nnUNetTrainerHLFD.
        samples: number of damaged forms of each file.
        seed: of the damage.
        only: the kind of files that is damaged; unset: each.
    """
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGPROF, _hang)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        Path(os.devnull).open("w") as null,
        contextlib.redirect_stderr(null),
    ):
        files = Files(Path(folder), teacher, student)
        _leave_out_what_stays_whole()
        size = damage_series._address_space()
        resource.setrlimit(resource.RLIMIT_AS, (size + HEADROOM,) * 2)
        result = read_all(files, samples, seed, only)
    print(json.dumps(result, indent=1))
