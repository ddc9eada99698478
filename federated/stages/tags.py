"""tags: by which a site that opens an encrypted sum knows that it is the sum, and of whom."""

from collections.abc import Collection

from federated.exchange import kinds
from federated.protection.homomorphic import data_primes, residues
from federated.protection.keys import SecretContext
from federated.protection.tags import TagKey, open_tags, refuse_other_sum, seal_tags, tags_of
from federated.stages.site import Site, SiteRound
from federated.update import Payload


def send_tags(site: Site, opened: SiteRound, payload: Payload, key: SecretContext) -> int:
    """Send the other sites the tags of a site's payload, which they alone can read.

    Returns:
        How many bytes travel.
    """
    own = tags_of(residues(payload, key.public.parameters), _round_key(site, opened, key))
    sealed = seal_tags(own, site.name, _round_key(site, opened, key))
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
    primes, receive = data_primes(parameters), site.mailbox.receive
    several = []
    for name in sorted(counted):
        sealed = receive(opened.topic, kinds.TAG, name, kinds.MOST_SMALL).body
        several.append(open_tags(sealed, name, len(primes), own))
    found = tags_of(residues(total, parameters), own)
    refuse_other_sum(found, several, primes, site.name)


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
