"""aggregate: add the sites' payloads, have the sum opened where it is encrypted, and apply it."""

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from federated.errors import ConsiliumError, RefusalError, TooFewSitesError
from federated.exchange import kinds
from federated.exchange.message import Topic
from federated.files import read_json
from federated.protection import Protection
from federated.protection.keys import PublicContext
from federated.protection.opened import opened_numbers, opened_payload
from federated.protection.secagg.round import Round
from federated.rounds.aggregation import OpenedSum, next_state
from federated.rounds.context import RoundContext, sum_length
from federated.rounds.sum_limits import SumLimits, limits_of_counts, limits_of_updates
from federated.run.key import public_context
from federated.run.result import stage_result
from federated.run.update_files import (
    most_payload,
    pack_payload,
    read_layout,
    read_memory,
    read_payload,
    read_state,
    write_outcome,
    write_payload,
)
from federated.stages.coordinator import Coordinator
from federated.stages.keys import count_opening, refuse_without_key, site_key
from federated.stages.named_sums import (
    PLAIN_BITS,
    open_sum,
    payload_length,
    refuse_sum,
    senders,
    weights,
)
from federated.stages.report import tell
from federated.stages.secagg import note_answer
from federated.stages.site import Site, SiteCall, open_site
from federated.stages.tag_verdict import refuse_untagged
from federated.stages.tags import check_sum
from federated.update import Payload
from federated.weights.bounded_file import Content


@dataclass(frozen=True)
class Added:
    """Whose payloads are in a round's sum, in order, and why those of others are not."""

    responded: list[str]
    refused: dict[str, str]


def add_payloads(
    coordinator: Coordinator,
    topic: Topic,
    sites: Sequence[str],
    masks: Round | None = None,
    length: int | None = None,
) -> Added:
    """Add the payloads of ``sites`` one after the other, and write the sum.

    One payload and one sum are in memory at a time, however many sites there are; the fixed order
    of sites makes the floating-point sum the same in every run. A payload that has not arrived, or
    is not what a site has to send, is left out, and does not touch the sum. The weights are the
    coordinator's own, n_k / Σn over the sites selected.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages have in common.
        sites: those whose payloads are expected, in order.
        masks: what all know of a round in which sites mask.
        length: how many numbers a payload has; as many as an update, if it is left out.

    Raises:
        ConsiliumError: nothing that counts has arrived.
    """
    run, folder, number = coordinator.run, coordinator.folder, topic.round
    protection: Protection = run.experiment.protection
    if length is None:
        length = update_length(coordinator, topic)
    key = None if masks else public_context(folder, run.experiment)
    limits = _limits(coordinator, topic, key)
    running = protection.open_sum(length, number, masks or key)
    added = Added([], {})
    for site in sites:
        try:
            payload = _received(coordinator, topic, site, length, limits.weights[site])
            if (numbers := protection.seen(payload)) is not None:
                limits.refuse_payload(payload, numbers)
            if key is not None:
                refuse_untagged(coordinator, topic, site, key)
            protection.add(running, payload)
            added.responded.append(site)
        except ConsiliumError as error:
            added.refused[site] = str(error)
            coordinator.note_left_out(topic, site, str(error))
    if not added.responded:
        raise TooFewSitesError(
            f"Nothing that counts has arrived in round {number}; of {sites[-1]} it was said: "
            f"{added.refused[sites[-1]]}"
            if sites
            else f"No site was selected in round {number}.",
            added.refused,
        )
    total = protection.close(running)
    write_payload(folder.sum_path(number, topic.sum), total)
    return added


def _received(
    coordinator: Coordinator, topic: Topic, site: str, length: int, weight: float
) -> Payload:
    """The payload of a site, with the coordinator's own weight.

    Raises:
        ConsiliumError: it has not arrived, or is something else than the site has to send.
    """
    most = most_payload(length).most
    message = coordinator.mailbox.receive(topic, kinds.PAYLOAD, site, most)
    where = f"of {site} in round {topic.round}"
    payload = read_payload(Content(message.body, where), length)
    expected = () if topic.sum else coordinator.run.experiment.privacy.scalar_names
    told = {
        "site": (payload.site, site),
        "round": (payload.round_number, topic.round),
        "weight": (payload.weight, weight),
        "scalars": (sorted(payload.scalars), sorted(expected)),
    }
    wrong = [
        f"its {name} is {said!r:.200}, expected {wanted!r:.200}"
        for name, (said, wanted) in told.items()
        if said != wanted
    ]
    if wrong:
        raise ConsiliumError(f"The payload {where} is refused: {'; '.join(wrong)}.")
    return payload


