"""protect: encrypt or mask what a site sends, and send it."""

import time

import numpy as np

from federated.exchange import kinds
from federated.exchange.folder import EVERYONE
from federated.protection import Protection
from federated.run.result import stage_result
from federated.run.update_files import (
    most_payload,
    pack_payload,
    read_compressed,
    read_payload,
)
from federated.stages.compress import COMPRESSED
from federated.stages.keys import site_key
from federated.stages.report import tell
from federated.stages.secagg import masked_once, masking
from federated.stages.site import Site, SiteCall, SiteRound, open_round, open_site
from federated.stages.tags import send_tags
from federated.update import CompressedUpdate
from federated.weights.bounded_file import Content


def protect_site(call: SiteCall, round_number: int) -> None:
    """Protect the site's compressed update and send the payload to the coordinator.

    Raises:
        ConsiliumError: the update or the key cannot be read, or the update cannot be protected.
    """
    started = time.time()
    site = open_site(call)
    opened = open_round(site, round_number)
    compressed = read_compressed(site.store.work_path(round_number, COMPRESSED))
    sent, received = send_protected(site, opened, compressed)
    result = stage_result(
        site.name, "protect", started, cases=compressed.cases, sent=sent, received=received
    )
    tell(site, round_number, result)


def send_protected(site: Site, opened: SiteRound, compressed: CompressedUpdate) -> tuple[int, int]:
    """Protect what a site adds to a sum, and send the payload to the coordinator.

    Returns:
        The bytes that were sent, and those that had to be downloaded for it.

    Raises:
        ConsiliumError: it cannot be protected, or the key cannot be read.
    """
    protection: Protection = site.run.experiment.protection
    topic = opened.topic
    if protection.masked:
        masks, received = masking(site, opened)

        def make() -> bytes:
            return pack_payload(protection.protect(compressed, masks))

        quantised = compressed.numbers.astype(np.int32, copy=False)
        body = masked_once(site, opened, masks, quantised, make)
        return site.to_coordinator(topic, kinds.PAYLOAD, body), received
    if (key := site_key(site)) is None:
        body = pack_payload(protection.protect(compressed, key))
        return site.to_coordinator(topic, kinds.PAYLOAD, body), 0
    # Ciphertexts are others each time, and the tags are those of the ones that were sent.
    before = site.sent_before(topic, kinds.PAYLOAD, most_payload(len(compressed.numbers)).most)
    if before is None:
        payload = protection.protect(compressed, key)
    else:
        payload = read_payload(Content(before, "that the site has sent"))
    sent = site.to_coordinator(topic, kinds.PAYLOAD, before or pack_payload(payload))
    if site.sent_before(topic, kinds.TAG, kinds.MOST_SMALL, EVERYONE) is None:
        sent += send_tags(site, opened, payload, key)
    return sent, 0
