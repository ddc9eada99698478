"""tags: by which a site that opens an encrypted sum knows that it is the sum, and of whom."""

from collections.abc import Collection

from federated.errors import ConsiliumError, RefusalError
from federated.exchange import kinds
from federated.protection.homomorphic import data_primes, residue_forms, residues
from federated.protection.keys import SecretContext
from federated.protection.tag_proofs import ROWS, Tags, commitment, pads_of, prove
from federated.protection.tags import (
    TAGS,
    TagKey,
    open_tags,
    refuse_other_sum,
    seal_tags,
    tags_of,
)
from federated.stages.keys import site_key
from federated.stages.named_sums import open_sum, payload_length, refuse_sum
from federated.stages.site import Site, SiteCall, SiteRound, open_site
from federated.update import Payload


def send_tags(site: Site, opened: SiteRound, payload: Payload, key: SecretContext) -> int:
    """Send the other sites the tags of a site's payload, which they alone can read.

    Returns:
        How many bytes travel.
    """
    own, parts = _round_key(site, opened, key), list(residues(payload, key.public.parameters))
    sealed = seal_tags((*tags_of(parts, own), *pads_of(parts, own)), site.name, own)
    return site.to_all(opened.topic, kinds.TAG, sealed)


def check_sum(
    site: Site, opened: SiteRound, total: Payload, counted: Collection[str], key: SecretContext
) -> None:
    """Refuse, at a site, to open what is not the sum of the payloads of ``counted``.

    Args:
        site: the site that is to open it.
        opened: the round.
        total: what the coordinator has handed over.
        counted: the sites whose payloads are said to be in it.
        key: the sites' key.

    Raises:
        RefusalError: it is not, or a site has sent no tags.
        ConsiliumError: the sum is damaged, or of another key.
    """
    own, parameters = _round_key(site, opened, key), key.public.parameters
    told = [_rows(site, opened, name, key)[:TAGS] for name in sorted(counted)]
    found = tags_of(residues(total, parameters), own)
    refuse_other_sum(found, told, data_primes(parameters), site.name)


def prove_tags(call: SiteCall, round_number: int, responded: list[str], name: str = "") -> int:
    """Answer the coordinator's challenge, which tells whose tags are not those of its payload.

    A site answers one challenge alone for a sum, to which the coordinator has committed itself in
    the plan that asks for it: with two it could make up a sum that has the right tags.

    Args:
        call: the site.
        round_number: the round.
        responded: the sites whose payloads are said to be in the sum.
        name: of the sum; empty for that of the round's updates.

    Returns:
        How many bytes travel.

    Raises:
        ConsiliumError: the challenge is not that of the round's plan or has not arrived, or the sum
            is one that the site would not help to open.
    """
    site = open_site(call)
    opened, key = open_sum(site, round_number, name), site_key(site)
    message = site.from_coordinator(opened.topic, kinds.CHALLENGE)
    if key is None or commitment(message.body) != opened.plan.challenge:
        raise RefusalError(
            f"{site.name} proves nothing of the tags of round {round_number}: the coordinator asks "
            "something else than it has committed itself to in the plan of the round."
        )
    counted = sorted(refuse_sum(site.run, opened.topic, site.name, responded))
    told: dict[str, Tags] = {}
    for sender in counted:
        try:
            told[sender] = _rows(site, opened, sender, key)
        except ConsiliumError as error:
            said = {"run": site.run.run_id, "round": round_number, "sender": sender}
            site.home.audit.add("unreadable tags", **said, said=str(error))
    forms = residue_forms(key.public.parameters, payload_length(site, opened))
    proof = prove(forms, told, _round_key(site, opened, key), message.body)
    return site.to_coordinator(opened.topic, kinds.PROOF, proof.to_bytes(counted))


def _rows(site: Site, opened: SiteRound, name: str, key: SecretContext) -> Tags:
    """What a site has told of its payload: its tags, and the numbers that a proof needs.

    Raises:
        RefusalError: it has told nothing that can be read.
    """
    sealed = site.mailbox.receive(
        opened.topic, kinds.TAG, name, kinds.MOST_SMALL, for_all=True
    ).body
    primes = len(data_primes(key.public.parameters))
    return open_tags(sealed, name, primes, _round_key(site, opened, key), ROWS)


def _round_key(site: Site, opened: SiteRound, key: SecretContext) -> TagKey:
    topic = opened.topic
    assert key.common, "a key without what the sites have in common"
    told = [
        site.run.run_id,
        topic.round,
        topic.attempt,
        topic.plan,
        *([topic.sum] * bool(topic.sum)),
    ]
    return TagKey.of(key.common, "|".join(map(str, told)))
