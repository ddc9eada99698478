"""How the coordinator puts a seed together from shares, and says whose fault it is if it cannot.

If it cannot because of what sites have sent, and not because too many are missing, the sum is lost
(:class:`SumLostError`): nothing of it is revealed, and a run can go on without those at fault. Who
answers another share than it was dealt, or deals shares of another seed than it committed to, is
at fault for certain. Where holders say that what they were dealt is wrong, either they lie or the
dealer does, and nobody else can see it: of two or more that say so the dealer is said to be at
fault, and of one neither. So no site on its own has another one left out.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations, islice

from federated.errors import ConsiliumError, TooFewSitesError
from federated.protection.secagg.dealing import is_as_dealt
from federated.protection.secagg.keys import SEED_BYTES
from federated.protection.secagg.roster import own_commitment
from federated.protection.secagg.round import (
    Advertised,
    Kind,
    Round,
    Share,
    masking_pair,
)
from federated.protection.secagg.shares import recover_seed

# How many sets of shares are tried of a dealer that has dealt wrongly: half a second or less.
TRIES = 200


class SumLostError(ConsiliumError):
    """A sum that cannot be unmasked because of what sites have sent, of which nothing was revealed.

    ``faulty`` are the sites that are at fault, as far as it can be known.
    """

    def __init__(self, text: str, faulty: Collection[str] = ()) -> None:
        super().__init__(text)
        self.faulty = frozenset(faulty)


@dataclass(frozen=True)
class Answer:
    """What a site gives in stage 4: by dealer one share, and who dealt it wrong ones."""

    shares: Mapping[str, Share]
    wrongly_dealt: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """All that the coordinator has to recover seeds with.

    Attributes:
        answers: by site, what it has answered.
        dealt: by dealer and holder, what was dealt in stage 2, as the dealers sent it.
        advertised: the public keys and commitments of all sites.
        round_: what all parties know of the round.
    """

    answers: Mapping[str, Answer]
    dealt: Mapping[str, Mapping[str, bytes]]
    advertised: Mapping[str, Advertised]
    round_: Round

    def given(self, site: str) -> dict[str, Share]:
        """By holder, the shares of a site that were answered."""
        return {
            holder: self.answers[holder].shares[site]
            for holder in self.round_.holders(site)
            if holder in self.answers and site in self.answers[holder].shares
        }

    def is_right(self, share: Share, holder: str, site: str, kind: Kind) -> bool:
        """Whether a holder's share of a site is of the kind asked for, and as it was dealt."""
        dealt = self.dealt.get(site, {}).get(holder, b"")
        whole = share.kind == kind and len(share.value) == SEED_BYTES
        return whole and is_as_dealt(share, site, holder, dealt, self.round_)

    def is_committed(self, seed: bytes, site: str, kind: Kind) -> bool:
        """Whether a seed is the one that a site committed to in stage 1."""
        public = self.advertised[site]
        if kind == "masking":
            return masking_pair(seed).public == public.masking
        purpose = self.round_.label("own commitment", site)
        return own_commitment(seed, purpose) == public.commitment

    def accusers(self, dealer: str) -> tuple[str, ...]:
        """The sites that say that what a dealer sent them was wrong."""
        found = (site for site, answer in self.answers.items() if dealer in answer.wrongly_dealt)
        return tuple(sorted(found))


def recover(site: str, kind: Kind, evidence: Evidence) -> tuple[bytes, frozenset[str]]:
    """A site's seed as it was committed to, and the sites that were found to be at fault.

    Every share is compared with the hash that the site gave of it; who answers another one is at
    fault, and the share is left out. If those that are left do not lead to the seed that the site
    committed to, the site has dealt wrongly and is at fault. Then other sets of shares are tried,
    up to :data:`TRIES` of them, as some may be right.

    Args:
        site: whose seed it is.
        kind: which of its seeds.
        evidence: what was dealt and answered.

    Raises:
        SumLostError: the site has dealt wrongly, or there are too few right shares because of
            wrong ones; the message says whose.
        ConsiliumError: there are too few right shares because too many holders are missing.
    """
    round_, given = evidence.round_, evidence.given(site)
    right = {h: s.value for h, s in given.items() if evidence.is_right(s, h, site, kind)}
    wrong = frozenset(given) - frozenset(right)
    if len(right) < round_.threshold:
        raise _too_few(site, right, wrong, evidence)
    faulty = wrong
    for chosen in islice(combinations(right, round_.threshold), TRIES):
        shares = {holder: right[holder] for holder in chosen}
        seed = recover_seed(shares, round_.holders(site), round_.threshold)
        if evidence.is_committed(seed, site, kind):
            return seed, faulty
        faulty = wrong | {site}
    raise SumLostError(
        f"Round {round_.number} cannot be unmasked: the shares that {site} dealt do not give the "
        f"{_SEEDS[kind]} that it advertised, though {len(right)} holders gave them as {site} dealt "
        f"them. The fault is {site}'s. Nothing was revealed.",
        faulty,
    )


def _too_few(
    site: str, right: Mapping[str, bytes], wrong: frozenset[str], evidence: Evidence
) -> ConsiliumError:
    """Why there are too few right shares of a site's seed, and whose fault that is."""
    round_, accusers = evidence.round_, evidence.accusers(site)
    lied = {*wrong, *accusers}
    absent = [h for h in round_.holders(site) if h not in {*right, *lied}]
    reasons = [f"missing: {', '.join(absent)}"] if absent else []
    if wrong:
        reasons.append(f"other shares than they were dealt come from {', '.join(sorted(wrong))}")
    if accusers:
        reasons.append(f"{', '.join(accusers)} say that {site} dealt them wrong ones")
    said = (
        f"Round {round_.number} cannot be unmasked: of those who hold shares of {site} "
        f"{len(right)} answered rightly and {round_.threshold} are needed; {'; '.join(reasons)}. "
        "Nothing was revealed."
    )
    if len({*right, *lied}) < round_.threshold:
        return TooFewSitesError(
            f"{said} Resume the run when they are back, or lower protection.threshold for a new "
            "one; whoever sent wrong shares should be left out. Sites that have answered for other "
            "sites from the same state, as in another run of this seed, do not answer for these, "
            "and say so themselves: then only a run with another seed goes on."
        )
    return SumLostError(said, wrong | ({site} if len(accusers) > 1 else set()))


_SEEDS: Mapping[Kind, str] = {"own": "seed of its own mask", "masking": "masking key"}
