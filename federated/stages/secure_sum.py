"""A secure sum: one vector of whole numbers of each site, of which others learn the sum alone.

It is independent of any training, goes by the run's protection, and has the guarantees of the sum
of a round's updates: the very same stages sign, mask or encrypt, check and open it. Who wants one
describes it as a :class:`~federated.stages.named_sums.NamedSum`, and has the flow call, with the
sum's name and with the plan's topic of that name:

1. where the protection masks, ``secagg.advertise_site``, ``secagg_relay.relay_keys``,
   ``secagg.share_site``, ``secagg_relay.relay_shares``: ``flows.secagg.exchange_keys``;
2. at each site :func:`send_part`;
3. at the coordinator ``aggregate.add_payloads``, and then what opens the sum: ``flows.secagg.
   unmask_sum``, or where there is a key ``aggregate.vouch_site``, ``hand_sum``, ``decrypt_site``;
4. at the coordinator :func:`collect`.

Guarantee. Under ``secagg_plus`` and ``rlwe_secagg`` the coordinator, with at most the share
``protection.corrupted`` of the sites, learns of the others' vectors their sum, of at least
``min_sites`` sites, and nothing else: see ``protection/secagg/protocol.py`` for what that assumes.
Under ``packed_bfv`` the coordinator and the sites learn the sum, while no site helps the
coordinator to decrypt another's part. Under ``plain`` the coordinator reads each part. Of one
name, the same data and the same source (``NamedSum.source``), a site helps to open the sum of
one set of sites alone, in whatever run and round. What follows from sums of different sources is
not covered: where a site is in one and not in the next, their difference tells of it.
"""

from federated.data.dataset import DatasetInfo
from federated.exchange.message import Topic
from federated.protection import Protection
from federated.protection.digits import WholeNumbers, summed_numbers, to_digits
from federated.stages.aggregate import received_sum
from federated.stages.coordinator import Coordinator
from federated.stages.named_sums import base_of, named_sum, weights
from federated.stages.protect import send_protected
from federated.stages.site import Site, SiteRound
from federated.stages.worker import worker_context
from federated.update import CompressedUpdate


def send_part(site: Site, opened: SiteRound, vector: WholeNumbers) -> tuple[int, int]:
    """Send a site's vector ``(length,)`` int64 to a named sum, protected.

    Args:
        site: the site.
        opened: what ``named_sums.open_sum`` gave for the name.
        vector: what is to be summed, within the sum's bounds.

    Returns:
        The bytes that were sent, and those that had to be downloaded for it.

    Raises:
        ConsiliumError: it cannot be protected, or something else was sent in this attempt.
    """
    run, topic = site.run, opened.topic
    bounds = named_sum(topic.sum).bounds(run, worker_context(site).info)
    digits = to_digits(vector, bounds, base_of(run.experiment))
    weight = weights(run, topic)[site.name]
    part = CompressedUpdate(site.name, topic.round, 0, weight, len(digits), digits)
    return send_protected(site, opened, part)


def collect(
    coordinator: Coordinator,
    topic: Topic,
    info: DatasetInfo,
    summed: list[str],
    opener: str | None = None,
) -> WholeNumbers:
    """The sum of a name, once it is opened: int64 ``(length,)``.

    Args:
        coordinator: the coordinator.
        topic: of the sum.
        info: of the data set.
        summed: the sites in the sum.
        opener: the site that has the key and has opened it; ``None`` where there is no key.

    Raises:
        ConsiliumError: it has not arrived or is damaged, or is no sum of numbers within the bounds.
    """
    run = coordinator.run
    protection: Protection = run.experiment.protection
    found = received_sum(coordinator, topic, opener if protection.keyed else None)
    bounds = named_sum(topic.sum).bounds(run, info)
    return summed_numbers(found.numbers, bounds, base_of(run.experiment), len(summed))


def digits_in(coordinator: Coordinator, topic: Topic, info: DatasetInfo) -> int:
    """How many quantised values a payload of a named sum has."""
    run = coordinator.run
    return named_sum(topic.sum).bounds(run, info).digits(base_of(run.experiment))
