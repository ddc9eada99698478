"""What sites advertise: a commitment to a seed, whose keys they are, and one digest of them all."""

from collections.abc import Mapping
from hashlib import sha256

from federated.errors import ConsiliumError
from federated.protection.secagg.keys import KeyPair
from federated.protection.secagg.round import Advertised, Round
from federated.secrets.key_derivation import KEY_BYTES, derive_key


def own_commitment(seed: bytes, round_label: str) -> bytes:
    """A site's commitment to the seed of its own mask: 32 bytes that another seed does not give.

    It is derived from the seed as the mask's key is, by HKDF-SHA256 for another purpose. So it
    hides the seed without an opening beside it: the seed has 128 bits of entropy, outputs of HKDF
    for two purposes look independent under the assumption that the mask makes already (HMAC-SHA256
    is a pseudorandom function), and whoever could search the seed through the commitment could do
    so through the mask. The purpose names the site and the attempt, so that one guess is a guess at
    one seed alone. And it binds, since two seeds with one commitment are a collision of SHA-256.
    """
    return derive_key(seed, round_label)


def refuse_unusable(site: str, keys: Advertised) -> None:
    """Refuse, at the coordinator, keys with which the others could not go on.

    Such a site counts as one that never advertised; passed on, its keys would stop everyone who has
    it for a neighbour.

    Raises:
        ConsiliumError: a key is none, or makes secrets predictable, or the commitment has not
            :data:`KEY_BYTES` bytes.
    """
    probe = KeyPair.new()
    try:
        for key in (keys.sealing, keys.masking):
            probe.common_key(key, "probe")
        if len(keys.commitment) != KEY_BYTES:
            raise ConsiliumError(f"Its commitment has {len(keys.commitment)} bytes.")
    except ConsiliumError as error:
        raise ConsiliumError(
            f"What {site} advertises is refused: {error} The round goes on without {site}, as if "
            "it had dropped out."
        ) from error


def roster_digest(advertised: Mapping[str, Advertised], round_: Round) -> str:
    """The SHA-256 of all keys and commitments that a party was told: a roster's one name."""
    told = round_.label("roster")
    lines = (advertised[site].to_bytes(site, told) for site in sorted(advertised))
    return sha256(b"\n".join(lines)).hexdigest()
