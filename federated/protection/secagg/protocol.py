"""What each party does in the four stages of SecAgg+ (Bell et al. 2020, Algorithm 2).

1. advertise: a site makes two key pairs and sends the public halves.
2. share: it splits the seed of its masking key and a seed of its own among its neighbours and
   itself, each share sealed for its holder; the coordinator passes them on unread.
3. mask: it sends its levels plus the mask of its own seed, plus or minus one with each neighbour.
4. unmask: of each neighbour, those who are still there give the share of its own seed if its masked
   vector arrived, else that of its masking key's; never both. What is left is the sum.

Guarantee: a coordinator that follows the protocol, together with at most the share ``corrupted`` of
the sites, learns nothing of the levels of the others beyond the sum of all of them that arrived,
while at most the share ``dropout`` drops out: for certain with the complete graph, except with
probability 3·2^-40 a round with a sparse one (``bounds.py`` has the conditions), under the
computational Diffie-Hellman assumption on X25519 and AES as a pseudorandom function. All sites have
to follow the protocol, those that collude too. So has the coordinator: whether it tells every site
the same names sites cannot check here, nor that advertised keys are those of the sites. Who can
replace keys can read along, so the channel has to be authentic. What a site does check, before it
helps to unmask: that the sites in the sum are connected, so that the masks of none of their groups
cancel apart from the rest.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from federated.errors import ConsiliumError
from federated.protection.secagg.graph import Neighbours, parts
from federated.protection.secagg.keys import SEED_BYTES, KeyPair, common_key, new_seed
from federated.protection.secagg.masks import WORDS, add_mask
from federated.protection.secagg.shares import recover_seed, share_seed
from federated.secrets.key_derivation import derive_key

Masked = npt.NDArray[np.unsignedinteger]
Sums = npt.NDArray[np.int64]
Kind = Literal["own", "masking"]
# Used for one message alone, so that the nonce may be constant.
NONCE = bytes(12)


@dataclass(frozen=True)
class Round:
    """What all parties of a round know: which round, who masks with whom, how many may be missing.

    ``bits`` is b of the integers modulo 2^b.
    """

    run: str
    number: int
    neighbours: Neighbours
    threshold: int
    bits: int

    def holders(self, site: str) -> tuple[str, ...]:
        """Who holds shares of a site's keys: its neighbours and itself, in the order of names."""
        return tuple(sorted((*self.neighbours[site], site)))

    @property
    def fingerprint(self) -> str:
        """Thirty-two hexadecimal digits that differ between runs, rounds and settings."""
        text = json.dumps([self.label("round"), dict(self.neighbours), self.threshold, self.bits])
        return sha256(text.encode()).hexdigest()[:32]

    def label(self, purpose: str, *sites: str) -> str:
        """What a key or message is for; two different labels never have a key in common."""
        return "|".join(["consilium secagg+", self.run, str(self.number), purpose, *sites])


@dataclass(frozen=True)
class Secrets:
    """What a site keeps to itself for one round.

    ``masking_seed`` leads to the keys it has in common with its neighbours, ``own_seed`` to the
    mask that is its alone.
    """

    site: str
    sealing: KeyPair
    masking_seed: bytes
    own_seed: bytes

    @property
    def masking(self) -> KeyPair:
        """The pair that masking keys are agreed on with."""
        return masking_pair(self.masking_seed)


@dataclass(frozen=True)
class Advertised:
    """A site's public keys for one round."""

    sealing: bytes
    masking: bytes


@dataclass(frozen=True)
class Share:
    """A neighbour's share of one of a site's seeds."""

    kind: Kind
    value: bytes


def advertise(site: str) -> tuple[Secrets, Advertised]:
    """Stage 1."""
    secrets = Secrets(site, KeyPair.new(), new_seed(), new_seed())
    return secrets, Advertised(secrets.sealing.public, secrets.masking.public)


