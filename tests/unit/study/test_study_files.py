"""The study files of the repository: the paper's grids, in words that this package knows."""

from pathlib import Path

import pytest
from helpers import find_trainer

from nnunetv2_hlfd.distillation.registry import METHODS, PREFIX
from nnunetv2_hlfd.settings.settings import Settings
from nnunetv2_hlfd.study.spec import read_study

STUDIES = Path(__file__).parents[3] / "studies"
PAPERS = [("kits19", "19", "nnUNetPlans_kidney"), ("lits", "17", "nnUNetPlans_liver")]
# Table 1: SKD, IFD, DKD, HIFD, ours (docs/reference/paper_to_code.md: IMF, EMKD, DSKD)
TABLE_1 = {"alone": "Student", "SKD": "SKD", "IMF": "IMF", "EMKD": "EMKD", "DSKD": "DSKD", "HLFD": "HLFD"}
TABLE_2 = [(0.9, 0.1), (1.8, 0.1), (0.9, 0.2)]


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_study_can_be_read_and_names_trainers_that_exist(file):
    study = read_study(file)
    for each in (*study.teachers, *study.arms):
        assert find_trainer(each.trainer).__name__ == each.trainer


@pytest.mark.parametrize(("name", "dataset", "plans"), PAPERS)
def test_the_papers_grid(name, dataset, plans):
    study = read_study(STUDIES / f"{name}.yaml")
    assert (study.dataset, study.configuration, study.plans) == (dataset, "2d", plans)
    assert len(study.seeds) == 3
    assert list(study.folds) == [0]
    assert [each.trainer for each in study.teachers] == ["nnUNetTrainerUNetPlusPlus"]
    arms = {arm.name: arm for arm in study.arms}
    assert {arm: arms[arm].trainer for arm in TABLE_1} == {arm: f"{PREFIX}{name}" for arm, name in TABLE_1.items()}
    assert set(TABLE_1.values()) - {"Student"} <= set(METHODS)
    hlfd = [Settings.from_dict(arm.settings) for arm in arms.values() if arm.trainer == "nnUNetTrainerHLFD"]
    assert [(each.beta, each.lambda_) for each in hlfd] == TABLE_2
    assert len(arms) == len(TABLE_1) + len(TABLE_2) - 1


@pytest.mark.parametrize("name", [name for name, *_ in PAPERS])
def test_the_papers_recipe_in_every_run(name):
    study = read_study(STUDIES / f"{name}.yaml")
    for each in (*study.teachers, *study.arms):
        settings = Settings.from_dict(each.settings)
        assert (settings.recipe, settings.augmentation, settings.student) == ("paper", "paper", "resnet18")
        assert (settings.epochs, settings.learning_rate) == (120, 1e-3)
