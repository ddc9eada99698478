"""A described set is the same kind of value as a known family, and its cases are the same."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from federated.configuration.description_file import SHIPPED, find_description
from federated.configuration.load import load_experiment, read_experiment
from federated.configuration.params_file import experiment_names
from federated.data.dataset import SPLITS, Dataset
from federated.data.folders.dataset import read_folder
from federated.data.folders.described.automatic import settle
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.folders.prepared_case import prepare_case
from federated.data.load import known_info, load, locate, locate_local
from federated.data.partitioning import partition_dataset
from federated.data.site_cases import SiteCases
from federated.errors import ConsiliumError
from federated.settings.description import Description
from federated.settings.sections import DataSettings, SitesSettings
from tests.conftest import PROJECT, REAL_DATA
from tests.described_sets import CLASSES, PICTURES, describe, picture_set, volume, write_table

PARAMS = PROJECT / "params.yaml"


def settings_of(root, name="mine", **changes) -> DataSettings:
    described = find_description(name, root)
    assert described is not None
    return DataSettings(dataset=name, source="files", root=root, described=described, **changes)


def read(root, name="mine"):
    settings = settings_of(root, name)
    return load(locate_local(settings), settings)


HIPPOCAMPUS = {
    "task": "segmentation",
    "kind": "volumes",
    "modalities": ["MRI"],
    "labels": {"posterior": 2, "background": 0, "anterior": 1},
    "spacing": [1, 1, 1],
    "shape": [40, 56, 40],
    "whole": True,
    "mirrored": [0],
    "licence": "CC BY-SA 4.0",
}
RETINA = {
    "task": "segmentation",
    "kind": "pictures",
    "labels": {"background": 0, "vessel": 255},
    "shape": [96, 96],
    "whole": False,
    "mirrored": [0, 1],
    "columns": {"images": ["photograph"], "mask": "vessels"},
    "licence": "research use",
}


@pytest.mark.parametrize(
    ("name", "described", "image", "mask"),
    [
        ("hippocampus", HIPPOCAMPUS, "image", "mask"),
        ("retina", RETINA, "photograph", "vessels"),
    ],
)
def test_a_family_described_in_yaml_gives_the_same_prepared_cases(
    tmp_path, name, described, image, mask
):
    known, mine = tmp_path / "known", tmp_path / "mine"
    shape = (24, 30, 20) if name == "hippocampus" else (100, 110)
    write_phantom(FAMILIES[name], known, 12, 0, shape)
    shutil.copytree(known, mine)
    rows = [
        {
            "case": case.name,
            "patient": case.patient,
            image: str(case.images[0].relative_to(known)),
            mask: str(case.mask.relative_to(known)),
        }
        | ({"site": case.site} if case.site else {})
        for case in FAMILIES[name].find(known).cases
    ]
    write_table(mine, rows[::-1])
    describe(mine, described)
    of_module, of_yaml = read_folder(known, name), read(tmp_path)
    assert of_yaml.unmatched == of_module.unmatched == ()
    assert of_yaml.family.labels == of_module.family.labels
    for split in SPLITS:
        pairs = list(zip(of_module.cases[split], of_yaml.cases[split], strict=True))
        assert pairs
        for theirs, ours in pairs:
            assert (ours.name, ours.patient, ours.site) == (
                *(theirs.name, theirs.patient, theirs.site),
            )
            a = prepare_case(of_module.family, theirs)
            b = prepare_case(of_yaml.family, ours)
            assert a.whole.numpy().tobytes() == b.whole.numpy().tobytes()
            assert a.whole_mask.numpy().tobytes() == b.whole_mask.numpy().tobytes()
            assert a.geometry.learned == b.geometry.learned
    for field in ("dims", "channels", "spacing", "shape", "whole", "window", "mirrored"):
        assert getattr(of_yaml.family, field) == getattr(of_module.family, field)


def test_values_of_masks_come_back_in_predicted_masks(tmp_path):
    picture_set(tmp_path / "mine")
    describe(
        tmp_path / "mine",
        {**PICTURES, "columns": {"ignored": ["label"]}, "labels": {"lesion": 255, "none": [0, 7]}},
    )
    family = read(tmp_path).family
    assert family.labels == ("none", "lesion")
    assert family.unknown_labels([0, 1, 7, 255]) == (1,)
    assert family.values_in_files(np.array([[0, 1]], np.uint8)).tolist() == [[0, 255]]


def nnunet(folder):
    rng = np.random.default_rng(0)
    for number in range(4):
        values = rng.normal(size=(10, 12, 9)).astype(np.float32)
        mask = np.zeros((10, 12, 9), np.uint8)
        mask[3:6, 3:6, 3:6] = 1
        for channel in range(2):
            name = f"x_{number}_{channel:04d}.nii.gz"
            volume(folder / "imagesTr" / name, values + channel * mask, (1, 1, 2))
        volume(folder / "labelsTr" / f"x_{number}.nii.gz", mask, (1, 1, 2))
    volume(folder / "imagesTs" / "x_9_0000.nii.gz", values, (1, 1, 2))
    told = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "tumour": 1},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(told))
    return told


def test_a_raw_folder_of_nnunet_is_read_as_it_is(tmp_path):
    nnunet(tmp_path / "Dataset001_X")
    dataset = read(tmp_path, "Dataset001_X")
    assert dataset.info.channels == 2
    assert dataset.info.classes == ("background", "tumour")
    assert dataset.unmatched == ()
    assert dataset.family.spacing == (1, 1, 2)
    assert dataset.family.shape == (16, 16, 16)
    case = dataset.cases["train"][0]
    assert [path.name[-12:] for path in case.images] == ["_0000.nii.gz", "_0001.nii.gz"]
    assert prepare_case(dataset.family, case).whole.shape == (2, 16, 16, 16)


def test_a_dataset_yaml_adds_to_a_dataset_json(tmp_path):
    nnunet(tmp_path / "d")
    (tmp_path / "d" / "dataset.yaml").write_text(
        "layout: nnunet\nmirrored: [0]\nspacing: [1,1,1]\n"
    )
    family = read(tmp_path, "d").family
    assert (family.mirrored, family.spacing, family.channels) == ((0,), (1, 1, 1), 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": {"background": 0, "all": [1, 2]}}, "regions"),
        ({"labels": {"background": 0, "a": 1, "ignore": 2}}, "ignore"),
        ({"channel_names": {"0": "CT", "1": "T2"}}, "no `window`"),
        ({"channel_names": {"1": "T1"}}, "numbers from 0 on"),
        ({"file_ending": ".mha"}, "can be read"),
    ],
)
def test_what_a_dataset_json_cannot_mean_here_is_refused(tmp_path, change, said):
    told = nnunet(tmp_path / "d")
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(told | change))
    with pytest.raises(ConsiliumError, match=said):
        find_description("d", tmp_path)


def test_a_damaged_dataset_json_is_named_with_line_and_column(tmp_path):
    nnunet(tmp_path / "d")
    (tmp_path / "d" / "dataset.json").write_text('{"labels": {\n "a": 0,\n}')
    with pytest.raises(ConsiliumError, match=r"dataset\.json is not JSON: .* \(line \d, column \d"):
        find_description("d", tmp_path)


def test_a_task_of_the_decathlon_is_read_by_its_list(tmp_path):
    folder = tmp_path / "Task99_X"
    training = []
    for number in range(4):
        values = np.random.default_rng(number).normal(size=(9, 9, 9)).astype(np.float32)
        volume(folder / "imagesTr" / f"x_{number}.nii.gz", values)
        volume(folder / "labelsTr" / f"x_{number}.nii.gz", (values > 1).astype(np.uint8))
        training.append({k: f"./{d}/x_{number}.nii.gz" for k, d in KEYS.items()})
    told = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "spot"},
        "licence": "CC0",
        "training": training,
    }
    (folder / "dataset.json").write_text(json.dumps(told))
    dataset = read(tmp_path, "Task99_X")
    assert sum(dataset.info.cases.values()) == 4
    assert dataset.unmatched == ()
    training[1]["image"] = "../x.nii.gz"
    training[2]["label"] = "./labelsTr/none.nii.gz"
    (folder / "dataset.json").write_text(json.dumps(told))
    with pytest.raises(ConsiliumError, match=r"training\[1\]\.image.*leaves.*training\[2\]\.label"):
        find_description("Task99_X", tmp_path)


KEYS = {"image": "imagesTr", "label": "labelsTr"}


def test_pictures_of_differing_sizes_become_images_of_one_shape(tmp_path):
    picture_set(tmp_path / "mine", 30)
    describe(tmp_path / "mine", CLASSES)
    dataset = read(tmp_path)
    assert isinstance(dataset, Dataset)
    assert dataset.info.classes == ("normal", "ill")
    assert {array.shape[1:] for array in dataset.images.values()} == {(3, 16, 24)}
    assert dataset.images["train"].dtype == np.uint8
    assert dataset.images["train"].max() > 240
    # Class 1 has the larger square, which is still seen after resizing.
    bright = (dataset.images["train"][:, 0] > 120).mean(axis=(1, 2))
    labels = dataset.labels["train"]
    assert bright[labels == 1].min() > bright[labels == 0].max()


def test_splits_are_by_patient_and_always_the_same(tmp_path):
    rows = picture_set(tmp_path / "mine", 80)
    for number in range(0, 80, 8):  # two images of one patient, of one site and one class
        rows[number + 4]["patient"] = rows[number]["patient"]
    write_table(tmp_path / "mine", rows)
    describe(tmp_path / "mine", CLASSES)
    dataset = read(tmp_path)
    again = read(tmp_path)
    owners: dict[str, set[str]] = {}
    for split in SPLITS:
        assert dataset.origins[split] == again.origins[split]
        for origin in dataset.origins[split]:
            owners.setdefault(origin.patient, set()).add(split)
    assert all(len(splits) == 1 for splits in owners.values())
    assert len(owners) == 70


def test_a_rare_class_is_in_every_split_of_every_site(tmp_path):
    rows = picture_set(tmp_path / "mine", 80)
    for number, row in enumerate(rows):
        row["label"] = "1" if number < 6 else "0"
    write_table(tmp_path / "mine", rows)
    describe(tmp_path / "mine", CLASSES)
    dataset = read(tmp_path)
    for split in SPLITS:
        pairs = zip(dataset.labels[split], dataset.origins[split], strict=True)
        ill = [origin.site for label, origin in pairs if label == 1]
        assert sorted(ill) == ["north", "south"]


def test_classified_pictures_have_natural_sites_and_their_patients(tmp_path):
    picture_set(tmp_path / "mine", 40)
    describe(tmp_path / "mine", CLASSES)
    dataset = read(tmp_path)
    partition = partition_dataset(dataset, SitesSettings(count=2, partition="natural"), 0)
    assert list(partition.sites) == ["site-north", "site-south"]
    for split in SPLITS:
        for index in partition.sites["site-north"][split]:
            assert dataset.origins[split][index].site == "north"
    cases = SiteCases(dataset, partition)
    assert cases.patients("site-north", "train")[0].startswith("p")


def test_all_images_of_a_patient_are_dealt_to_one_site(tmp_path):
    rows = picture_set(tmp_path / "mine", 40)
    for number in range(0, 40, 2):
        rows[number + 1] |= {"patient": rows[number]["patient"], "label": rows[number]["label"]}
    write_table(tmp_path / "mine", rows)
    describe(tmp_path / "mine", CLASSES)
    dataset = read(tmp_path)
    for how in ("iid", "dirichlet"):
        settings = SitesSettings(count=3, partition=how, min_cases=1)
        partition = partition_dataset(dataset, settings, 0)
        sites: dict[str, set[str]] = {}
        for site, splits in partition.sites.items():
            for split in SPLITS:
                for index in splits[split]:
                    sites.setdefault(dataset.origins[split][index].patient, set()).add(site)
        assert len(sites) == 20
        assert all(len(found) == 1 for found in sites.values())


def test_a_record_is_the_file_and_its_label_whatever_shape_it_is_resized_to(tmp_path):
    rows = picture_set(tmp_path / "mine")
    describe(tmp_path / "mine", CLASSES)
    first = {o.name: o.record for split in SPLITS for o in read(tmp_path).origins[split]}
    describe(tmp_path / "mine", {**CLASSES, "shape": [8, 8]})
    second = {o.name: o.record for split in SPLITS for o in read(tmp_path).origins[split]}
    assert first == second
    rows[0]["label"] = "1"
    write_table(tmp_path / "mine", rows)
    third = {o.name: o.record for split in SPLITS for o in read(tmp_path).origins[split]}
    assert [name for name in first if first[name] != third[name]] == ["case_00"]


def test_every_picture_that_cannot_be_used_is_named_at_once(tmp_path):
    picture_set(tmp_path / "mine")
    describe(tmp_path / "mine", CLASSES)
    Image.fromarray(np.full((9, 9), 7, np.uint8)).save(tmp_path / "mine/images/case_03.png")
    (tmp_path / "mine/images/case_05.png").write_bytes(b"no picture")
    with pytest.raises(ConsiliumError, match=r"2 of 12 cases .*case_0[35].*case_0[35]"):
        read(tmp_path)


def test_volumes_are_classified_at_a_spacing_that_shows_all_of_them(tmp_path):
    rows = []
    for number in range(6):
        values = np.random.default_rng(number).normal(size=(20, 24, 10)).astype(np.float32)
        volume(tmp_path / "mine" / f"v{number}.nii", values, (2, 2, 5))
        rows.append({"image": f"v{number}.nii", "label": "ab"[number % 2]})
    write_table(tmp_path / "mine", rows)
    described = {"task": "classification", "kind": "volumes", "labels": {"a": "a", "b": "b"}}
    describe(tmp_path / "mine", {**described, "licence": "CC0"})
    dataset = read(tmp_path)
    assert dataset.info.shape == (24, 24, 16)
    assert dataset.images["train"].shape[1:] == (1, 24, 24, 16)


def npz(folder, **changes):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, 12, 10), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2 + 3).reshape(-1, 1)
    arrays |= changes
    np.savez(folder / "mine.npz", **{name: a for name, a in arrays.items() if a is not None})
    described = {"task": "classification", "kind": "pictures", "layout": "arrays"}
    describe(folder, {**described, "labels": {"b": 4, "a": 3}, "licence": "CC0"})


def test_arrays_of_ones_own_are_taken_as_they_are(tmp_path):
    npz(tmp_path / "mine")
    dataset = read(tmp_path)
    assert (dataset.info.channels, dataset.info.shape) == (1, (12, 10))
    assert dataset.info.classes == ("a", "b")
    assert dataset.labels["val"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(("sides", "channels"), [((12, 10), 1), ((12, 10, 3), 3)])
def test_what_is_known_of_arrays_without_reading_them_has_their_colours(tmp_path, sides, channels):
    """A plan's model is made by it; without files to read, by generated pictures, with three."""
    images = {
        f"{split}_images": np.zeros((count, *sides), np.uint8)
        for split, count in (("train", 12), ("val", 4), ("test", 4))
    }
    npz(tmp_path / "mine", **images)
    settings = settings_of(tmp_path, "mine")
    assert known_info(settings).channels == read(tmp_path).info.channels == channels
    assert known_info(settings.model_copy(update={"source": "phantom"})).channels == 3


