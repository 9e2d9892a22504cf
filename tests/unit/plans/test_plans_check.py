"""Plans from strangers: names that become folders, sizes that become memory, classes that get imported."""

from copy import deepcopy
from pathlib import Path

import pytest
from architectures import architecture
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_hlfd.plans.plans_check import check_configuration, check_plans
from nnunetv2_hlfd.utilities.errors import UserError
from nnunetv2_hlfd.utilities.json_file import read_json, refuse_damage

SOURCE = Path("results/plans.json")
GOOD = {
    "plans_name": "nnUNetPlans_short-1.0",
    "dataset_name": "Dataset001_X",
    "configurations": {
        "2d": {"patch_size": [64, 64], "spacing": [1.0, 1.0], "batch_size": 2, "architecture": architecture("2d", 4)}
    },
    "hlfd": {"base_plans": "nnUNetPlans", "made_from": "nnUNetPlans_short", "settings": {}},
}


def changed(keys, value):
    plans = deepcopy(GOOD)
    block = plans
    for key in keys[:-1]:
        block = block[key]
    block[keys[-1]] = value
    return plans


def check(plans):
    check_plans(plans, SOURCE)
    check_configuration(PlansManager(plans), "2d", SOURCE)


def refusal(plans):
    with pytest.raises(ValueError, match=r"\w") as caught:
        check(plans)
    assert str(SOURCE) in str(caught.value)
    return str(caught.value)


def test_what_nnunet_plans_is_accepted():
    check(GOOD)


@pytest.mark.parametrize(
    "name", ["Dataset001_My data (new) & more", "Dataset7_ä", "Dataset1_a'b", "Dataset1_a, b;c", "a$(b)"]
)
def test_names_that_nnunet_takes_are_accepted(name):
    check(changed(("dataset_name",), name))


@pytest.mark.parametrize(
    "name", ["../../elsewhere", "a/b", "..", ".hidden", "", "a\\b", "a\0b", "a:b", 'a"b', "a|b", None, 3, ["a"], "a\n"]
)
@pytest.mark.parametrize(
    "keys", [("plans_name",), ("dataset_name",), ("hlfd", "base_plans"), ("hlfd", "made_from")], ids=".".join
)
def test_a_name_that_leads_out_of_its_folder_is_refused(keys, name):
    assert f"expected a folder's name as '{'.'.join(keys)}'" in refusal(changed(keys, name))


KWARGS = ("configurations", "2d", "architecture", "arch_kwargs")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_stages", 10**9),
        ("n_conv_per_stage", [2, 2, 10**6, 2]),
        ("n_conv_per_stage_decoder", [2, 2, float("nan")]),
        ("features_per_stage", [32, 64, 10**9, 512]),
        ("features_per_stage", [32, 64, -(10**9), 512]),
        ("features_per_stage", [1] * 10_000),
        ("kernel_sizes", [[3, 3], [3, 3], [10**12, 3], [3, 3]]),
        ("strides", [[1, 1], [2, 2], [2, float("inf")], [2, 2]]),
        ("norm_op_kwargs", {"eps": {"deep": [[10**30]]}}),
    ],
)
def test_numbers_that_no_network_has_are_refused_before_anything_is_built(key, value):
    assert f"no network has {'deep' if key == 'norm_op_kwargs' else key} = " in refusal(changed((*KWARGS, key), value))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("configurations", "2d", "patch_size"), [10**6, 10**6]),
        (("configurations", "2d", "patch_size"), [64, -64]),
        (("configurations", "2d", "patch_size"), [64.5, 64]),
        (("configurations", "2d", "patch_size"), [64]),
        (("configurations", "2d", "patch_size"), None),
        (("configurations", "2d", "spacing"), [[1.0], 1.0]),
        (("configurations", "2d", "spacing"), [1.0, float("nan")]),
        (("configurations", "2d", "spacing"), [1.0]),
        (("configurations", "2d", "batch_size"), 0),
        (("configurations", "2d", "batch_size"), "2"),
        (("configurations", "2d", "architecture"), []),
        (("configurations", "2d", "architecture", "_kw_requires_import"), [["conv_op"]]),
        (("configurations", "2d", "inherits_from"), "2d"),
        (("configurations", "2d"), None),
        (("configurations",), ["2d"]),
        (("hlfd",), ["settings"]),
    ],
    ids=str,
)
def test_anything_of_another_kind_is_refused_naming_the_file(keys, value):
    refusal(changed(keys, value))


@pytest.mark.parametrize("key", ["network_class_name", "conv_op", "nonlin"])
def test_plans_that_import_anything_else_are_refused(key):
    keys = KWARGS[:-1] if key == "network_class_name" else KWARGS
    assert "asks to import 'os.system'" in refusal(changed((*keys, key), "os.system"))


@pytest.mark.faults("hostile files")
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"a": ' + "9" * 100_000 + "}"])
def test_json_that_no_parser_survives_is_damaged(tmp_path, text):
    (tmp_path / "plans.json").write_text(text)
    with pytest.raises(ValueError, match=r"plans\.json is damaged"):
        read_json(tmp_path / "plans.json")


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError("deep"), MemoryError(), ZeroDivisionError("x"), ValueError("x")]
)
def test_whatever_a_file_makes_others_raise_becomes_one_error_with_its_name(error):
    with (
        pytest.raises(ValueError, match=rf"^plans.json is damaged: {type(error).__name__}: "),
        refuse_damage("plans.json"),
    ):
        raise error


def test_errors_that_are_clear_already_and_those_of_the_file_system_pass():
    for error in (UserError("clear"), FileNotFoundError("gone")):
        with pytest.raises(type(error)) as caught, refuse_damage("plans.json"):
            raise error
        assert caught.value is error


CLASSES = """
import os
from torch import nn

class Net(nn.Module):
    pass
"""


def test_a_package_that_the_user_trusts_may_hold_networks_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "foreign_networks.py").write_text(CLASSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    keys = ("configurations", "2d", "architecture", "network_class_name")
    message = refusal(changed(keys, "foreign_networks.Net"))
    assert "asks to import 'foreign_networks.Net'" in message
    assert "nnUNet_hlfd_trust_imports=foreign_networks in the environment" in message
    monkeypatch.setenv("nnUNet_hlfd_trust_imports", "another, foreign_networks")
    check(changed(keys, "foreign_networks.Net"))
    for name in (
        "foreign_networks.os.system",
        "foreign_networks.nn.functional.relu",
        "os.system",
        "foreign_networks2.Net",
    ):
        refusal(changed(keys, name))