def _limits(coordinator: Coordinator, topic: Topic, key: PublicContext | None) -> SumLimits:
    """What the numbers of a sum and of its payloads can be; ``key`` is of the sites' key."""
    run = coordinator.run
    if topic.sum:
        return limits_of_counts(run, topic.round, run.experiment.compression.bits or PLAIN_BITS)
    return limits_of_updates(run, topic.round, key, _largest_weight(coordinator))


def _largest_weight(coordinator: Coordinator) -> float:
    """The largest value of the run's first model, without a sign."""
    path = coordinator.folder.largest_weight_path
    # A run that an earlier version has begun has none.
    return float(read_json(path)) if path.is_file() else 0.0


def payload_of(coordinator: Coordinator, topic: Topic, site: str, length: int) -> Payload:
    """The payload of a site to a sum of ``length`` numbers, which counts.

    Raises:
        ConsiliumError: it has not arrived, or is something else than the site has to send.
    """
    return _received(coordinator, topic, site, length, weights(coordinator.run, topic)[site])


def update_length(coordinator: Coordinator, topic: Topic) -> int:
    """How many numbers the sum of a round's updates has."""
    before = topic.round - 1
    layout = read_layout(coordinator.folder.state_path(before), before)
    return sum_length(coordinator.run.experiment, layout)


def download_size(coordinator: Coordinator, round_number: int) -> int:
    """The bytes of a round that every site downloads.

    They are those of the sum, if there is one, and in round 1 of the initial state too.
    """
    folder = coordinator.folder
    path = folder.sum_path(round_number)
    size = path.stat().st_size if path.is_file() else 0
    return size + (folder.state_path(0).stat().st_size if round_number == 1 else 0)


def hand_sum(coordinator: Coordinator, topic: Topic, opener: str) -> None:
    """Send the sum of a round to the site that is to open it."""
    content = coordinator.folder.sum_path(topic.round, topic.sum).read_bytes()
    coordinator.mailbox.send(topic, kinds.SUM, content, opener)


def vouch_site(call: SiteCall, round_number: int, responded: list[str], name: str = "") -> None:
    """Tell the other sites that a site helps to open the sum of ``responded``, and of no other.

    All in a sum have to say so before one of them opens it: two sites that each open one of two
    sums would tell an update by the difference. ``name`` is that of the sum; it is empty for that
    of the round's updates.

    Raises:
        ConsiliumError: the sum is of too few sites or of others than those selected, has too little
            noise for its privacy, a site in it has not signed that it has the run's key, or the
            site has helped to another one of the same data and state.
    """
    started = time.time()
    site = open_site(call)
    opened = open_sum(site, round_number, name)
    counted = _counted(site, opened.topic, responded)
    refuse_without_key(site, counted)
    note_answer(site, opened, tuple(counted))
    sent = site.to_all(opened.topic, kinds.CONSISTENCY, vouched(counted))
    tell(site, round_number, stage_result(site.name, "vouch", started, sent=sent), name)


def _counted(site: Site, topic: Topic, responded: list[str]) -> frozenset[str]:
    """The sites in a sum that a site may help to open.

    Raises:
        ConsiliumError: it is one of too few sites, or has too little noise for its privacy.
    """
    counted = refuse_sum(site.run, topic, site.name, responded)
    if not topic.sum:
        site.run.refuse_too_little_noise(len(counted))
    return counted


def vouched(counted: Collection[str]) -> bytes:
    """What a site tells the others that helps to open the sum of ``counted``."""
    return json.dumps(sorted(counted)).encode()


def _refuse_unvouched(site: Site, topic: Topic, counted: Collection[str]) -> None:
    """Refuse to open a sum unless every site in it has said that it helps to open this very one.

    Raises:
        RefusalError: a site has not, or has said so of another sum.
    """
    most = kinds.most_view(len(senders(site.run, topic)))
    for name in sorted(counted):
        told = site.mailbox.receive(topic, kinds.CONSISTENCY, name, most, for_all=True).body
        if told != vouched(counted):
            raise RefusalError(
                f"{site.name} does not help to open the sum of round {topic.round}: {name} was "
                "told of another one. The two could reveal an update. Ask whoever runs the "
                "coordinator."
            )


