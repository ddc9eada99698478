"""One training case more or less changes no other case's term in a private sum."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cachetools import LRUCache
from torch import nn

from federated.configuration.cases import experiment_cases
from federated.configuration.load import load_experiment
from federated.data.cases import LabelledImages
from federated.data.dataset import Dataset, to_float
from federated.data.folders.dataset import FolderDataset, read_folder
from federated.data.folders.families import FAMILIES
from federated.data.folders.phantom import write_phantom
from federated.data.folders.segmented_cases import SegmentedCases, ShownCase
from federated.data.medmnist.files import dataset_info
from federated.data.partition import Partition
from federated.data.records import identities
from federated.data.scanner import apply_profile, scanner_profile
from federated.errors import ConsiliumError
from federated.learning.segmentation_loss import dice_ce
from federated.privacy import DPSGD
from federated.privacy.accounting import Release
from federated.privacy.case_draws import CaseDraws
from federated.privacy.dp_sgd import refuse_unsuitable
from federated.privacy.noise import SecretRandom
from federated.rounds.local_training import PrivateRound
from federated.settings.sections import TrainingSettings
from federated.stages import share_style as style_exchange
from federated.strategies import FedAvg, ResFIM
from federated.training.loop import Turn, train
from federated.training.objective import Objective
from federated.update import Layout
from tests.conftest import PROJECT
from tests.federated.conftest import site_start
from tests.networks import build_model

KEY = bytes(range(32))
CLIP = 1e-2  # below the gradients' norms, so that each case counts with all that it may
STEPS = 2
AUGMENTS = ("none", "flips", "torchio")


def cross_entropy(logits, targets, reduction):
    return nn.functional.cross_entropy(logits, targets, reduction=reduction)


def soft_dice(logits, masks, reduction):
    losses = dice_ce(logits, masks)
    return losses.mean() if reduction == "mean" else losses


class Site:
    """A site's cases, of which some may be left out, in whatever order."""

    def __init__(self, cases, subset, model, loss):
        self.cases, self.subset, self._model, self._loss = cases, subset, model, loss

    def sums(self, keep, augment, rate=1.0, physical_batch=32, clip=CLIP, mode="auto"):
        """What each step adds its noise to, ``(steps, values)``, and what the network got.

        The latter by step and the case's place in the whole list.
        """
        cases, how = self.subset(self.cases, keep), TrainingSettings(augment=augment)
        model = self._model().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        privacy = DPSGD(clip=clip, noise_multiplier=1.0, physical_batch=physical_batch, mode=mode)
        private = privacy.gradients(
            model,
            optimizer,
            Release(0.0, rate, STEPS),
            identities(cases.records),
            clip,
            SecretRandom(KEY),
        )
        got = {}

        def take(indices):
            images, targets = cases.load_batch(indices, how, private.generators(indices))
            for place, image in zip(indices.tolist(), images, strict=True):
                got[len(found), keep[place]] = image
            return images, targets

        found = []
        for batch in private.batches():
            private.compute(batch, Objective(take, self._loss))
            flat = torch.cat([p.grad.flatten() for p in model.parameters()])
            found.append(flat * rate * len(keep))
        private.close()
        return torch.stack(found), got


def pick_labelled(cases, keep):
    return LabelledImages(cases.images[keep], cases.labels[keep])


def pick_shown(cases, keep):
    return replace(cases, shown=[cases.shown[index] for index in keep])


def classification(dims, cases=9):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (cases, 1) + (12,) * dims, dtype=np.uint8)
    labels = np.arange(cases) % 2
    # A record that is there three times, beside others.
    images[[2, 5]], labels[[2, 5]] = images[7], labels[7]

    def model():
        return build_model("small_cnn", channels=1, classes=2, dims=dims, norm="group", seed=0)

    return Site(LabelledImages(images, labels), pick_labelled, model, cross_entropy)


# Whole cases and patches, as volumes and as pictures; small, so that a step is quick.
SHAPES = {
    "hippocampus": ((8, 16, 8), (10, 17, 9)),
    "brain": ((8, 8, 8), (20, 22, 24)),
    "skin": ((24, 32), (40, 44)),
    "retina": ((24, 24), (60, 64)),
}


