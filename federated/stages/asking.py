"""ask: the coordinator of a consortium asks a site to do a stage of a run, and hears that it did.

Where sites are parties of their own, nobody calls their stages but they themselves. What is asked
of them is a signed message that names a stage, and what they say of it is another. It is no more
than a cue: what a stage does it takes from the signed plans, and checks them as it does anyway, so
that a cue that no plan goes with makes a site do nothing.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from federated.errors import RefusalError, printable
from federated.exchange import kinds
from federated.exchange.folder import Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.message import LARGEST, MessageRefusedError, Topic, open_message
from federated.site.home import SiteHome
from federated.stages.coordinator import Coordinator

# The stages that a site can be asked to do, and where they are; a name is that of the function.
STAGES: Mapping[str, str] = {
    **dict.fromkeys(("take_part",), "federated.stages.take_part"),
    **dict.fromkeys(("make_key", "take_key", "erase_key"), "federated.stages.keys"),
    **dict.fromkeys(
        ("advertise_site", "share_site", "agree_site", "answer_site", "forget_secrets"),
        "federated.stages.secagg",
    ),
    "share_style": "federated.stages.share_style",
    "train_site": "federated.stages.local_train",
    "compress_site": "federated.stages.compress",
    "protect_site": "federated.stages.protect",
    "vouch_site": "federated.stages.aggregate",
    "decrypt_site": "federated.stages.aggregate",
    "prove_tags": "federated.stages.tags",
    "evaluate_site": "federated.stages.evaluate",
    "count_site": "federated.stages.statistics",
    "compare_site": "federated.stages.statistics",
    "hand_over": "federated.stages.site_model",
    "draw_site": "federated.stages.overlays",
    **dict.fromkeys(("evaluate_at_end", "sum_at_end"), "federated.stages.final_evaluation"),
    "tell_privacy": "federated.stages.privacy_report",
    "close_releases": "federated.stages.privacy_report",
}
# What a site is asked along with a stage, since it follows without anything in between that the
# coordinator does: the site goes on at once, and its word on each is a message of its own.
FOLLOWING: Mapping[str, tuple[str, ...]] = {"train_site": ("compress_site", "protect_site")}
# What each of these comes after: where that has failed there is nothing to do.
AFTER = {
    second: first
    for begins, rest in FOLLOWING.items()
    for first, second in pairwise((begins, *rest))
}
# The last thing that a site is asked in a run: there is nothing more to wait for.
LEAVE = "leave"
# What sites erase of a round or a run, which may be asked for again and again.
ERASING = ("forget_secrets", "erase_key", "close_releases")
# Of a list of sites, in names; of a name, in characters.
MOST_NAMES = 1000
LONGEST_NAME = 200
LONGEST_WORD = 4000
Argument = int | str | list[str]


@dataclass(frozen=True)
class Ask:
    """What a site is asked: the stage, with its arguments, and by which message.

    ``number`` counts what the site was asked in the attempt, from 1, and ``digest`` is the
    message's.
    """

    run: str
    attempt: int
    round: int
    number: int
    stage: str
    arguments: tuple[Argument, ...]
    digest: str

    def topic(self, consortium: str) -> Topic:
        """What the message and the word on it have in common."""
        return Topic(consortium, self.run, self.attempt, self.round)


class Numbers:
    """Counts what each site was asked in an attempt at a run, by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, int] = {}

    def next(self, site: str) -> int:
        """The number of what the site is asked now."""
        with self._lock:
            self._last[site] = self._last.get(site, 0) + 1
            return self._last[site]


def stage_named(name: str) -> Callable[..., Any]:
    """The function of a stage that sites can be asked to do.

    Raises:
        RefusalError: there is no such stage.
    """
    if name not in STAGES:
        raise RefusalError(f"{name!r:.60} is no stage that a site does when it is asked.")
    return cast(Callable[..., Any], getattr(import_module(STAGES[name]), name))