def test_arrays_of_other_colours_than_the_description_states_are_refused(tmp_path):
    npz(tmp_path / "mine")
    text = (tmp_path / "mine" / "dataset.yaml").read_text()
    (tmp_path / "mine" / "dataset.yaml").write_text(f"{text}\ncolours: 3\n")
    with pytest.raises(ConsiliumError, match="states colours=3, and the arrays have 1"):
        find_description("mine", tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"val_labels": None}, "lacks val_labels"),
        ({"extra": np.zeros(3)}, "has extra too"),
        ({"val_labels": np.full((4, 1), 9)}, "the values 9"),
        ({"val_images": np.zeros((4, 12, 10), np.float32)}, "type float32"),
        ({"val_images": np.zeros((4, 10, 12), np.uint8)}, "have the shapes"),
        ({"val_labels": np.zeros((3, 1), np.int64)}, r"needs \(4,\)"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path, change, said):
    npz(tmp_path / "mine", **change)
    with pytest.raises(ConsiliumError, match=said):
        find_description("mine", tmp_path)


def test_auto_becomes_the_median_spacing_and_a_shape_that_holds_all(tmp_path):
    rows = []
    for number, spacing in enumerate([(1, 1, 2), (1, 1, 3), (1.5, 1, 3)]):
        volume(tmp_path / "mine" / f"v{number}.nii", np.zeros((20, 20, 10), np.uint8), spacing)
        rows.append({"image": f"v{number}.nii", "mask": f"v{number}.nii"})
    write_table(tmp_path / "mine", rows)
    describe(tmp_path / "mine", HIPPOCAMPUS | {"spacing": "auto", "shape": "auto", "whole": None})
    described = find_description("mine", tmp_path)
    assert described.spacing == (1, 1, 3)
    assert described.shape == (32, 24, 16)  # 30 voxels of 1 mm, 20 of 1 mm, 10 of 3 mm
    assert described.whole is True


