"""asked: what a site of a consortium does of what it is asked, and what it says of it."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from cachetools import LRUCache

from federated.errors import ConsiliumError, RefusalError, kept_at_site, unreadable
from federated.exchange import kinds
from federated.exchange.folder import Exchange, Place
from federated.exchange.identity import COORDINATOR
from federated.exchange.mailbox import Mailbox
from federated.exchange.message import Topic, open_message
from federated.files import append_line, make_folders
from federated.privacy.ledger import ledger_root
from federated.secrets.home import consilium_home
from federated.site.home import SiteHome
from federated.stages.asking import AFTER, ERASING, LEAVE, LONGEST_WORD, Ask

# Attempts at runs of which a site has in memory what it was asked; of all it has it on its disk.
MOST_KNOWN = 32
# What a site begins in an attempt at a run.
MOST_BEGUN_IN_ONE = 100_000
# Of how many messages by which it erases something it is noted that they were answered.
MOST_ERASED_IN_ONE = 10_000
# What stands for a message that was answered, in place of the digest of what it asks: that it is
# done, that it is not, and that something was erased by it.
ANSWERED, NOT_DONE, ERASED = "answered", "not done", "erased"


class AskedBefore:
    """What a site was asked in each attempt at a run: a stage with the same arguments is done once.

    So is what one message asks, however often it is delivered, and whatever the site has kept of
    its own messages: once it has answered it, it does it never again. What was begun and is not
    answered, since the process ended meanwhile, is gone on with.

    A policy bounds what one round takes, and how many rounds there are; a coordinator that could
    have a round trained any number of times would have no bound. What the site has begun stands in
    its home of the run, so that neither other runs nor a process that is started anew make it
    forget it; nor does a power cut. Only what is begun is noted: a cue that the site does nothing
    for takes no room. To erase something a site may be asked without end, and notes it
    :data:`MOST_ERASED_IN_ONE` times: a later message of that kind that is delivered again erases
    again, which costs nobody but that run.
    """

    def __init__(self, home: SiteHome) -> None:
        self._home = home
        self._read: LRUCache[tuple[str, int], _Noted] = LRUCache(MOST_KNOWN)

    def repeated(self, asked: Ask) -> str | None:
        """Why something is not done since it was asked before; ``None`` where it is new.

        To erase something a site may be asked again and again.

        Raises:
            ConsiliumError: what is noted of the attempt cannot be read.
        """
        if asked.stage in (*ERASING, LEAVE):
            return None
        known = self._known(asked).begun
        if known.get(_what(asked), asked.digest) != asked.digest:
            return f"it was asked the same before in attempt {asked.attempt}"
        if len(known) >= MOST_BEGUN_IN_ONE and _what(asked) not in known:
            return f"it has begun {len(known)} things in attempt {asked.attempt}, and no more"
        return None

    def note(self, asked: Ask) -> None:
        """Note that the site begins something; as long as that fails it is not to begin.

        Raises:
            OSError: it cannot be written.
            ConsiliumError: what is noted of the attempt cannot be read.
        """
        known, what = self._known(asked).begun, _what(asked)
        if asked.stage in (*ERASING, LEAVE) or what in known:
            return
        self._write(asked, what)
        known[what] = asked.digest

    def is_answered(self, asked: Ask) -> bool:
        """Whether the site has answered this very message before.

        Raises:
            ConsiliumError: what is noted of the attempt cannot be read.
        """
        known = self._known(asked)
        answered = (known.answered, known.not_done, known.erased)
        return any(asked.digest in digests for digests in answered)

    def missing_before(self, asked: Ask) -> str | None:
        """The stage that comes before one that was asked along with it, where that is not done.

        It was answered then, with why it is not done; a stage that nobody has answered is gone on
        with, before this one.

        Raises:
            ConsiliumError: what is noted of the attempt cannot be read.
        """
        if asked.stage not in AFTER:
            return None
        before, known = AFTER[asked.stage], self._known(asked)
        message = known.begun.get(_what(replace(asked, stage=before)))
        return before if message in known.not_done else None

    def note_answered(self, asked: Ask, is_done: bool) -> None:
        """Note that the site has answered a message, to which it has nothing to say from now on.

        Of a message that nothing was begun for nothing is noted: it would be refused again.

        Args:
            asked: what it was asked.
            is_done: whether it has said that it is done, and not why it is not.

        Raises:
            OSError: it cannot be written.
            ConsiliumError: what is noted of the attempt cannot be read.
        """
        known = self._known(asked)
        if asked.stage in ERASING:
            is_noted = known.begun and len(known.erased) < MOST_ERASED_IN_ONE
            mark, noted = ERASED, known.erased
        else:
            is_noted = known.begun.get(_what(asked)) == asked.digest
            mark, noted = (ANSWERED, known.answered) if is_done else (NOT_DONE, known.not_done)
        if is_noted and not self.is_answered(asked):
            self._write(asked, mark)
            noted.add(asked.digest)

    def _write(self, asked: Ask, what: str) -> None:
        path = self._home.run(asked.run).asked_path(asked.attempt)
        make_folders(path.parent, private=True)
        append_line(path, json.dumps([what, asked.digest]), durable=True)

    def _known(self, asked: Ask) -> "_Noted":
        key = (asked.run, asked.attempt)
        if key not in self._read:
            path = self._home.run(asked.run).asked_path(asked.attempt)
            self._read[key] = _noted(path) if path.is_file() else _Noted()
        return self._read[key]


@dataclass(frozen=True)
class _Noted:
    """What is noted of an attempt.

    Attributes:
        begun: what was begun, by its digest, and by which message it was asked.
        answered: the messages that were answered, since what they ask is done.
        not_done: those that were answered with why it is not.
        erased: those that something was erased by.
    """

    begun: dict[str, str] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    not_done: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)


def _noted(path: Path) -> _Noted:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = _Noted()
    for number, line in enumerate(lines, 1):
        try:
            what, digest = json.loads(line)
        except (ValueError, TypeError) as error:
            if number == len(lines) or (line.startswith('["') and not line.endswith("]")):
                # The machine stopped as it was written, or the disk was full: nothing was begun.
                continue
            raise unreadable(path, error) from error
        if what == ANSWERED:
            found.answered.add(digest)
        elif what == NOT_DONE:
            found.not_done.add(digest)
        elif what == ERASED:
            found.erased.add(digest)
        else:
            found.begun.setdefault(what, digest)
    return found


def _what(asked: Ask) -> str:
    return sha256(json.dumps([asked.stage, *asked.arguments]).encode()).hexdigest()


def is_proposed(home: SiteHome, exchange: Exchange, asked: Ask) -> bool:
    """Whether the coordinator has proposed something in the attempt at a run that it asks for."""
    mailbox = Mailbox(home.identity(), home.members(), exchange, home.audit)
    topic = Topic(home.coordinator().consortium, asked.run, asked.attempt)
    try:
        mailbox.receive(topic, kinds.PROPOSAL, COORDINATOR, kinds.MOST_PLAN)
    except ConsiliumError:
        return False
    return True


def answer(home: SiteHome, exchange: Exchange, asked: Ask, error: str | None = None) -> None:
    """Say that the site has done what it was asked, or by ``error`` why not.

    Args:
        home: the site's home.
        exchange: where the site's messages lie.
        asked: what it was asked.
        error: why it has not done it, in words that everybody may read. Where the site's home, its
            ledger and its data lie is left out of them.
    """
    if error:
        error = without_places(home, error)[:LONGEST_WORD]
    mailbox = Mailbox(home.identity(), home.members(), exchange, home.audit)
    body = json.dumps({"ask": asked.digest, "error": error}).encode()
    topic = asked.topic(home.coordinator().consortium)
    mailbox.send(topic, f"{kinds.DONE}{asked.number}", body, COORDINATOR)


def without_places(home: SiteHome, said: str) -> str:
    """What a site says, without where anything of its own lies on its machine.

    Of its home, of ``CONSILIUM_HOME`` and of the ledger a name stands in place of the path, and
    what lies in them is still told; of the data nothing below their folder is.
    """
    said = said.replace(f" --home {home.root}", "")
    named = [
        (home.root, f"{home.name}:"),
        (ledger_root(), f"{home.name}'s ledger:"),
        (consilium_home(), f"{home.name}'s CONSILIUM_HOME:"),
    ]
    patterns = [(place, "/?", name) for place, name in named]
    if (data := _data_folder(home)) is not None:
        patterns.append((data, r"(?:/[^\s'\",;:()]*)?", f"{home.name}'s data"))
    places = {
        (str(path), below): name
        for place, below, name in patterns
        for path in (place, place.resolve())
        if path != Path(path.anchor)
    }
    # The longest first: the home may lie in CONSILIUM_HOME, and the data in either.
    for (path, below), name in sorted(places.items(), key=lambda each: -len(each[0][0])):
        # A whole path, and no other that only begins as it does.
        whole = rf"{re.escape(path)}(?![\w-]|\.\w){below}"
        # A name has no group of a pattern in it but by its backslashes.
        said = re.sub(whole, name.replace("\\", r"\\"), said)
    return said


def _data_folder(home: SiteHome) -> Path | None:
    """The folder of the site's data, as far as its settings tell."""
    try:
        return Path(home.settings()["data"])
    except (ConsiliumError, KeyError, TypeError):
        return None


