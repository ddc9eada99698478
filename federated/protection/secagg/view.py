"""What a site was told of a round before it answers, and whether it may help to open such a sum."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from federated.errors import ConsiliumError, TooFewSitesError
from federated.protection.secagg.graph import parts
from federated.protection.secagg.roster import roster_digest
from federated.protection.secagg.round import Advertised, Round


@dataclass(frozen=True)
class View:
    """What a site was told of an attempt at a round, in a form that has one spelling as bytes.

    Attributes:
        round_digest: the fingerprint of run, round, attempt, start state, graph and thresholds.
        label: the run, round and attempt in words.
        state: the SHA-256 of the state that the round starts from.
        roster: the digest of all keys and commitments.
        responded: the sites in the sum, by name.
        missing: the sites that shared and are not in the sum, by name.
    """

    round_digest: str
    label: str
    state: str
    roster: str
    responded: tuple[str, ...]
    missing: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """What a site signs. Two views have the same bytes only if all in them is the same."""
        told = [self.label, self.round_digest, self.state, self.roster]
        content = [*told, list(self.responded), list(self.missing)]
        return json.dumps(content, separators=(",", ":")).encode()

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of :meth:`to_bytes`, which is compared with what every site says."""
        return sha256(self.to_bytes()).hexdigest()


def view(
    site: str,
    advertised: Mapping[str, Advertised],
    responded: Sequence[str],
    missing: Sequence[str],
    round_: Round,
) -> View:
    """What a site was told, once it is something that the site may help to open; to be signed.

    Args:
        site: the site.
        advertised: the public keys of all sites.
        responded: the sites whose masked values the coordinator has.
        missing: those that shared and then dropped out.
        round_: what all parties know of the round.

    Raises:
        ConsiliumError: a name is there twice, in both lists, or unknown; the site is not in the sum
            itself; too few of its holders are; or the sum is of groups that do not mask with each
            other.
    """
    _refuse_repeated([*responded, *missing], set(responded) & set(missing), site, round_)
    refuse_parts(responded, round_)
    known = set(round_.neighbours)
    unknown = sorted((set(missing) - known) | (set(advertised) ^ known))
    if unknown:
        raise ConsiliumError(
            f"{site} is told of {', '.join(unknown)} in round {round_.number}, which has no keys "
            "in the roster or no place in the graph. It answers nothing."
        )
    if site not in responded:
        raise ConsiliumError(
            f"The sum of round {round_.number} does not have {site} itself in it. It answers "
            "nothing."
        )
    near = [peer for peer in round_.holders(site) if peer in responded]
    if len(near) < round_.threshold:
        raise ConsiliumError(
            f"Of {site} and its neighbours only {len(near)} sent updates in round "
            f"{round_.number}, fewer than the threshold of {round_.threshold}. It answers nothing."
        )
    return View(
        round_.fingerprint,
        round_.label("view"),
        round_.state,
        roster_digest(advertised, round_),
        tuple(sorted(responded)),
        tuple(sorted(missing)),
    )


def refuse_parts(responded: Sequence[str], round_: Round) -> None:
    """Refuse a sum of sites whose graph has fallen apart.

    Raises:
        ConsiliumError: it has, and the message names the smallest group that does not mask with the
            others; or a site advertised no keys.
    """
    unknown = sorted(set(responded) - set(round_.neighbours))
    if unknown:
        raise ConsiliumError(
            f"The sum of round {round_.number} is said to have {', '.join(unknown)} in it, which "
            "advertised no keys. Nobody helps to open it."
        )
    groups = parts(round_.neighbours, responded)
    if len(groups) > 1:
        raise TooFewSitesError(
            f"In round {round_.number} so many sites are missing that "
            f"{', '.join(sorted(groups[-1]))} no longer mask with the other "
            f"{len(set(responded)) - len(groups[-1])}: the sum of each group could be told, so "
            "nobody helps to open it. Resume when they are back; for the next run, leave out "
            "protection.neighbours or raise protection.dropout."
        )


def refuse_unopenable(responded: Sequence[str], missing: Sequence[str], round_: Round) -> None:
    """Refuse, at the coordinator, a sum that too few holders of some site's shares could open.

    Whom a coordinator has once asked to help to a sum may help to no other of that start state. So
    it asks nobody for one that it could never open.

    Args:
        responded: the sites whose masked values the coordinator has.
        missing: those that shared and then dropped out.
        round_: what all parties know of the round.

    Raises:
        TooFewSitesError: of the holders of a site's shares fewer than the threshold are in the sum.
    """
    there = set(responded)
    for site in sorted({*responded, *missing}):
        near = sum(peer in there for peer in round_.holders(site))
        if near < round_.threshold:
            absent = ", ".join(sorted(set(round_.neighbours) - there))
            raise TooFewSitesError(
                f"The sum of round {round_.number} could not be opened: of {site} and its "
                f"neighbours only {near} sent updates, fewer than the threshold of "
                f"{round_.threshold}; missing: {absent}. Nothing of any update was revealed. "
                "Resume when they are back."
            )


def _refuse_repeated(names: Sequence[str], both: set[str], site: str, round_: Round) -> None:
    if both:
        raise ConsiliumError(
            f"{site} is asked in round {round_.number} for both shares of "
            f"{', '.join(sorted(both))}, which would reveal their updates. It answers nothing."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConsiliumError(
            f"{site} is told {', '.join(twice)} more than once in round {round_.number}; a site "
            "counts once. It answers nothing."
        )