def test_large_volumes_are_seen_in_patches(tmp_path):
    path = tmp_path / "v.nii"
    volume(path, np.zeros((100, 120, 80), np.uint8))
    rough = Description(task="segmentation", kind="volumes", labels={"a": 0, "b": 1}, licence="CC0")
    (case,) = FAMILIES["hippocampus"].find(tmp_path).cases or (_case(path),)
    settled = settle(rough, [case])
    assert settled.whole is False
    assert np.prod(settled.shape) <= 64**3
    assert all(side % 8 == 0 for side in settled.shape)


def _case(path):
    from federated.data.folders.families import CaseFiles

    return CaseFiles("v", (path,), None, "v")


def test_a_resolved_experiment_carries_the_description_and_needs_no_folder_again(tmp_path):
    picture_set(tmp_path / "data" / "mine")
    describe(tmp_path / "data" / "mine", CLASSES)
    sets = ["data.dataset=mine", "data.source=files", f"data.root={tmp_path / 'data'}"]
    experiment = load_experiment("demo", sets, PARAMS)
    (tmp_path / "e.json").write_text(json.dumps(experiment.to_json()))
    shutil.rmtree(tmp_path / "data")
    assert read_experiment(tmp_path / "e.json") == experiment
    assert "described" not in load_experiment("organ", params=PARAMS).to_json()["data"]


