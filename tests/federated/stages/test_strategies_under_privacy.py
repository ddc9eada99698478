"""Every strategy with every privacy: refused, or nothing of it escapes the noise.

Strategies and mechanisms are those of the unions that params.yaml chooses from, so a new one is in
here without being named.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from safetensors.numpy import load_file

from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.privacy import AnyPrivacy, Private
from federated.run.update_files import read_state
from federated.stages.coordinator import ask_evaluation, end_run
from federated.stages.evaluate import evaluate_site, predict_splits, read_shared
from federated.stages.own_models import receive_models
from federated.stages.site_model import hand_over, own_weights
from federated.stages.worker import worker_context
from federated.strategies import AnyStrategy
from federated.update import RoundState, Vector
from federated.weights.build import model_header, new_model
from federated.weights.model_file import save_model
from tests.federated.staged_run import (
    ROUNDS,
    Staged,
    begin,
    play_round,
    small_experiment,
    small_images,
    start_again,
)

STRATEGIES = get_args(get_args(AnyStrategy)[0])
MECHANISMS = [m for m in get_args(get_args(AnyPrivacy)[0]) if issubclass(m, Private)]
# Noise multipliers far apart; the second pair for a mechanism whose grid has no room for the first.
NOISES = ((1e-6, 1e6), (0.1, 10.0))
SECAGG = {
    "compression": {"name": "none", "bits": 16},
    "protection": {"name": "secagg_plus"},
}


def name_of(section: type) -> str:
    return section.model_fields["name"].default


def privacies() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each mechanism, and again with a clipping norm that follows, where it has one."""
    for mechanism in MECHANISMS:
        name = name_of(mechanism)
        yield name, {"name": name}
        if "adaptive" in mechanism.model_fields:
            # Slow, or so much noise would take the norm out of all numbers.
            yield f"{name} adaptive", {"name": name, "adaptive": {"rate": 1e-9}}


def settings_of(strategy: type) -> dict[str, Any]:
    """A strategy with its defaults, and what it cannot do without."""
    needed = {n for n, field in strategy.model_fields.items() if field.is_required()}
    assert not needed, f"give {name_of(strategy)} values for {needed} here"
    return {"name": name_of(strategy)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_images(tmp_path_factory.mktemp("images"))


def accepted(data: Path, **sections: Any) -> dict[str, Any] | None:
    """The sections, with a protection if only that is missing; ``None`` where they are refused."""
    for more in ({}, SECAGG):
        try:
            small_experiment(data, **sections, **more)
        except ConsiliumError:
            continue
        return sections | more
    return None


def left_behind(run: Staged) -> list[dict[str, np.ndarray]]:
    """All that is evaluated, saved or registered of a run: at its start, and after each round.

    Each round starts from the initial weights again, so that noise in the shared values does not
    hide what a site has kept without any.
    """
    found = [_released(run, 0)]
    for number in range(1, ROUNDS + 1):
        play_round(run, number)
        found.append(_released(run, number))
        if number < ROUNDS:
            start_again(run, number)
    return found


def _released(run: Staged, number: int) -> dict[str, np.ndarray]:
    folder, experiment = run.folder, run.experiment
    info = worker_context(run.site(run.sites[0])).info
    state = read_state(folder.state_path(number))
    model = new_model(experiment, info)
    state.layout.load(model, state.weights)
    own = _handed_over(run, number, state) if number else {}
    save_model(folder.model_path, model, model_header(experiment, info, "files"), own)
    found = {f"saved {name}": value for name, value in load_file(folder.model_path).items()}
    if not number:  # before the first round nobody asks for an evaluation
        return found | _predicted(run, state)
    topic = ask_evaluation(run.coordinator, number, run.sites)
    receive = run.coordinator.mailbox.receive
    for site in run.sites:
        weights = own_weights(run.site(site), state)
        # What every site's model starts from stands in the file once.
        for name, value in state.layout.split(weights).items():
            found.setdefault(f"saved {site}/{name}", value)
        evaluate_site(run.call(site), number)
        sent = receive(topic, kinds.EVALUATION, site, kinds.MOST_EVALUATION)
        for split, arrays in read_shared(sent.body, site).items():
            for name, values in arrays.items():
                found[f"{site} predicts {split} {name}"] = values
    return found


def _predicted(run: Staged, state: RoundState) -> dict[str, np.ndarray]:
    """What all sites predict with the initial model, and what it is."""
    found = {}
    for name in run.sites:
        site = run.site(name)
        state.layout.load(worker_context(site).model, state.weights)
        found |= {f"saved {name}/{n}": v for n, v in state.layout.split(state.weights).items()}
        for split, arrays in predict_splits(site).items():
            found |= {f"{name} predicts {split} {n}": v for n, v in arrays.items()}
    return found


def _handed_over(run: Staged, number: int, state: RoundState) -> dict[str, dict[str, Vector]]:
    topic = end_run(run.coordinator)
    for site in run.sites:
        hand_over(run.call(site), number)
    handed = receive_models(run.coordinator, topic, state)
    assert handed.missing == {}
    return handed.models


def runs_of(
    data: Path, tmp_path: Path, sections: Mapping[str, Any]
) -> list[list[dict[str, np.ndarray]]]:
    """What is left behind with little and with much noise."""
    for noises in NOISES:
        try:
            return [
                left_behind(begin(_with_noise(data, sections, noise), tmp_path / f"{noise:g}"))
                for noise in noises
            ]
        except ConsiliumError as error:
            if "has no room for the noise" not in str(error):
                raise
    raise AssertionError("no noise fits")


def _with_noise(data: Path, sections: Mapping[str, Any], noise: float) -> Any:
    privacy = sections["privacy"] | {
        "clip": 1e-6,
        "noise_multiplier": noise,
        "noise": "seeded",
        "delta": 1e-3,
    }
    # Of predictions, which all that is shared of an evaluation follows from. A batch is not half of
    # a site's cases, for which the divergences of much noise take seconds.
    return small_experiment(
        data,
        **{**sections, "privacy": privacy, "evaluation": {"share": "predictions"}},
        training={"lr": 0.1, "batch_size": 8, "device": "cpu", "optimizer": "sgd"},
    )


@pytest.mark.parametrize(("label", "privacy"), [pytest.param(*p, id=p[0]) for p in privacies()])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=name_of)
def test_what_a_strategy_leaves_behind_has_noise_in_it_or_it_is_refused(
    data, tmp_path, strategy, label, privacy
):
    amount = {"clip": 1.0, "noise_multiplier": 1.0}
    sections = accepted(data, strategy=settings_of(strategy), privacy=privacy | amount)
    if sections is None:
        return
    little, much = runs_of(data, tmp_path, sections)
    start = little[0]
    # What is as it was at the start, as the true labels of test cases are, tells nothing new.
    bare = [
        f"round {number}: {name}"
        for number, (one, other) in enumerate(zip(little, much, strict=True))
        for name, value in one.items()
        if np.array_equal(value, other[name]) and not np.array_equal(value, start[name])
    ]
    assert not bare, f"{name_of(strategy)} under {label} leaves without any noise: {bare[:5]}"
    assert any(not np.array_equal(value, start[name]) for name, value in little[-1].items())