def has_answered(home: SiteHome, exchange: Exchange, asked: Ask) -> bool:
    """Whether the site has said something of what it was asked: it is asked once."""
    return bool(_words(home, exchange, asked))


def has_done(home: SiteHome, exchange: Exchange, asked: Ask) -> bool:
    """Whether the site has said that something is done; a word that cannot be read says nothing."""
    for path in _words(home, exchange, asked):
        try:
            with open_message(path) as unread:
                body = unread.read(home.identity().public, kinds.MOST_DONE).body
            if json.loads(body)["error"] is None:
                return True
        except (ConsiliumError, OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
    return False


def _words(home: SiteHome, exchange: Exchange, asked: Ask) -> Sequence[Path]:
    kind = f"{kinds.DONE}{asked.number}"
    return exchange.find(Place(asked.run, asked.round, asked.attempt, COORDINATOR, kind, home.name))


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


def said_of(error: Exception, site: str, stage: str, where: Path, private: bool) -> str:
    """What is told of an error at a site, which others may read.

    What the site itself refuses is said in its own words. Anything else could tell of its files:
    it stays in ``where``. Of a ``private`` run it could tell of a single case, by the kind of the
    error, or by that memory ran out: all of these are said in the same words.

    Args:
        error: what happened.
        site: the site.
        stage: what it was to do.
        where: the file that the error is kept in.
        private: whether the run is, or may be.
    """
    if isinstance(error, RefusalError):
        return str(error)
    if private:
        return kept_at_site(site, stage, where)
    kind = "" if isinstance(error, ConsiliumError) else f" ({type(error).__name__})"
    return (
        f"{site} could not finish its part, {stage}{kind}. The reason stays with the site, in "
        f"{where}."
    )