def decrypt_site(call: SiteCall, round_number: int, responded: list[str], name: str = "") -> None:
    """Open the round's sum, which is that of ``responded``, with the sites' key, and send it back.

    What is sent is flooded already where the protection is CKKS. ``name`` is that of the sum; it is
    empty for that of the round's updates.

    Raises:
        ConsiliumError: the sum is of too few sites or of others than those selected, has too little
            noise for its privacy, a site in it has not vouched for it, or the key has opened as
            many sums as it may.
    """
    started = time.time()
    site = open_site(call)
    opened = open_sum(site, round_number, name)
    run, topic = site.run, opened.topic
    protection: Protection = run.experiment.protection
    counted = _counted(site, topic, responded)
    refuse_without_key(site, counted)
    most = most_payload(payload_length(site, opened)).most
    message = site.from_coordinator(topic, kinds.SUM, 2 * most)
    total = read_payload(Content(message.body, "of the round's sum"))
    weight_of = weights(run, topic)
    if abs(total.weight - sum(weight_of[each] for each in counted)) > 1e-9:
        raise RefusalError(
            f"{site.name} does not help to open the sum of round {round_number}: its weight is "
            f"{total.weight:.6g}, and that of the sites said to be in it is another."
        )
    # Interrupted after that, it opens nothing twice: with CKKS it would be another message.
    body = site.sent_before(topic, kinds.OPENED, most)
    if body is None:
        key = site_key(site)
        if key is not None:
            check_sum(site, opened, total, counted, key)
            _refuse_unvouched(site, topic, counted)
            note_answer(site, opened, tuple(counted))
            count_opening(site, key)
        numbers = protection.reveal(total, key)
        body = pack_payload(opened_payload(total, numbers))
    sent = site.to_coordinator(topic, kinds.OPENED, body)
    # What all sites download of the sum of updates is counted once, by the coordinator.
    received = message.size if name else 0
    result = stage_result(site.name, "decrypt", started, sent=sent, received=received)
    tell(site, round_number, result, name)


def received_sum(coordinator: Coordinator, topic: Topic, opener: str | None) -> OpenedSum:
    """The round's sum in the clear: the coordinator's own, or as a site has opened it.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages have in common.
        opener: the site that has the key and has opened the sum; ``None`` where there is no key.

    Raises:
        ConsiliumError: the sum has not arrived, is damaged, or is another.
    """
    protection: Protection = coordinator.run.experiment.protection
    total = read_payload(coordinator.folder.sum_path(topic.round, topic.sum))
    if opener is None:
        return OpenedSum(protection.reveal(total, None), total.weight, total.scalars)
    most = most_payload(total.length).most
    message = coordinator.mailbox.receive(topic, kinds.OPENED, opener, most)
    found = read_payload(Content(message.body, f"of {opener}, which opened the sum"), total.length)
    return OpenedSum(opened_numbers(total, found), total.weight, total.scalars)


def refuse_impossible(
    coordinator: Coordinator, topic: Topic, numbers: npt.NDArray[Any], responded: Sequence[str]
) -> None:
    """Refuse an opened sum that cannot be that of the payloads of ``responded``.

    Raises:
        ImpossibleSumError: it cannot; see :meth:`SumLimits.refuse_impossible`.
    """
    key = public_context(coordinator.folder, coordinator.run.experiment)
    _limits(coordinator, topic, key).refuse_impossible(numbers, responded)


def apply_sum(
    coordinator: Coordinator, topic: Topic, responded: Sequence[str], total: OpenedSum
) -> None:
    """Make the round's state from the last one and the round's opened sum, and write it.

    Args:
        coordinator: the coordinator.
        topic: what the sites' messages have in common.
        responded: the sites whose payloads are in the sum.
        total: the sum, opened; see :func:`received_sum`.

    Raises:
        ImplausibleError: the sum is none of updates that training gives.
        ConsiliumError: a file is missing or damaged, the state is that of another round, or the
            server has made weights of the sum that are no numbers.
    """
    largest = _largest_weight(coordinator)
    folder, run, round_number = coordinator.folder, coordinator.run, topic.round
    state = read_state(folder.state_path(round_number - 1), round_number - 1)
    memory = read_memory(folder.server_path(round_number - 1))
    who = run.participation(responded)
    state, memory = next_state(RoundContext(run, state), memory, total, who, largest)
    path, memory_path = folder.state_path(round_number), folder.server_path(round_number)
    write_outcome(path, state, memory_path, memory)
