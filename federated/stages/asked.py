"""asked: what a site of a consortium does of what it is asked, and what it says of it."""

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from cachetools import LRUCache

from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.exchange.folder import Exchange, Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.mailbox import Mailbox
from federated.site.home import SiteHome
from federated.stages.asking import ERASING, LEAVE, LONGEST_WORD, Ask

# Attempts at runs of which a site knows what it was asked.
MOST_KNOWN = 1000


class AskedBefore:
    """What a site was asked in each attempt at a run: a stage with the same arguments is done once.

    A policy bounds what one round takes, and how many rounds there are; a coordinator that could
    have a round trained any number of times would have no bound. A process that is started anew
    learns of it by the messages that are still there.
    """

    def __init__(self) -> None:
        self._first: LRUCache[tuple[str, int], dict[bytes, str]] = LRUCache(MOST_KNOWN)

    def repeated(self, asked: Ask) -> str | None:
        """Why something is not done since it was asked before; ``None`` where it is new.

        To erase something a site may be asked again and again.
        """
        if asked.stage in (*ERASING, LEAVE):
            return None
        first = self._first.setdefault((asked.run, asked.attempt), {})
        what = sha256(json.dumps([asked.stage, *asked.arguments]).encode()).digest()
        if first.setdefault(what, asked.digest) == asked.digest:
            return None
        return f"it was asked the same before in attempt {asked.attempt}"


def answer(home: SiteHome, exchange: Exchange, asked: Ask, error: str | None = None) -> None:
    """Say that the site has done what it was asked, or by ``error`` why not.

    Args:
        home: the site's home.
        exchange: where the site's messages lie.
        asked: what it was asked.
        error: why it has not done it, in words that everybody may read.
    """
    mailbox = Mailbox(home.identity(), home.members(), exchange, home.audit)
    body = json.dumps({"ask": asked.digest, "error": error and error[:LONGEST_WORD]}).encode()
    topic = asked.topic(home.coordinator().consortium)
    mailbox.send(topic, f"{kinds.DONE}{asked.number}", body, COORDINATOR)


def has_answered(home: SiteHome, exchange: Exchange, asked: Ask) -> bool:
    """Whether the site has said something of what it was asked: it is asked once."""
    kind = f"{kinds.DONE}{asked.number}"
    place = Place(asked.run, asked.round, asked.attempt, COORDINATOR, kind, home.name)
    return bool(exchange.find(place))


def too_late(asked: Ask, others: Iterable[Ask]) -> str | None:
    """Why something is not worth doing any more; ``None`` where it is.

    The coordinator has gone on with another attempt at the run, or with a later round: it does not
    wait for this one.
    """
    for other in others:
        if other.run != asked.run:
            continue
        if other.attempt > asked.attempt:
            return f"it is of attempt {asked.attempt}, and attempt {other.attempt} has begun"
        if other.attempt == asked.attempt and other.round > asked.round > 0:
            return f"it is of round {asked.round}, and round {other.round} has begun"
        if other.attempt == asked.attempt and other.stage == LEAVE and other.number > asked.number:
            return "the run has ended"
    return None


def said_of(error: Exception, site: str, stage: str, where: Path) -> str:
    """What is told of an error at a site, which others may read.

    What the site itself refuses is said in its own words. Anything else could tell of its files:
    it stays in ``where``.
    """
    if isinstance(error, RefusalError):
        return str(error)
    kind = "" if isinstance(error, ConsiliumError) else f" ({type(error).__name__})"
    return (
        f"{site} could not finish its part, {stage}{kind}. The reason stays with the site, in "
        f"{where}."
    )
