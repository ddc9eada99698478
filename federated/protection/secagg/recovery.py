"""How the coordinator puts a seed together from shares, and says whose fault it is if it cannot."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, islice

from federated.errors import ConsiliumError
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

# How many sets of shares are tried of a dealer that has dealt wrongly: a second or less with ten
# sites, three with twenty, and half a minute with three hundred.
TRIES = 200


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
        ConsiliumError: there are too few right shares; the message says who is missing and whose
            shares are wrong, or that the site has dealt wrongly.
    """
    round_, given = evidence.round_, evidence.given(site)
    right = {h: s.value for h, s in given.items() if evidence.is_right(s, h, site, kind)}
    wrong = frozenset(given) - frozenset(right)
    if len(right) < round_.threshold:
        raise ConsiliumError(_too_few(site, right, wrong, evidence))
    faulty = wrong
    for chosen in islice(combinations(right, round_.threshold), TRIES):
        shares = {holder: right[holder] for holder in chosen}
        seed = recover_seed(shares, round_.holders(site), round_.threshold)
        if evidence.is_committed(seed, site, kind):
            return seed, faulty
        faulty = wrong | {site}
    raise ConsiliumError(
        f"Round {round_.number} cannot be unmasked: the shares that {site} dealt do not give the "
        f"{_SEEDS[kind]} that it advertised, though {len(right)} holders gave them as {site} dealt "
        f"them. The fault is {site}'s. Exclude it, and resume the run; the round begins anew."
    )


def _too_few(
    site: str, right: Mapping[str, bytes], wrong: frozenset[str], evidence: Evidence
) -> str:
    round_, accusers = evidence.round_, evidence.accusers(site)
    absent = [h for h in round_.holders(site) if h not in {*right, *wrong, *accusers}]
    reasons = [f"missing: {', '.join(absent)}"] if absent else []
    if wrong:
        reasons.append(f"other shares than they were dealt come from {', '.join(sorted(wrong))}")
    if accusers:
        reasons.append(f"{', '.join(accusers)} say that {site} dealt them wrong ones")
    return (
        f"Round {round_.number} cannot be unmasked: of those who hold shares of {site} "
        f"{len(right)} answered rightly and {round_.threshold} are needed; {'; '.join(reasons)}. "
        "Nothing was revealed. Resume the run when they are back, or lower protection.threshold "
        "for a new one; whoever sent wrong shares should be left out."
    )


_SEEDS: Mapping[Kind, str] = {"own": "seed of its own mask", "masking": "masking key"}
