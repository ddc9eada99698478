"""What each party does in the stages of SecAgg+ (Bell et al. 2020, Algorithm 2).

1. advertise: a site makes two key pairs, and sends the public halves, signed, and a commitment to
   the seed of its own mask.
2. share: it splits the seed of its masking key and a seed of its own among its neighbours and
   itself, each share sealed for its holder, and gives a hash of every share; the coordinator passes
   them on unread.
3. mask: it sends its values plus the mask of its own seed, plus or minus one with each neighbour.
4. agree: it signs what it was told of the round, and waits for what others have signed
   (``consistency.py``).
5. unmask: each site that is still there gives for each neighbour one share: that of its own seed
   if the neighbour's masked vector arrived, and otherwise that of its masking key's seed; never
   both. What is left is the sum.

Guarantee: a coordinator that may send anything to anyone, together with at most the share
``corrupted`` of the sites, learns nothing of the quantised values of the others beyond the sum of
all of them that are in the one view that sites have signed. It holds for certain with the complete
graph. With a sparse one it holds except with probability 3·2^-40 a round, while at most the share
``dropout`` is missing and without regard to the graph (``bounds.py`` has the conditions). It holds
under the computational Diffie-Hellman assumption on X25519, AES as a pseudorandom function, SHA-256
as a random oracle, and signatures that cannot be forged. The other sites have to follow the
protocol, and to know the identities with which keys and views are signed: whoever calls these
functions checks the signatures (``exchange/bundle.py``, ``consistency.check_consistent``), and
marks each step before it is done (``once.Done``) and each sum (``answered.Answered``).

That the sum is right does not follow for the values: a site may send any. But shares that are wrong
are found, left out, and their sender is named, as long as ``threshold`` right ones are left
(``dealing.py``, ``recovery.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.protection.secagg.consistency import Agreed
from federated.protection.secagg.dealing import deal, open_dealt
from federated.protection.secagg.keys import KeyPair, new_seed
from federated.protection.secagg.masks import WORDS, add_mask
from federated.protection.secagg.recovery import Answer, Evidence, recover
from federated.protection.secagg.roster import own_commitment, roster_digest
from federated.protection.secagg.round import (
    Advertised,
    Kind,
    Round,
    Secrets,
    label,
    masking_pair,
)
from federated.protection.secagg.view import refuse_parts
from federated.secrets.key_derivation import derive_key

Masked = npt.NDArray[np.unsignedinteger]
Sums = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Unmasked:
    """A sum of which the masks are off.

    Attributes:
        sums: int64 ``(length,)``.
        faulty: the sites that answered other shares than they were dealt, or dealt shares of
            another seed than they committed to, by name; the sum is right without what they sent.
        accused: by dealer, the holders that say that what it dealt them was wrong. Only the two
            know, and one of them is at fault.
    """

    sums: Sums
    faulty: tuple[str, ...]
    accused: Mapping[str, tuple[str, ...]]


def advertise(
    site: str, run: str, number: int, attempt: int = 0, sum_: str = ""
) -> tuple[Secrets, Advertised]:
    """Stage 1 at a site: the secrets of an attempt at a round, and what is sent of them.

    Args:
        site: the site.
        run: the run's id.
        number: the round's number.
        attempt: the attempt at it.
        sum_: the name of the sum that they are for; empty for that of the updates.
    """
    secrets = Secrets(site, KeyPair.new(), new_seed(), new_seed())
    purpose = label(run, number, attempt, "own commitment", site, sum_=sum_)
    commitment = own_commitment(secrets.own_seed, purpose)
    return secrets, Advertised(secrets.sealing.public, secrets.masking.public, commitment)


def share(
    secrets: Secrets, advertised: Mapping[str, Advertised], round_: Round
) -> dict[str, bytes]:
    """Stage 2 at a site: for each holder, its shares of both seeds, readable by it alone.

    It is to be done once with the same secrets, and what it gives stored: ``once.Done.share``.

    Raises:
        ConsiliumError: a holder's public key is not usable.
    """
    return deal(secrets, advertised, round_)


def mask_update(
    quantised: npt.NDArray[np.int32],
    secrets: Secrets,
    advertised: Mapping[str, Advertised],
    sharing: Sequence[str],
    round_: Round,
) -> Masked:
    """Stage 3 at a site: its quantised update, masked, which looks uniform.

    It is to be done for one update and one ``sharing`` alone: ``once.Done.mask``.

    Args:
        quantised: int32 ``(length,)``.
        secrets: the site's secrets of the round.
        advertised: the public keys of all sites.
        sharing: the sites that completed stage 2.
        round_: what all parties know of the round.

    Returns:
        The masked integers ``(length,)`` modulo 2^b.

    Raises:
        ConsiliumError: fewer of the site's holders than the threshold are among ``sharing``.
    """
    near = [peer for peer in round_.holders(secrets.site) if peer in sharing]
    if len(near) < round_.threshold:
        raise ConsiliumError(
            f"Of {secrets.site} and its neighbours only {len(near)} have exchanged keys in round "
            f"{round_.number}, fewer than the threshold of {round_.threshold}. It sends nothing."
        )
    word = np.dtype(WORDS[round_.bits])
    masked: Masked = quantised.astype(word)
    add_mask(masked, _own_key(secrets.own_seed, round_))
    pair = secrets.masking
    for peer in round_.neighbours[secrets.site]:
        if peer in sharing:
            key = _pair_key(secrets.site, pair, peer, advertised[peer], round_)
            add_mask(masked, key, subtract=secrets.site > peer)
    return masked


def answer(
    secrets: Secrets,
    inbox: Mapping[str, bytes],
    advertised: Mapping[str, Advertised],
    agreed: Agreed,
    round_: Round,
) -> Answer:
    """The last stage at a site: one share of each neighbour, and one of its own.

    A dealer whose shares are not what they should be is named in the answer and has none in it: one
    site that deals wrongly does not keep the others from their sum.

    Args:
        secrets: the site's secrets of the round.
        inbox: by dealer, what it sent for this site in stage 2.
        advertised: the public keys of all sites.
        agreed: the view that the site answers for, which enough others have signed.
        round_: what all parties know of the round.

    Raises:
        ConsiliumError: the view is one of another attempt or round, or of other keys.
    """
    view = agreed.view
    asked = (round_.fingerprint, roster_digest(advertised, round_))
    if asked != (view.round_digest, view.roster):
        raise ConsiliumError(
            f"{secrets.site} is asked in round {round_.number} of run {round_.run} with what was "
            "agreed on in another, or for other keys. It answers nothing."
        )
    shares, bad = {}, []
    told = {*view.responded, *view.missing}
    for dealer in round_.holders(secrets.site):
        if dealer not in inbox or dealer not in told:
            continue
        held = open_dealt(secrets, dealer, inbox[dealer], advertised[dealer], round_)
        if held is None:
            bad.append(dealer)
            continue
        kind: Kind = "own" if dealer in view.responded else "masking"
        shares[dealer] = held[kind]
    return Answer(shares, tuple(bad))


def unmask(
    total: Masked, responded: Sequence[str], missing: Sequence[str], evidence: Evidence
) -> Unmasked:
    """The last stage at the coordinator: the sum of the quantised values of those who responded.

    Args:
        total: Σ of the masked values ``(length,)`` modulo 2^b.
        responded: the sites whose masked values are in the sum.
        missing: those that shared and then dropped out.
        evidence: what was advertised, dealt and answered.

    Raises:
        SumLostError: a site has dealt shares of another seed than it committed to, or there are
            fewer right shares than the threshold because of wrong ones; it names who is at fault.
        ConsiliumError: there are fewer because too many sites are missing, which the message names;
            or those who responded are not connected.
    """
    round_, advertised = evidence.round_, evidence.advertised
    refuse_parts(responded, round_)
    total = total.copy()
    faulty: set[str] = set()
    for site in responded:
        seed, found = recover(site, "own", evidence)
        faulty |= found
        add_mask(total, _own_key(seed, round_), subtract=True)
    for site in missing:
        present = [peer for peer in round_.neighbours[site] if peer in responded]
        if not present:
            continue
        seed, found = recover(site, "masking", evidence)
        faulty |= found
        pair = masking_pair(seed)
        for peer in present:
            key = _pair_key(site, pair, peer, advertised[peer], round_)
            add_mask(total, key, subtract=peer < site)
    sums = total.astype(np.dtype(f"<i{round_.bits // 8}"), copy=False).astype(np.int64)
    accusers = {site: evidence.accusers(site) for site in (*responded, *missing)}
    accused = {site: names for site, names in accusers.items() if names}
    return Unmasked(sums, tuple(sorted(faulty)), accused)


def _own_key(seed: bytes, round_: Round) -> bytes:
    return derive_key(seed, round_.label("own mask"))


def _pair_key(site: str, pair: KeyPair, peer: str, public: Advertised, round_: Round) -> bytes:
    purpose = round_.label("mask", *sorted((site, peer)))
    return pair.common_key(public.masking, purpose)