def share(secrets: Secrets, advertised: Mapping[str, Advertised], now: Round) -> dict[str, bytes]:
    """Stage 2: for each holder, its shares of both seeds, readable by it alone.

    A site holds shares of its own, so that of n sites all joined to each other n may be the
    threshold.
    """
    holders = now.holders(secrets.site)
    masking = share_seed(secrets.masking_seed, holders, now.threshold)
    own = share_seed(secrets.own_seed, holders, now.threshold)
    sealed = {}
    for holder in holders:
        label = now.label("share", secrets.site, holder)
        key = common_key(secrets.sealing.private, advertised[holder].sealing, label)
        content = masking[holder] + own[holder]
        sealed[holder] = ChaCha20Poly1305(key).encrypt(NONCE, content, label.encode())
    return sealed


def mask_levels(
    levels: npt.NDArray[np.int32],
    secrets: Secrets,
    advertised: Mapping[str, Advertised],
    sharing: Sequence[str],
    now: Round,
) -> Masked:
    """Stage 3: levels that look uniform.

    Args:
        levels: int32 ``(length,)``.
        secrets: the site's of the round.
        advertised: the public keys of all sites.
        sharing: the sites that completed stage 2.
        now: what all parties know of the round.

    Raises:
        ConsiliumError: fewer of the site's holders than the threshold are among them.
    """
    near = [peer for peer in now.holders(secrets.site) if peer in sharing]
    if len(near) < now.threshold:
        raise ConsiliumError(
            f"Of {secrets.site} and its neighbours only {len(near)} have exchanged keys in round "
            f"{now.number}, fewer than the threshold of {now.threshold}. It sends nothing."
        )
    word = np.dtype(WORDS[now.bits])
    masked: Masked = levels.astype(word)
    add_mask(masked, _own_key(secrets.own_seed, now))
    private = secrets.masking.private
    for peer in now.neighbours[secrets.site]:
        if peer in sharing:
            key = _pair_key(secrets.site, private, peer, advertised[peer], now)
            add_mask(masked, key, subtract=secrets.site > peer)
    return masked


def answer(
    secrets: Secrets,
    sealed: Mapping[str, bytes],
    advertised: Mapping[str, Advertised],
    arrived: Sequence[str],
    missing: Sequence[str],
    before: Sequence[str] | None,
    now: Round,
) -> dict[str, Share]:
    """Stage 4 at a site: one share of each neighbour.

    Args:
        sealed: what the neighbours sent in stage 2.
        arrived: the sites whose masked levels the coordinator has.
        missing: those that shared and then dropped out.
        before: the sites that had arrived when this site answered in this round before, if it did.

    Raises:
        ConsiliumError: it would give both shares of a neighbour, or help to a second sum of the
            same round, too few have arrived or in groups that do not mask with each other, or a
            message was changed or is of another round.
    """
    refuse_parts(arrived, now)
    both = set(arrived) & set(missing)
    if both:
        raise ConsiliumError(
            f"{secrets.site} is asked in round {now.number} for both shares of "
            f"{', '.join(sorted(both))}, which would reveal their updates. It answers nothing."
        )
    if before is not None and set(before) != set(arrived):
        other = ", ".join(sorted(set(before) ^ set(arrived)))
        raise ConsiliumError(
            f"{secrets.site} has already answered in round {now.number} for other sites; a second "
            f"sum with or without {other} would reveal their updates by the difference. It answers "
            "nothing. Start a new run, or resume when the same sites can take part."
        )
    near = [peer for peer in now.holders(secrets.site) if peer in arrived]
    if len(near) < now.threshold:
        raise ConsiliumError(
            f"Of {secrets.site} and its neighbours only {len(near)} sent updates in round "
            f"{now.number}, fewer than the threshold of {now.threshold}. It answers nothing."
        )
    shares = {}
    for peer in now.holders(secrets.site):
        if peer not in sealed or peer not in {*arrived, *missing}:
            continue
        kind: Kind = "own" if peer in arrived else "masking"
        content = _open(secrets, peer, sealed[peer], advertised[peer], now)
        half = slice(SEED_BYTES, None) if kind == "own" else slice(SEED_BYTES)
        shares[peer] = Share(kind, content[half])
    return shares