def segmentation(name, folder, cases=4):
    shape, in_files = SHAPES[name]
    family = replace(FAMILIES[name], shape=shape)
    write_phantom(family, folder, cases, seed=0, shape=in_files)
    shown = [ShownCase(files, None) for files in family.find(folder).cases]
    whole = SegmentedCases(family, shown, LRUCache(2**30, getsizeof=lambda case: case.nbytes))

    def model():
        return build_model(
            "unet",
            channels=family.channels,
            classes=len(family.labels),
            dims=family.dims,
            norm="group",
            seed=0,
            width=8,
        )

    return Site(whole, pick_shown, model, soft_dice)


@pytest.fixture(params=["labelled 2D", "labelled 3D", *SHAPES])
def site(request, tmp_path):
    if request.param in SHAPES:
        return segmentation(request.param, tmp_path)
    return classification(2 if request.param.endswith("2D") else 3)


def without(cases, removed):
    return [index for index in range(cases) if index != removed]


def assert_near(one, other):
    """The same but for rounding, relative to what one case may count with."""
    assert float((one - other).norm(dim=1).max()) < 1e-2 * CLIP


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_a_case_less_changes_the_sum_of_every_step_by_at_most_the_norm(site, augment, rate):
    everyone = list(range(len(site.cases)))
    sums, got = site.sums(everyone, augment, rate)
    drawn = {}
    for step, case in got:
        drawn.setdefault(case, set()).add(step)
    # Also a case that the first steps draw and the later ones do not, where there is one.
    records = site.cases.records
    alone = [case for case in drawn if records.count(records[case]) == 1]
    first = min(alone, key=lambda case: max(drawn[case]))
    for removed in {0, first, everyone[-1]}:
        keep = without(len(everyone), removed)
        less, left = site.sums(keep, augment, rate)
        distances = (sums - less).norm(dim=1)
        assert float(distances.max()) <= CLIP * (1 + 1e-2)
        for step, distance in enumerate(distances):
            assert float(distance) == pytest.approx(
                CLIP if step in drawn.get(removed, ()) else 0.0, abs=1e-2 * CLIP
            )
        # Bit for bit, the others are shown to the network as before, and in the same steps.
        assert left.keys() == {(step, case) for step, case in got if case != removed}
        assert all(torch.equal(image, got[which]) for which, image in left.items())


def test_neither_order_nor_how_many_are_in_memory_at_once_change_anything(site):
    everyone = list(range(len(site.cases)))
    at_once, _ = site.sums(everyone, "torchio", 0.7, physical_batch=32)
    shuffled = everyone[::2] + everyone[1::2][::-1]
    assert_near(at_once, site.sums(shuffled, "torchio", 0.7)[0])
    for physical_batch in (1, 3):
        assert_near(at_once, site.sums(everyone, "torchio", 0.7, physical_batch)[0])


@pytest.mark.parametrize("mode", ["vmap", "hooks", "functorch", "ghost"])
def test_so_it_is_in_every_mode(mode):
    site = classification(3)
    sums, _ = site.sums(list(range(9)), "flips", 0.6, mode=mode)
    less, _ = site.sums(without(9, 4), "flips", 0.6, mode=mode)
    assert float((sums - less).norm(dim=1).max()) <= CLIP * (1 + 1e-2)
    assert_near(sums, site.sums(list(range(9)), "flips", 0.6)[0])


@pytest.mark.parametrize("removed", [2, 5, 7])
def test_of_equal_records_it_does_not_matter_which_one_is_taken_away(removed):
    site = classification(2)
    sums, _ = site.sums(list(range(9)), "torchio", 0.7)
    less, _ = site.sums(without(9, removed), "torchio", 0.7)
    assert float((sums - less).norm(dim=1).max()) <= CLIP * (1 + 1e-2)
    assert_near(less, site.sums(without(9, 7), "torchio", 0.7)[0])


def test_equal_records_are_drawn_and_changed_each_on_its_own():
    site = classification(2)
    _, got = site.sums(list(range(9)), "torchio")
    assert not torch.equal(got[0, 2], got[0, 5])


def test_a_case_is_changed_anew_in_each_step_and_round():
    site = classification(2)
    _, got = site.sums(list(range(9)), "torchio")
    assert len({got[step, 0].numpy().tobytes() for step in range(STEPS)}) == STEPS


