"""How a site deals shares of its seeds, and how every wrong one is found alone and named.

For each of its holders a dealer sends two hashes in the clear, one of each share, and the shares
sealed, with the hashes as associated data. So the coordinator, which passes this on, has the
dealer's word for what each holder holds and can check every share that is answered; the holder can
check on receipt that it was dealt what the coordinator has the hash of. Whose share does not have
its hash is at fault: on receipt the dealer, for the holder opens what the dealer alone could seal;
in an answer the holder, for it would have refused such a share on receipt. Only that the dealer's
shares lead to the seed that it committed to is seen no earlier than when they are put together
(``recovery.py``), and then it is the dealer's fault.

What the hashes reveal: a share is uniform over 2^128 values to whoever knows fewer than
``threshold`` of the same seed, and all that such a party does not know hangs on one 128-bit value.
With SHA-256 as a random oracle a hash tells nothing until that value is guessed, which is as hard
as to guess the seed. The text that is hashed names attempt, dealer, holder and kind, so that a
guess is one at a single share. A salt would hide no more and cost 32 bytes a holder. Replacing a
share under its hash is a second preimage, and for the dealer a collision, of SHA-256.
"""

from collections.abc import Mapping
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from federated.errors import ConsiliumError
from federated.protection.secagg.keys import SEED_BYTES
from federated.protection.secagg.round import Advertised, Kind, Round, Secrets, Share
from federated.protection.secagg.shares import share_seed

# In this order they are in what is sent.
KINDS: tuple[Kind, Kind] = ("masking", "own")
HASH_BYTES = 32
TAG_BYTES = 16
# What a dealer sends for one holder: two hashes, and two shares sealed.
DEALT_BYTES = 2 * HASH_BYTES + 2 * SEED_BYTES + TAG_BYTES
# A key is for one dealer and one holder in one attempt, and ``once.py`` sees to it that a site
# deals once in an attempt; so the key is used for one message alone and the nonce may be constant.
NONCE = bytes(12)


def deal(secrets: Secrets, advertised: Mapping[str, Advertised], round_: Round) -> dict[str, bytes]:
    """For each holder, :data:`DEALT_BYTES` bytes: hashes of its two shares, and the shares sealed.

    A site holds shares of its own, so that of n sites that are all joined to each other n may be
    the threshold. Done again with the same secrets it would give other shares under the same key,
    which must not be sent (``once.py``).

    Raises:
        ConsiliumError: a holder's public key is not usable.
    """
    holders = round_.holders(secrets.site)
    masking = share_seed(secrets.masking_seed, holders, round_.threshold)
    own = share_seed(secrets.own_seed, holders, round_.threshold)
    dealt = {}
    for holder in holders:
        shares = (Share("masking", masking[holder]), Share("own", own[holder]))
        hashes = b"".join(_hash(share, secrets.site, holder, round_) for share in shares)
        key = _key(secrets, advertised[holder], secrets.site, holder, round_)
        content = masking[holder] + own[holder]
        dealt[holder] = hashes + ChaCha20Poly1305(key).encrypt(NONCE, content, hashes)
    return dealt


def open_dealt(
    secrets: Secrets, dealer: str, dealt: bytes, public: Advertised, round_: Round
) -> dict[Kind, Share] | None:
    """At a holder: its two shares of a dealer's seeds, or ``None`` if they are wrong.

    They are if they were changed on the way, are of another attempt, dealer or holder, or do
    not have the hashes that the coordinator has of them.

    Args:
        secrets: the holder's secrets of the round.
        dealer: who has dealt.
        dealt: what the dealer sent for this holder.
        public: the dealer's public keys.
        round_: what all parties know of the round.
    """
    if len(dealt) != DEALT_BYTES:
        return None
    hashes, sealed = dealt[: 2 * HASH_BYTES], dealt[2 * HASH_BYTES :]
    try:
        key = _key(secrets, public, dealer, secrets.site, round_)
        content = ChaCha20Poly1305(key).decrypt(NONCE, sealed, hashes)
    except (InvalidTag, ConsiliumError):
        return None
    values = (content[:SEED_BYTES], content[SEED_BYTES:])
    shares = {kind: Share(kind, value) for kind, value in zip(KINDS, values, strict=True)}
    fits = all(is_as_dealt(share, dealer, secrets.site, dealt, round_) for share in shares.values())
    return shares if fits else None


def is_as_dealt(share: Share, dealer: str, holder: str, dealt: bytes, round_: Round) -> bool:
    """Whether a share has the hash that its dealer gave of it.

    Args:
        share: the share, of either kind.
        dealer: whose seed it is of.
        holder: who holds it.
        dealt: what the dealer sent for the holder.
        round_: what all parties know of the round.
    """
    start = HASH_BYTES * KINDS.index(share.kind)
    return _hash(share, dealer, holder, round_) == dealt[start : start + HASH_BYTES]


def refuse_dealt(site: str, dealt: Mapping[str, bytes], round_: Round) -> None:
    """Refuse, at the coordinator, what a site deals if it is not for its holders, or too long.

    Such a site counts as one that dropped out before it shared.

    Raises:
        ConsiliumError: it has dealt to others than its holders, or something else than shares.
    """
    wrong = sorted(set(dealt) ^ set(round_.holders(site)))
    wrong = wrong or sorted(h for h, content in dealt.items() if len(content) != DEALT_BYTES)
    if wrong:
        raise ConsiliumError(
            f"What {site} deals in round {round_.number} is refused: each of its "
            f"{len(round_.holders(site))} holders is to get {DEALT_BYTES} bytes, and it is not so "
            f"for {', '.join(wrong):.200}. The round goes on without {site}, as if it had dropped "
            "out."
        )


def _hash(share: Share, dealer: str, holder: str, round_: Round) -> bytes:
    text = round_.label(f"share {share.kind}", dealer, holder).encode()
    return sha256(text + b"\x00" + share.value).digest()


def _key(secrets: Secrets, peer: Advertised, dealer: str, holder: str, round_: Round) -> bytes:
    """The key of what a dealer sends to a holder, at either of them, whose ``secrets`` they are."""
    purpose = round_.label("share", dealer, holder)
    return secrets.sealing.common_key(peer.sealing, purpose)
