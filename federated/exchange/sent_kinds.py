"""What a site may send: for each kind, how long it may be, whom it is for, and when.

The server at the coordinator takes nothing else of a site, so that no site can have it, or other
sites, keep what nobody asks for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from federated.exchange import kinds

# What comes before the kind of a message that helps to open a named sum; see ``named_sums.py``.
SUMS: Final = ("evaluation", "statistics", "final")

Recipients = Literal["coordinator", "all", "site"]


@dataclass(frozen=True)
class SentKind:
    """A kind that a site sends.

    Attributes:
        most: bytes of a body; ``None`` where they follow from the model or the parameters, so that
            only what bounds any message bounds it.
        to: whom it is for: the coordinator, all, or one other site.
        before_rounds: whether it is of round 0 alone, and of no named sum.
    """

    most: int | None
    to: tuple[Recipients, ...] = ("coordinator",)
    before_rounds: bool = False


_KINDS: Mapping[str, SentKind] = {
    kinds.SEALING: SentKind(kinds.MOST_ADVERTISED, ("all",), before_rounds=True),
    kinds.KEY: SentKind(kinds.MOST_HELD, ("all",), before_rounds=True),
    kinds.STYLE: SentKind(kinds.MOST_STYLE, ("all",), before_rounds=True),
    kinds.SEALED_KEY: SentKind(kinds.MOST_SEALED_KEY, ("site",), before_rounds=True),
    kinds.TAG: SentKind(kinds.MOST_TAG, ("all",)),
    kinds.CONSISTENCY: SentKind(kinds.most_view(1000), ("coordinator", "all")),
    kinds.JOINING: SentKind(kinds.MOST_SMALL, before_rounds=True),
    kinds.ADVERTISED: SentKind(kinds.MOST_ADVERTISED),
    kinds.SHARES: SentKind(kinds.MOST_SMALL),
    kinds.PAYLOAD: SentKind(None),
    kinds.ANSWER: SentKind(kinds.MOST_SMALL),
    kinds.OPENED: SentKind(None),
    kinds.PROOF: SentKind(None),
    kinds.EVALUATION: SentKind(kinds.MOST_EVALUATION),
    kinds.FINAL_EVALUATION: SentKind(kinds.MOST_EVALUATION),
    kinds.DISTANCES: SentKind(kinds.MOST_HELD),
    kinds.OWN_MODEL: SentKind(None),
    kinds.OWN_SHARES: SentKind(kinds.MOST_SMALL),
    kinds.PICTURES: SentKind(kinds.MOST_PICTURES),
    kinds.PRIVACY_REPORT: SentKind(kinds.MOST_PRIVACY_REPORT, before_rounds=True),
}
# Those that something follows: a number as it is written, or the name of a stage.
_FOLLOWED: Mapping[str, tuple[re.Pattern[str], SentKind]] = {
    kinds.DONE: (re.compile(r"[1-9][0-9]{0,14}"), SentKind(kinds.MOST_DONE)),
    kinds.HELD: (
        re.compile(r"0|[1-9][0-9]{0,3}"), SentKind(kinds.MOST_HELD, before_rounds=True),
    ),
    kinds.REPORT: (re.compile(r"[a-z][a-z_]{0,39}"), SentKind(kinds.MOST_HELD)),
}  # fmt: skip


def sent_kind(kind: str) -> SentKind | None:
    """What is known of a kind as it stands in a header; nothing where no site sends such a one."""
    name, dot, rest = kind.partition(".")
    of_sum = bool(dot) and name in SUMS
    found = _named(rest if of_sum else kind)
    # A word is on what was asked, whichever sum that was for.
    of_none = found is not None and (found.before_rounds or rest.startswith(kinds.DONE))
    return None if of_sum and of_none else found


def _named(kind: str) -> SentKind | None:
    for prefix, (what, found) in _FOLLOWED.items():
        if kind.startswith(prefix) and what.fullmatch(kind[len(prefix) :]):
            return found
    return _KINDS.get(kind)
