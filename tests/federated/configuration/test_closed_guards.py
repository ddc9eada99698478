"""What does not say that it is covered is refused together with privacy, keys or masks."""

import re
from typing import ClassVar, Literal

import pytest

from federated.compression import COMPRESSIONS, NoCompression, SharedMask
from federated.configuration.compatibility import refuse
from federated.configuration.experiment import Experiment
from federated.configuration.load import load_experiment
from federated.errors import ConsiliumError
from federated.privacy.site_level import SiteLevel
from federated.protection import CKKS, Plain, SecAggPlus
from federated.settings.networks import SmallCNN
from federated.strategies import STRATEGIES, FedAvg
from tests.conftest import PROJECT

DP_SGD = ["privacy.name=dp_sgd", "privacy.epsilon=8"]
SITE = ["privacy.name=site_level", "privacy.clip=1", "privacy.epsilon=8"]
LAPLACE = ["privacy.name=percentile_laplace", "privacy.clip=1", "privacy.noise_multiplier=1"]
SECAGG = ["protection.name=secagg_plus", "compression.bits=8"]
CKKS_ON = ["protection.name=ckks"]
STACKED = ["runner.stacked_sites=4"]


class SilentStrategy(FedAvg):
    """It may keep anything: that its parent is covered says nothing of it."""

    name: Literal["fedavg"] = "fedavg"


class SilentCompression(NoCompression):
    """It may send what it likes in whatever order."""

    name: Literal["none"] = "none"


class SilentPlain(Plain):
    name: Literal["plain"] = "plain"


class SilentMasks(SecAggPlus):
    name: Literal["secagg_plus"] = "secagg_plus"


class SilentKeys(CKKS):
    name: Literal["ckks"] = "ckks"


class SilentPrivacy(SiteLevel):
    unit: ClassVar[None] = None


def demo(*overrides: str, **sections: object) -> Experiment:
    experiment = load_experiment("demo", overrides, PROJECT / "params.yaml")
    return experiment.model_copy(update=sections)


class SilentNetwork(SmallCNN):
    """It may draw at random: that its parent does not says nothing of it."""

    name: Literal["small_cnn"] = "small_cnn"


@pytest.mark.parametrize(
    ("overrides", "sections", "said"),
    [
        (STACKED, {"model": SilentNetwork()}, r"does not state that networks .*small_cnn, shallow"),
        (DP_SGD, {"strategy": SilentStrategy()}, r"Covered for each record are .*fedprox, fedbn"),
        (SITE, {"strategy": SilentStrategy()}, r"Covered for each site are .*fedavg"),
        (LAPLACE, {"strategy": SilentStrategy()}, r"Covered for each site are"),
        (DP_SGD, {"compression": SilentCompression()}, r"does not state otherwise"),
        (SITE, {"compression": SilentCompression()}, r"does not state otherwise"),
        (CKKS_ON, {"compression": SilentCompression()}, r"does not state otherwise"),
        (SECAGG, {"compression": SilentCompression(bits=8)}, r"does not state otherwise"),
        (DP_SGD, {"protection": SilentPlain()}, r"does not state from whom it hides"),
        (SECAGG, {"protection": SilentMasks()}, r"does not state from whom it hides"),
        (CKKS_ON, {"protection": SilentKeys()}, r"does not state from whom it hides"),
        ([], {"privacy": SilentPrivacy(clip=1, epsilon=1)}, r"does not state whom it protects"),
    ],
)
def test_what_says_nothing_of_itself_is_refused(overrides, sections, said):
    experiment = demo(*overrides, **sections)
    with pytest.raises(ConsiliumError, match=said):
        refuse(experiment, "a test")
    refuse(demo(*overrides), "a test")  # as it was before, it goes


@pytest.mark.parametrize("strategy", ["fedper", "fedbn", "finetune"])
@pytest.mark.parametrize("privacy", [SITE, LAPLACE], ids=["site_level", "percentile_laplace"])
def test_layers_that_stay_at_a_site_are_refused_where_only_the_update_has_noise(strategy, privacy):
    with pytest.raises(ConsiliumError) as refused:
        demo(*privacy, f"strategy.name={strategy}")
    named = str(refused.value).split("strategy.name=")[-1]
    assert "fedavg" in named
    assert strategy not in named
    demo(*DP_SGD, f"strategy.name={strategy}")


def test_a_public_form_has_the_same_positions_at_all_sites():
    for compression in COMPRESSIONS:
        if compression.stated("form_is_public"):
            assert compression.same_positions


def test_what_is_sent_and_how_finely_does_not_depend_on_a_sites_own_values():
    """The same positions and scale for two updates that have nothing in common."""
    import numpy as np

    from federated.compression import CompressionContext
    from federated.update import ModelUpdate

    rng = np.random.default_rng(0)
    near, far = rng.normal(0, 1e-3, 40), rng.normal(5, 1e3, 40)
    for compression in (NoCompression(bits=6), SharedMask(density=0.3, bits=6)):
        context = CompressionContext(0, 1, (30, 10), compression.open([1.0, 1.0]))
        sent = [
            compression.compress(
                ModelUpdate("site-00", 1, 5, vector.astype(np.float32)), 0.5, context, {}
            )[0]
            for vector in (near, far)
        ]
        one, other = sent
        assert one.positions is None is other.positions
        assert len(one.numbers) == len(other.numbers) == compression.count(40)
        assert one.length == other.length


def test_the_table_of_strategies_says_which_units_a_strategy_is_covered_for():
    text = (PROJECT / "docs" / "reference" / "choices.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|.*\|([^|]*)\|$", _section(text), re.MULTILINE)
    units_of = {"records or sites": {"record", "site"}, "records": {"record"}, "neither": set()}
    told = {
        name: units_of[units.strip()]
        for names, units in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    covered = {
        strategy.model_fields["name"].default: strategy.stated("covered_by_privacy") or frozenset()
        for strategy in STRATEGIES
    }
    assert told == covered


def _section(text: str) -> str:
    return text[text.index("## Strategies") : text.index("## A model for each hospital")]
