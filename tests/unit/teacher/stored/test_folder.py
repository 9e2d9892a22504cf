"""The folder of stored maps: what is whole, what is not, and what a student is refused."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2, nnUNetDatasetNumpy

from nnunetv2_hlfd.distillation.method import ATTENTION, FINAL, HEADS, LOGITS, TeacherShape
from nnunetv2_hlfd.distillation.requests import attention_request
from nnunetv2_hlfd.losses.divergence import probabilities
from nnunetv2_hlfd.teacher.stored.checks import check_cases, check_memory, check_needs
from nnunetv2_hlfd.teacher.stored.dataset import maps_file, open_maps
from nnunetv2_hlfd.teacher.stored.description import Description
from nnunetv2_hlfd.teacher.stored.encoding import encode
from nnunetv2_hlfd.teacher.stored.folder import MAPS_JSON, MapsFolder, choose_maps, find_maps
from nnunetv2_hlfd.teacher.stored.teacher import StoredTeacher

SIZE = (6, 40, 40)
CASES = ["case_0", "case_1", "case_2"]
DESCRIPTION = Description(
    teacher_maps="stored",
    step_size=0.5,
    mirroring=False,
    channels=3,
    regions=False,
    networks=[{"sha256": "a" * 64, "folder": "teacher", "checkpoint": "fold_0/checkpoint_final.pth"}],
    parameters=1000,
    macs=4_000_000,
    patch_size=[20, 20],
)


def save(dataset_class, folder, case, size=SIZE, value=0.0):
    image = np.random.default_rng(int(case[-1])).normal(value, size=(1, *size)).astype(np.float32)
    blocks = {"chunks": (1, *size), "blocks": (1, *size)} if dataset_class is nnUNetDatasetBlosc2 else {}
    dataset_class.save_case(image, np.zeros((1, *size), np.int8), {}, str(folder / case), **blocks)


def logits(seed):
    return 5 * torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(seed))


def codes(seed):
    return encode(logits(seed), regions=False).numpy()


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "nnUNetPlans_2d"
    folder.mkdir()
    return folder


@pytest.fixture(params=[nnUNetDatasetBlosc2, nnUNetDatasetNumpy])
def dataset(request, data):
    for case in CASES:
        save(request.param, data, case)
    return request.param(str(data))


def filled(data, dataset, description=DESCRIPTION, cases=CASES):
    maps = MapsFolder.for_teacher(data, description)
    for number, case in enumerate(cases):
        maps.add(case, codes(number), dataset, patch_size=(20, 20), networks=[0])
    return maps


def states(maps, dataset):
    return [maps.state(case, dataset) for case in CASES]


def test_maps_stand_beside_the_data_and_are_read_as_they_were_written(data, dataset):
    maps = filled(data, dataset)
    assert maps.path == data.parent / f"nnUNetPlans_2d_teacher_{DESCRIPTION.key}"
    read = MapsFolder.read(maps.path)
    assert read.description == DESCRIPTION
    assert states(read, dataset) == ["whole"] * 3
    for number, case in enumerate(CASES):
        np.testing.assert_array_equal(open_maps(maps_file(read.path, case))[:], codes(number))
    assert sorted(file.name for file in maps.path.iterdir()) == [*(f"{case}.b2nd" for case in CASES), MAPS_JSON]


def test_what_is_missing_is_found_and_the_rest_is_kept(data, dataset):
    """After a kill: maps that maps.json does not know of, and none at all."""
    maps = filled(data, dataset, cases=CASES[:2])
    content = json.loads((maps.path / MAPS_JSON).read_text())
    del content["cases"]["case_1"]
    (maps.path / MAPS_JSON).write_text(json.dumps(content))
    again = MapsFolder.for_teacher(data, DESCRIPTION)
    assert states(again, dataset) == ["whole", "missing", "missing"]
    maps_file(maps.path, "case_0").unlink()
    assert states(again, dataset)[0] == "missing"


def test_cases_that_another_process_adds_are_kept(data, dataset):
    first, second = (MapsFolder.for_teacher(data, DESCRIPTION) for _ in range(2))
    first.add("case_0", codes(0), dataset, patch_size=(20, 20), networks=[0])
    second.add("case_1", codes(1), dataset, patch_size=(20, 20), networks=[0])
    assert states(MapsFolder.read(first.path), dataset) == ["whole", "whole", "missing"]


@pytest.mark.parametrize("size", [SIZE, (6, 40, 42)])
def test_data_that_were_preprocessed_anew_are_noticed(data, dataset, size):
    maps = filled(data, dataset)
    for file in data.glob("case_1*"):
        file.unlink()
    save(type(dataset), data, "case_1", size, value=1.0)
    assert states(maps, dataset) == ["whole", "of other data", "whole"]
    there, here = ("x".join(map(str, extents)) for extents in (SIZE, size))
    shapes = rf"\(case_1: shape {there} there, {here} here\)"
    with pytest.raises(
        ValueError, match=rf"case_1 in .* from other preprocessed data {shapes}. Make them again: TEACH"
    ):
        check_cases(maps, dataset, "TEACH")


def test_altered_maps_are_noticed_and_a_student_is_told(data, dataset):
    maps = filled(data, dataset)
    file = maps_file(maps.path, "case_2")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert states(maps, dataset) == ["whole", "whole", "damaged"]
    with pytest.raises(ValueError, match=r"The maps of case_2 in .* are damaged. Make them again: TEACH"):
        check_cases(maps, dataset, "TEACH")


def test_a_student_needs_maps_of_all_its_cases(data, dataset):
    maps = filled(data, dataset, cases=CASES[:1])
    message = r"No stored maps of this teacher for 2 of 3 training cases \(case_1, case_2\) in .* Make them: TEACH"
    with pytest.raises(ValueError, match=message):
        check_cases(maps, dataset, "TEACH")
    check_cases(filled(data, dataset), dataset, "TEACH")


def test_a_preprocessed_case_that_is_gone_is_named(data, dataset):
    maps = filled(data, dataset)
    for file in data.glob("case_1*"):
        file.unlink()
    with pytest.raises(ValueError, match="Expected the preprocessed case case_1 in"):
        maps.state("case_1", dataset)


def test_only_the_cases_of_a_student_decide_whether_its_maps_are_the_same(data, dataset):
    maps = filled(data, dataset, cases=CASES[:2])
    both, first = maps.digest(CASES[:2]), maps.digest(CASES[:1])
    assert filled(data, dataset).digest(CASES[:2]) == both
    maps.add("case_1", codes(9), dataset, patch_size=(20, 20), networks=[0])
    assert maps.digest(CASES[:2]) != both
    assert maps.digest(CASES[:1]) == first


@pytest.mark.parametrize(
    "change",
    [{"teacher_maps": "crossfit"}, {"step_size": 0.25}, {"mirroring": True}, {"networks": [{"sha256": "b" * 64}]}],
)
def test_maps_that_are_made_otherwise_have_a_folder_of_their_own(data, dataset, change):
    """Those of another teacher are passed over; of two ways to predict the same teacher none is preferred."""
    first, other = filled(data, dataset), filled(data, dataset, replace(DESCRIPTION, **change))
    assert other.path != first.path
    hashes = other.description.hashes
    if {"step_size", "mirroring"} & change.keys():
        with pytest.raises(ValueError, match=r"Expected one folder with maps of this teacher, found .*Delete all but"):
            choose_maps(find_maps(data, "stored", hashes), ())
    else:
        assert [each.path for each in find_maps(data, change.get("teacher_maps", "stored"), hashes)] == [other.path]
        assert [each.path for each in find_maps(data, "stored", DESCRIPTION.hashes)] == [first.path]


def test_maps_of_nobody_are_none(data, dataset):
    assert find_maps(data, "stored", DESCRIPTION.hashes) == []
    filled(data, dataset, replace(DESCRIPTION, format="of a later version"))
    assert find_maps(data, "stored", DESCRIPTION.hashes) == []
    assert choose_maps([], ()) is None


def test_of_several_folders_that_with_least_beside_what_is_asked_is_taken(data, dataset):
    late, mids = attention_request((3,), 1.0), attention_request((1, 2), 1.0)
    made = [
        MapsFolder(data, replace(DESCRIPTION, requests=[asdict(each) for each in requests]), {})
        for requests in ((), (late,), (late, mids))
    ]
    assert len({folder.description.key for folder in made}) == 3
    assert made[0].description.key == DESCRIPTION.key
    for asked, expected in (((), 0), ((late,), 1), ((mids,), 2), ((mids, late), 2)):
        assert choose_maps(made, asked) is made[expected]
    assert choose_maps(made, (attention_request((3,), 2.0),)) is None
    assert choose_maps(made[2:] + made[1:2], ()) is made[1]


def test_of_folders_with_as_much_beside_what_is_asked_the_first_is_taken(data):
    """As methods that need different maps leave them; what is asked for is the same in both."""
    requests = [attention_request((stage,), 1.0) for stage in (1, 3)]
    made = [MapsFolder(data, replace(DESCRIPTION, requests=[asdict(request)]), {}) for request in requests]
    assert choose_maps(made, ()) is made[0]
    assert choose_maps(made, (requests[1],)) is made[1]


@pytest.mark.parametrize("content", ['{"cases": {}}', '{"cases"', '{"cases": {"case_0": {}}}'])
def test_a_damaged_description_is_named(data, dataset, content):
    maps = filled(data, dataset)
    (maps.path / MAPS_JSON).write_text(content)
    with pytest.raises(ValueError, match=r"maps\.json is damaged"):
        find_maps(data, "stored", DESCRIPTION.hashes)


def test_a_stored_teacher_answers_for_its_final_map(data, dataset):
    origins = [{**DESCRIPTION.networks[0], "maps_sha256": "c"}]
    teacher = StoredTeacher(filled(data, dataset), origins, TeacherShape())
    batch = torch.from_numpy(np.stack([codes(0)[:, 0], codes(1)[:, 0]])).float()
    expected = torch.stack([logits(0)[:, 0], logits(1)[:, 0]])
    for temperature in (1.0, 4.0):
        found = teacher(batch).probabilities(0, temperature, regions=False)
        assert (found - probabilities(expected, temperature, regions=False)).abs().max() < 0.024
    assert teacher.origins == origins
    assert (teacher.channels, teacher.shape.stages, teacher.shape.networks) == (3, (), 1)
    assert vars(teacher.size([20, 40], 1)) == {"parameters": 1000, "macs": 8_000_000}
    assert str(teacher) == f"StoredTeacher(nnUNetPlans_2d_teacher_{DESCRIPTION.key})"


def test_methods_of_maps_with_few_channels_can_be_taught():
    check_needs({"KD": frozenset({FINAL}), "IMF": frozenset({FINAL})})
    with pytest.raises(ValueError, match=r"CWD needs the teacher's logits, which .* Set teacher_maps to live"):
        check_needs({"AT": frozenset({FINAL, ATTENTION, HEADS}), "CWD": frozenset({FINAL, ATTENTION, LOGITS})})


def test_maps_that_would_fill_the_memory_are_refused():
    check_memory(15, (205, 205, 205))
    check_memory(118, (362, 362))
    message = (
        r"118 map channels of 205x205x205 need 7.6 GiB in every augmentation process \(limit 1\). Set teacher_maps"
    )
    with pytest.raises(ValueError, match=message):
        check_memory(118, (205, 205, 205))
