"""protect: encrypt or mask what a site sends, and send it."""

import time

import numpy as np

from federated.exchange import kinds
from federated.protection import Protection
from federated.run.result import stage_result
from federated.run.update_files import pack_payload, read_compressed
from federated.stages.compress import COMPRESSED
from federated.stages.keys import site_key
from federated.stages.report import tell
from federated.stages.secagg import masked_once, masking
from federated.stages.site import Site, SiteCall, SiteRound, open_round, open_site
from federated.stages.tags import send_tags
from federated.update import CompressedUpdate


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
    received = tags = 0
    if protection.masked:
        masks, received = masking(site, opened)

        def make() -> bytes:
            return pack_payload(protection.protect(compressed, masks))

        quantised = compressed.numbers.astype(np.int32, copy=False)
        body = masked_once(site, opened, masks, quantised, make)
    else:
        key = site_key(site)
        payload = protection.protect(compressed, key)
        if key is not None:
            tags = send_tags(site, opened, payload, key)
        body = pack_payload(payload)
    return tags + site.to_coordinator(opened.topic, kinds.PAYLOAD, body), received
