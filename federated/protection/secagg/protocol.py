"""What each party does in the four stages of SecAgg+ (Bell et al. 2020, Algorithm 2).

1. advertise: a site makes two key pairs and sends the public halves.
2. share: it splits the seed of its masking key and a seed of its own among its neighbours and
   itself, each share sealed for its holder; the coordinator passes them on unread.
3. mask: it sends its values plus the mask of its own seed, plus or minus one with each neighbour.
4. unmask: each site that is still there gives for each neighbour one share: that of its own seed
   if the neighbour's masked vector arrived, and otherwise that of its masking key's seed; never
   both. What is left is the sum.

Guarantee: a coordinator that follows the protocol, together with at most the share ``corrupted`` of
the sites, learns nothing of the quantised values of the others beyond the sum of all of them that
responded, while at most the share ``dropout`` drops out: for certain with the complete graph,
except with probability 3·2^-40 a round with a sparse one (``bounds.py`` has the conditions), under
the computational Diffie-Hellman assumption on X25519 and AES as a pseudorandom function. All sites
have to follow the protocol, those that collude too. So has the coordinator: sites cannot check here
whether it tells every site the same names, nor whether advertised keys are those of the sites.
Whoever can replace keys can read along, so the channel has to be authentic. What a site does check,
before it helps to unmask, is that the sites in the sum are connected, so that the masks of none of
their groups cancel apart from the rest.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from federated.errors import ConsiliumError
from federated.protection.secagg.graph import parts
from federated.protection.secagg.keys import SEED_BYTES, KeyPair, common_key, new_seed
from federated.protection.secagg.masks import WORDS, add_mask
from federated.protection.secagg.round import Advertised, Kind, Round, Secrets, Share, masking_pair
from federated.protection.secagg.shares import recover_seed, share_seed
from federated.secrets.key_derivation import derive_key

Masked = npt.NDArray[np.unsignedinteger]
Sums = npt.NDArray[np.int64]
# A key is used for one message alone, so that the nonce may be constant.
NONCE = bytes(12)


def advertise(site: str) -> tuple[Secrets, Advertised]:
    """Stage 1 at a site: the secrets of a round, and the public keys that are sent."""
    secrets = Secrets(site, KeyPair.new(), new_seed(), new_seed())
    return secrets, Advertised(secrets.sealing.public, secrets.masking.public)


def share(
    secrets: Secrets, advertised: Mapping[str, Advertised], round_: Round
) -> dict[str, bytes]:
    """Stage 2 at a site: for each holder, its shares of both seeds, readable by it alone.

    A site holds shares of its own, so that of n sites that are all joined to each other n may be
    the threshold.
    """
    holders = round_.holders(secrets.site)
    masking = share_seed(secrets.masking_seed, holders, round_.threshold)
    own = share_seed(secrets.own_seed, holders, round_.threshold)
    sealed = {}
    for holder in holders:
        label = round_.label("share", secrets.site, holder)
        key = common_key(secrets.sealing.private, advertised[holder].sealing, label)
        content = masking[holder] + own[holder]
        sealed[holder] = ChaCha20Poly1305(key).encrypt(NONCE, content, label.encode())
    return sealed


def mask_update(
    quantised: npt.NDArray[np.int32],
    secrets: Secrets,
    advertised: Mapping[str, Advertised],
    sharing: Sequence[str],
    round_: Round,
) -> Masked:
    """Stage 3 at a site: its quantised update, masked, which looks uniform.

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
    private = secrets.masking.private
    for peer in round_.neighbours[secrets.site]:
        if peer in sharing:
            key = _pair_key(secrets.site, private, peer, advertised[peer], round_)
            add_mask(masked, key, subtract=secrets.site > peer)
    return masked


