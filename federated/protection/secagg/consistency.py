"""That enough sites were told the same of a round, before one of them answers.

This is the round ConsistencyCheck of Bonawitz et al., "Practical Secure Aggregation for
Privacy-Preserving Machine Learning", CCS 2017, Section 6.2: between masking and unmasking each site
signs what it was told and answers only once enough sites have signed the same. What is signed here
is more than who responded: also who is missing, a digest of all keys and commitments, the start
state, and the attempt.

Guarantee. Let n sites be selected, of which at most c collude with a coordinator that may send
anything to anyone; the others follow the protocol, so that each signs one view in an attempt
(``once.py``), and signatures cannot be forged. A site answers only if at least ``quorum`` sites of
the roster, q = ⌊(n + c)/2⌋ + 1, and ``threshold`` of its own holders have signed its view.

1. *One view.* Had two sites answered for two views, then 2q − n > c sites would have signed both,
   and one of them follows the protocol: a contradiction. So all answers of an attempt are for one
   list of those who responded and one of those who are missing, one roster, and one start state,
   however sparse the graph is. Where all mask with all, the holders of a site are everyone, and the
   threshold t does so for up to 2t − n − 1 colluding sites, which may be more than c.
2. *One sum.* For one view a site gives, of each dealer, the one share that the view asks for. The
   other kind is known of at most the c_h < t colluding among the dealer's holders. So of who
   responded the coordinator gets the seed of its own mask and not its masking key, and of who is
   missing the reverse. All have masked with exactly those who responded and those who are missing,
   for each site compares that before it signs (``once.py``). Where the honest among those who
   responded are connected, it learns their sum and nothing else: for certain where all mask with
   all, and in a sparse graph under the conditions of ``bounds.py``.
3. *Without this check* the coordinator could ask each honest holder for another list. It gets both
   secrets of a site with 2t − h colluding among its h holders: t − c_h honest ones of each opinion
   are enough. And where fewer collude, it can still have the masking keys of many sites told under
   many lists, each of which leaves out only a few, and open the sum of two sites out of ten with
   one that colludes (``tests/federated/protection/test_secagg_lies.py`` does both).

Beyond c it fails: 2q − n colluding sites that sign twice, or 2t − n where all mask with all and t
is larger, let two parts of the others each take the other for dropped out. No protocol that lets as
many sites drop out can tell that apart. And a coordinator may always leave out whom it likes, up to
what ``threshold``, ``quorum`` and ``min_sites`` allow, or stop a round.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from federated.errors import ConsiliumError
from federated.protection.secagg.round import Round
from federated.protection.secagg.view import View


@dataclass(frozen=True)
class Said:
    """What a site has said in the consistency round.

    Attributes:
        digest: the SHA-256 of the view's bytes that it signed.
        verified: whether the signature is that of the site, by the identity enrolled.
    """

    digest: str
    verified: bool


@dataclass(frozen=True)
class Agreed:
    """A view that enough sites have signed, and who; :func:`check_consistent` makes it.

    Without that check nothing holds against a coordinator that tells sites different things.
    """

    view: View
    signers: tuple[str, ...] = ()


def check_consistent(site: str, own: View, said: Mapping[str, Said], round_: Round) -> Agreed:
    """What a site may answer for: its view, if enough others have signed the same.

    Args:
        site: the site that checks.
        own: its own view.
        said: by site, what it has signed; the caller has checked the signatures.
        round_: what all parties know of the round.

    Raises:
        ConsiliumError: fewer than ``quorum`` sites of the roster, or fewer than ``threshold`` of
            the site's holders, have signed it; the message names who has signed something else.
    """
    valid = {who: what for who, what in said.items() if what.verified and who in round_.neighbours}
    signers = {who for who, what in valid.items() if what.digest == own.digest}
    needed = max(round_.quorum, len(round_.neighbours) // 2 + 1)
    near = signers.intersection(round_.holders(site))
    if len(signers) >= needed and len(near) >= round_.threshold:
        return Agreed(own, tuple(sorted(signers)))
    other = sorted(set(valid) - signers)
    unsigned = sorted(set(said) - set(valid))
    reasons = [f"{', '.join(other)} signed something else"] if other else []
    if unsigned:
        reasons.append(f"what is said to be of {', '.join(unsigned)} is not signed by it")
    raise ConsiliumError(
        f"{site} does not help to open the sum of round {round_.number}: {len(signers)} sites, "
        f"{len(near)} of its holders among them, have signed that they were told the same, and "
        f"{needed} and {round_.threshold} are needed{'; ' if reasons else ''}{'; '.join(reasons)}. "
        "If the coordinator tells sites different things, it could learn an update. Nothing was "
        "revealed. Ask whoever runs it, and resume the run; the round begins anew."
    )