def ask(
    coordinator: Coordinator, site: str, number: int, stage: str, arguments: Sequence[Argument]
) -> Ask:
    """Ask a site to do a stage.

    Args:
        coordinator: who asks.
        site: who is asked.
        number: of what the site is asked in the attempt.
        stage: the stage's name.
        arguments: what it is called with beside the site: numbers, names, and lists of names.
    """
    start, round_number = coordinator.start, _round_of(arguments)
    topic = Topic(start.consortium, start.run, start.attempt, round_number)
    body = json.dumps({"stage": stage, "arguments": list(arguments)}).encode()
    sent = coordinator.mailbox.send(topic, f"{kinds.ASK}{number}", body, site)
    return Ask(
        start.run, start.attempt, round_number, number, stage, tuple(arguments), sent.signed.digest
    )


def is_answered(coordinator: Coordinator, site: str, asked: Ask) -> bool:
    """Whether something has arrived where a site's word on what it was asked is to lie."""
    kind = f"{kinds.DONE}{asked.number}"
    place = Place(asked.run, asked.round, asked.attempt, COORDINATOR, kind, site)
    return bool(coordinator.mailbox.exchange.find(place))


def hear_word(coordinator: Coordinator, site: str, asked: Ask) -> None:
    """Take a site's word that it has done what it was asked.

    Raises:
        RefusalError: it says that it did not, and why; or nothing has arrived that counts.
    """
    topic = asked.topic(coordinator.start.consortium)
    kind = f"{kinds.DONE}{asked.number}"
    message = coordinator.mailbox.receive(topic, kind, site, kinds.MOST_DONE)
    try:
        value = json.loads(message.body)
        digest, error = value["ask"], value["error"]
        if digest != asked.digest or not (error is None or type(error) is str):
            raise ValueError("it is of something else")
    except (ValueError, TypeError, KeyError, RecursionError) as error_:
        raise RefusalError(
            f"What {site} says of {asked.stage} in round {asked.round} is none ({error_!r:.100})."
        ) from error_
    if error is not None:
        raise RefusalError(printable(error, LONGEST_WORD))


def read_ask(home: SiteHome, path: Path) -> Ask:
    """What a site is asked by a message in its exchange.

    Raises:
        MessageRefusedError: it is not signed by the coordinator that the site knows, or is not for
            this site, or asks for nothing that there is.
        FileNotFoundError: it is not there any more.
    """
    coordinator = home.coordinator()
    with open_message(path) as unread:
        message = unread.read(coordinator, kinds.MOST_ASK)
    header = message.header
    number = _number_in(header.kind)
    for_me = header.recipient == home.name and header.consortium == coordinator.consortium
    if not for_me or number is None:
        raise MessageRefusedError("no ask", f"The message {path} asks {home.name} nothing.")
    try:
        value = json.loads(message.body)
        stage, arguments = value["stage"], value["arguments"]
        if stage not in {*STAGES, LEAVE} or type(arguments) is not list:
            raise ValueError("there is no such stage")
        if not all(map(_is_argument, arguments)):
            raise ValueError("no stage has such arguments")
        if header.round != _round_of(arguments):
            raise ValueError(f"it is of round {header.round}, and its arguments of another")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MessageRefusedError(
            "no ask", f"What {home.name} is asked by {path} is none ({error!r:.100})."
        ) from error
    return Ask(
        header.run,
        header.attempt,
        header.round,
        number,
        stage,
        tuple(arguments),
        message.signed.digest,
    )


def _round_of(arguments: Sequence[Argument]) -> int:
    """The round that a stage with these arguments is of; 0 where they name none."""
    first = arguments[0] if arguments else 0
    return first if isinstance(first, int) else 0


def _number_in(kind: str) -> int | None:
    """The number in the kind of what a site is asked; ``None`` where it is of another kind."""
    digits = kind.removeprefix(kinds.ASK)
    number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 16 else 0
    return number if number and kind == f"{kinds.ASK}{number}" else None


def _is_argument(value: object) -> bool:
    if type(value) is int:
        return 0 <= value <= LARGEST
    if isinstance(value, list):
        return len(value) <= MOST_NAMES and all(map(_is_name, value))
    return _is_name(value)


def _is_name(value: object) -> bool:
    return type(value) is str and len(value) <= LONGEST_NAME