@pytest.mark.parametrize("name", ["sarcoma", "chest", "chest-tb"])
def test_generated_images_of_a_described_set_can_be_read_and_prepared(tmp_path, name):
    sets = ["data.source=phantom", f"data.root={tmp_path}", "sites.count=2"]
    experiment = load_experiment(name, sets, PARAMS)
    located = locate(experiment.data)
    assert located.source == "phantom"
    dataset = load(located, experiment.data)
    partition = partition_dataset(dataset, experiment.sites, 0)
    assert list(partition.sites) == ["site-east", "site-west"]
    assert dataset.unmatched == () or name == "chest-tb"
    if not isinstance(dataset, Dataset):
        prepared = prepare_case(dataset.family, dataset.cases["val"][0])
        assert prepared.mask.max() > 0


@pytest.mark.parametrize("name", [path.stem for path in sorted(SHIPPED.glob("*.yaml"))])
def test_every_shipped_description_has_an_experiment_and_needs_no_images_to_be_read(tmp_path, name):
    described = find_description(name, tmp_path)
    assert described is not None
    assert described.settled
    assert name in experiment_names(PARAMS)


def test_a_folders_own_description_comes_before_the_one_that_is_shipped(tmp_path):
    (tmp_path / "chest").mkdir()
    describe(tmp_path / "chest", {**PICTURES, "shape": [64, 64]})
    assert find_description("chest", tmp_path).shape == (64, 64)


@pytest.mark.skipif(not (REAL_DATA / "sarcoma").is_dir(), reason="needs ../shared/data/sarcoma")
def test_the_sarcomas_are_read_with_their_four_makers():
    dataset = read(REAL_DATA, "sarcoma")
    sites = [case.site for cases in dataset.cases.values() for case in cases]
    assert {site: sites.count(site) for site in sorted(set(sites))} == {
        "ge": 16,
        "philips": 6,
        "siemens": 6,
        "varian": 2,
    }
    assert dataset.unmatched == ()


@pytest.mark.skipif(not (REAL_DATA / "chest").is_dir(), reason="needs ../shared/data/chest")
def test_one_folder_of_x_rays_is_two_sets():
    described = find_description("chest-tb", REAL_DATA)
    settings = DataSettings(dataset="chest-tb", source="files", root=REAL_DATA, described=described)
    assert locate_local(settings).path.name == "chest"
    assert read(REAL_DATA, "chest").info.cases == {"train": 238, "val": 34, "test": 68}