def seeds(key, names=("a-0", "b-0"), rate=0.5, steps=200):
    draws = CaseDraws(SecretRandom(key), names, rate, steps)
    found = []
    for batch in draws.batches():
        drawn = zip(batch.tolist(), draws.generators(batch), strict=True)
        found.append({names[case]: generator.initial_seed() for case, generator in drawn})
    return found


def test_draws_are_those_of_the_key_and_the_record():
    here, again, elsewhere = seeds(KEY), seeds(KEY, ("b-0", "c-0", "a-0")), seeds(bytes(32))
    assert [step.get("a-0") for step in here] == [step.get("a-0") for step in again]
    assert [step.get("b-0") for step in here] == [step.get("b-0") for step in again]
    assert [step.get("a-0") for step in here] != [step.get("a-0") for step in elsewhere]
    assert len({seed for step in here for seed in step.values()}) == sum(map(len, here))


def test_noise_is_not_touched_by_what_is_drawn_about_cases():
    random, other = SecretRandom(KEY), SecretRandom(KEY)
    CaseDraws(random, [str(n) for n in range(20)], 0.5, 3)
    np.testing.assert_array_equal(random.normal((9,)), other.normal((9,)))
    assert (other.child("case a-0").normal((9,)) != SecretRandom(KEY).normal((9,))).all()


def test_cases_are_drawn_apart_from_each_other():
    names = [f"{n}-0" for n in range(60)]
    drawn = np.zeros((2000, 60))
    for step, found in enumerate(seeds(KEY, names, 0.3, 2000)):
        drawn[step, [int(name[:-2]) for name in found]] = 1
    assert drawn.mean() == pytest.approx(0.3, abs=0.01)
    correlation = np.corrcoef(drawn.T) - np.eye(60)
    assert np.abs(correlation).max() < 0.12


def test_two_cases_of_one_identity_are_a_mistake():
    with pytest.raises(AssertionError, match="one identity"):
        CaseDraws(SecretRandom(KEY), ["a-0", "a-0"], 0.5, 1)


def test_a_network_that_draws_by_place_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2))
    with pytest.raises(ConsiliumError, match="Dropout draw at random by a case's place"):
        refuse_unsuitable(model)


def test_a_private_mean_of_features_changes_by_at_most_its_bound():
    site = classification(2)
    model = build_model("shallow_cnn", channels=1, classes=2, dims=2, norm="group", seed=0)

    def mean(keep):
        cases, how = pick_labelled(site.cases, keep), TrainingSettings(augment="torchio")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        privacy = DPSGD(noise_multiplier=1.0, mode="vmap")
        names = identities(cases.records)
        release, random = Release(0.0, 0.7, 1), SecretRandom(KEY)
        private = privacy.gradients(model, optimizer, release, names, 1.0, random)
        (batch,) = private.batches()

        def features(part):
            images, _ = cases.load_batch(part, how, private.generators(part))
            with torch.no_grad():
                return model.features(images)

        return private.noised_mean(batch, features, 0.5) * 0.7 * len(keep)

    everyone = mean(list(range(9)))
    for removed in range(9):
        assert float((everyone - mean(without(9, removed))).norm()) <= 0.5 * (1 + 1e-4)


def trained(keep, augment, seed=0, dims=2):
    """Weights after a round of private training, less those before, by the training loop itself."""
    site = classification(dims)
    cases = pick_labelled(site.cases, keep)
    model = site._model()
    layout = Layout.of(model)
    before = layout.flatten(model)
    settings = TrainingSettings(
        optimizer="sgd", lr=1.0, momentum=0, weight_decay=0, augment=augment, batch_size=9
    )
    privacy = DPSGD(clip=CLIP, noise_multiplier=1.0)
    private = PrivateRound(privacy, Release(0.0, 1.0, 1), CLIP, SecretRandom(KEY))
    train(
        model,
        cases,
        settings,
        FedAvg().local_rule(model, site_start(model)),
        cross_entropy,
        Turn(seed, "site-00", 1, 1),
        private=private.make_gradients(cases),
    )
    return (layout.flatten(model) - before) * len(keep)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_the_update_of_a_site_changes_by_at_most_the_norm(augment):
    everyone = trained(list(range(9)), augment)
    for removed in (0, 4, 8):
        assert np.linalg.norm(everyone - trained(without(9, removed), augment)) <= CLIP * 1.01