def refuse_parts(arrived: Sequence[str], now: Round) -> None:
    """Refuse a sum of sites whose graph has fallen apart.

    Raises:
        ConsiliumError: names the smallest group that does not mask with the others.
    """
    unknown = sorted(set(arrived) - set(now.neighbours))
    if unknown:
        raise ConsiliumError(
            f"The sum of round {now.number} is said to have {', '.join(unknown)} in it, which "
            "advertised no keys. Nobody helps to open it."
        )
    groups = parts(now.neighbours, arrived)
    if len(groups) > 1:
        raise ConsiliumError(
            f"In round {now.number} so many sites are missing that "
            f"{', '.join(sorted(groups[-1]))} no longer mask with the other "
            f"{len(set(arrived)) - len(groups[-1])}: the sum of each group could be told, so "
            "nobody helps to open it. Resume when they are back; for the next run, leave out "
            "protection.neighbours or raise protection.dropout."
        )


def unmask(
    total: Masked,
    answers: Mapping[str, Mapping[str, Share]],
    advertised: Mapping[str, Advertised],
    arrived: Sequence[str],
    missing: Sequence[str],
    now: Round,
) -> Sums:
    """Stage 4 at the coordinator: the sum of the levels of the sites that arrived.

    Args:
        total: Σ of the masked levels modulo 2^b.
        answers: by the site that answers, its shares of its neighbours.

    Raises:
        ConsiliumError: fewer shares than the threshold; names whose and who is missing. Or those
            who arrived are not connected.
    """
    refuse_parts(arrived, now)
    total = total.copy()
    for site in arrived:
        seed = _recover(site, "own", answers, now)
        add_mask(total, _own_key(seed, now), subtract=True)
    for site in missing:
        present = [peer for peer in now.neighbours[site] if peer in arrived]
        if not present:
            continue
        pair = masking_pair(_recover(site, "masking", answers, now))
        if pair.public != advertised[site].masking:
            raise ConsiliumError(
                f"The shares of {site}'s masking key in round {now.number} do not give the key "
                "that it advertised. A share was changed; the round cannot be unmasked."
            )
        for peer in present:
            key = _pair_key(site, pair.private, peer, advertised[peer], now)
            add_mask(total, key, subtract=peer < site)
    return total.astype(np.dtype(f"<i{now.bits // 8}"), copy=False).astype(np.int64)


def masking_pair(seed: bytes) -> KeyPair:
    """The key pair that a masking seed leads to."""
    return KeyPair.of(derive_key(seed, "consilium secagg+ masking pair"))


def _own_key(seed: bytes, now: Round) -> bytes:
    return derive_key(seed, now.label("own mask"))


def _pair_key(site: str, private: bytes, peer: str, public: Advertised, now: Round) -> bytes:
    label = now.label("mask", *sorted((site, peer)))
    return common_key(private, public.masking, label)


def _open(secrets: Secrets, sender: str, sealed: bytes, public: Advertised, now: Round) -> bytes:
    label = now.label("share", sender, secrets.site)
    key = common_key(secrets.sealing.private, public.sealing, label)
    try:
        return ChaCha20Poly1305(key).decrypt(NONCE, sealed, label.encode())
    except InvalidTag as error:
        raise ConsiliumError(
            f"The shares from {sender} for {secrets.site} are refused: they were changed on the "
            f"way, or are not of round {now.number} of run {now.run}."
        ) from error


def _recover(
    site: str, kind: Kind, answers: Mapping[str, Mapping[str, Share]], now: Round
) -> bytes:
    holders = now.holders(site)
    shares = {
        holder: answers[holder][site].value
        for holder in holders
        if site in answers.get(holder, {}) and answers[holder][site].kind == kind
    }
    try:
        return recover_seed(shares, holders, now.threshold)
    except ValueError as error:
        absent = ", ".join(holder for holder in holders if holder not in shares)
        raise ConsiliumError(
            f"Round {now.number} cannot be unmasked: of those who hold shares of {site} "
            f"{len(shares)} answered and {now.threshold} are needed; missing: {absent}. Nothing "
            "was revealed. "
            "Resume the run when they are back, or lower protection.threshold for a new one."
        ) from error