def answer(
    secrets: Secrets,
    sealed: Mapping[str, bytes],
    advertised: Mapping[str, Advertised],
    responded: Sequence[str],
    missing: Sequence[str],
    before: Sequence[str] | None,
    round_: Round,
) -> dict[str, Share]:
    """Stage 4 at a site: one share of each neighbour, and one of its own.

    Args:
        secrets: the site's secrets of the round.
        sealed: the shares that the site holds, as they were sent in stage 2.
        advertised: the public keys of all sites.
        responded: the sites whose masked values the coordinator has.
        missing: those that shared and then dropped out.
        before: the sites that had responded when this site answered in this round before; ``None``
            if it did not.
        round_: what all parties know of the round.

    Raises:
        ConsiliumError: the site would give both shares of a neighbour, or help to a second sum of
            the same round; or too few have responded, or in groups that do not mask with each
            other; or a message was changed or is of another round.
    """
    refuse_parts(responded, round_)
    both = set(responded) & set(missing)
    if both:
        raise ConsiliumError(
            f"{secrets.site} is asked in round {round_.number} for both shares of "
            f"{', '.join(sorted(both))}, which would reveal their updates. It answers nothing."
        )
    if before is not None and set(before) != set(responded):
        other = ", ".join(sorted(set(before) ^ set(responded)))
        raise ConsiliumError(
            f"{secrets.site} has already answered in round {round_.number} for other sites; a "
            f"second sum with or without {other} would reveal their updates by the difference. It "
            "answers nothing. Start a new run, or resume when the same sites can take part."
        )
    near = [peer for peer in round_.holders(secrets.site) if peer in responded]
    if len(near) < round_.threshold:
        raise ConsiliumError(
            f"Of {secrets.site} and its neighbours only {len(near)} sent updates in round "
            f"{round_.number}, fewer than the threshold of {round_.threshold}. It answers nothing."
        )
    shares = {}
    for peer in round_.holders(secrets.site):
        if peer not in sealed or peer not in {*responded, *missing}:
            continue
        kind: Kind = "own" if peer in responded else "masking"
        content = _open(secrets, peer, sealed[peer], advertised[peer], round_)
        half = slice(SEED_BYTES, None) if kind == "own" else slice(SEED_BYTES)
        shares[peer] = Share(kind, content[half])
    return shares


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
        raise ConsiliumError(
            f"In round {round_.number} so many sites are missing that "
            f"{', '.join(sorted(groups[-1]))} no longer mask with the other "
            f"{len(set(responded)) - len(groups[-1])}: the sum of each group could be told, so "
            "nobody helps to open it. Resume when they are back; for the next run, leave out "
            "protection.neighbours or raise protection.dropout."
        )


def unmask(
    total: Masked,
    answers: Mapping[str, Mapping[str, Share]],
    advertised: Mapping[str, Advertised],
    responded: Sequence[str],
    missing: Sequence[str],
    round_: Round,
) -> Sums:
    """Stage 4 at the coordinator: the sum of the quantised values of the sites that responded.

    Args:
        total: Σ of the masked values ``(length,)`` modulo 2^b.
        answers: for each site that answers, its shares of its neighbours.
        advertised: the public keys of all sites.
        responded: the sites whose masked values are in the sum.
        missing: those that shared and then dropped out.
        round_: what all parties know of the round.

    Returns:
        The sum, int64 ``(length,)``.

    Raises:
        ConsiliumError: there are fewer shares than the threshold, and the message names whose, and
            who is missing; or those who responded are not connected; or a share was changed.
    """
    refuse_parts(responded, round_)
    total = total.copy()
    for site in responded:
        seed = _recover(site, "own", answers, round_)
        add_mask(total, _own_key(seed, round_), subtract=True)
    for site in missing:
        present = [peer for peer in round_.neighbours[site] if peer in responded]
        if not present:
            continue
        pair = masking_pair(_recover(site, "masking", answers, round_))
        if pair.public != advertised[site].masking:
            raise ConsiliumError(
                f"The shares of {site}'s masking key in round {round_.number} do not give the key "
                "that it advertised. A share was changed; the round cannot be unmasked."
            )
        for peer in present:
            key = _pair_key(site, pair.private, peer, advertised[peer], round_)
            add_mask(total, key, subtract=peer < site)
    return total.astype(np.dtype(f"<i{round_.bits // 8}"), copy=False).astype(np.int64)


def _own_key(seed: bytes, round_: Round) -> bytes:
    return derive_key(seed, round_.label("own mask"))


def _pair_key(site: str, private: bytes, peer: str, public: Advertised, round_: Round) -> bytes:
    label = round_.label("mask", *sorted((site, peer)))
    return common_key(private, public.masking, label)


def _open(secrets: Secrets, sender: str, sealed: bytes, public: Advertised, round_: Round) -> bytes:
    label = round_.label("share", sender, secrets.site)
    key = common_key(secrets.sealing.private, public.sealing, label)
    try:
        return ChaCha20Poly1305(key).decrypt(NONCE, sealed, label.encode())
    except InvalidTag as error:
        raise ConsiliumError(
            f"The shares from {sender} for {secrets.site} are refused: they were changed on the "
            f"way, or are not of round {round_.number} of run {round_.run}."
        ) from error


def _recover(
    site: str, kind: Kind, answers: Mapping[str, Mapping[str, Share]], round_: Round
) -> bytes:
    holders = round_.holders(site)
    shares = {
        holder: answers[holder][site].value
        for holder in holders
        if site in answers.get(holder, {}) and answers[holder][site].kind == kind
    }
    try:
        return recover_seed(shares, holders, round_.threshold)
    except ValueError as error:
        absent = ", ".join(holder for holder in holders if holder not in shares)
        raise ConsiliumError(
            f"Round {round_.number} cannot be unmasked: of those who hold shares of {site} "
            f"{len(shares)} answered and {round_.threshold} are needed; missing: {absent}. Nothing "
            "was revealed. Resume the run when they are back, or lower protection.threshold for a "
            "new one."
        ) from error