@pytest.mark.parametrize("augment", ["flips", "torchio"])
def test_private_training_takes_nothing_from_the_public_seed(augment):
    everyone = list(range(9))
    np.testing.assert_array_equal(trained(everyone, augment), trained(everyone, augment, seed=1))


@pytest.mark.parametrize("name", ["retina", "hippocampus"])
def test_the_style_of_a_site_changes_by_at_most_the_share_of_a_case(name, tmp_path, monkeypatch):
    """Patches of the others stay where they are."""
    site = segmentation(name, tmp_path)
    clip = 1.0
    # Without noise to speak of, to see what it is added to.
    noise = {"clip": clip, "noise_multiplier": 1e-12}
    experiment = load_experiment("demo", [], PROJECT / "params.yaml").model_copy(
        update={"strategy": ResFIM(style_noise=noise)}
    )
    monkeypatch.setattr(style_exchange, "begin_style_release", lambda *_: SecretRandom(KEY))

    def total(keep):
        cases = pick_shown(site.cases, keep)
        monkeypatch.setattr(style_exchange, "site_cases", lambda *_: cases)
        introduction = experiment.strategy.introduction()
        at = SimpleNamespace(name="site-00", run=SimpleNamespace(experiment=experiment))
        return style_exchange.site_style(at, introduction) * len(keep)

    everyone = total([0, 1, 2, 3])
    for removed in range(4):
        assert np.linalg.norm(everyone - total(without(4, removed))) <= clip * (1 + 1e-4)


class TestScannerNoise:
    """A site's scanner adds noise to each image: by its record, where records are protected."""

    PRIVATE = ("privacy.name=dp_sgd", "privacy.noise_multiplier=1")

    def shown(self, dataset, keep, *items):
        items = [*items, "sites.scanner_shift=true"]
        experiment = load_experiment("demo", items, PROJECT / "params.yaml")
        partition = Partition({"site-00": {"train": tuple(keep)}}, draws=1, moved=0)
        cases = experiment_cases(experiment, dataset, partition).of("site-00", "train")
        how = TrainingSettings(augment="none")
        images, _ = cases.load_batch(torch.arange(len(keep)), how, torch.Generator())
        return dict(zip(keep, images, strict=True))

    def labelled(self):
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (5, 1, 12, 12, 12), dtype=np.uint8)
        images[3] = images[1]
        info = dataset_info("adrenalmnist3d")
        return Dataset(info, {"train": images}, {"train": np.zeros(5, np.int64)})

    def folder(self, path):
        family = replace(FAMILIES["hippocampus"], shape=(16, 16, 16))
        write_phantom(family, path, 4, seed=0, shape=(18, 17, 16))
        files = family.find(path).cases
        # The same record in files of other names.
        for old, new in zip(files[0].images, files[2].images, strict=True):
            shutil.copy(old, new)
        shutil.copy(files[0].mask, files[2].mask)
        info = read_folder(path, "hippocampus", None).info
        return FolderDataset(family, info, {"train": files}, ())

    def test_of_a_case_does_not_depend_on_what_else_is_there(self):
        dataset = self.labelled()
        whole = self.shown(dataset, [0, 1, 2, 3, 4], *self.PRIVATE)
        less = self.shown(dataset, [1, 2, 3, 4], *self.PRIVATE)
        assert all(torch.equal(image, whole[case]) for case, image in less.items())
        assert not torch.equal(whole[1], whole[3])  # equal records, each with noise of its own

    def test_of_equal_records_it_does_not_matter_which_one_is_taken_away(self, tmp_path):
        hippocampus = ["data.dataset=hippocampus", "model.name=unet", "sites.partition=iid"]
        hippocampus += ["selection.metric=val/dice"]
        for dataset, items, pair in (
            (self.labelled(), [], (1, 3)),
            (self.folder(tmp_path), hippocampus, (0, 2)),
        ):
            first, second = (
                self.shown(dataset, [case], *self.PRIVATE, *items)[case] for case in pair
            )
            assert torch.equal(first, second)

    def test_without_such_privacy_it_is_what_it_was(self):
        dataset = self.labelled()
        found = self.shown(dataset, [2, 4])
        experiment = load_experiment("demo", [], PROJECT / "params.yaml")
        profile = scanner_profile(experiment.seed, "site-00", 3)
        images = apply_profile(dataset.images["train"][[2, 4]], profile)
        np.testing.assert_array_equal(torch.stack(list(found.values())), to_float(images))
