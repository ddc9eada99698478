"""protect: encrypt or mask what a site sends."""

import time
from pathlib import Path

from federated.protection import Protection
from federated.protection.keys import (
    SecretContext,
)
from federated.protection.secagg_plus import Masking
from federated.run.folder import RunFolder
from federated.run.result import StageResult, stage_result
from federated.run.update_files import (
    read_compressed,
    write_payload,
)
from federated.stages.compress import COMPRESSED
from federated.stages.keys import site_key
from federated.stages.secagg import masking
from federated.stages.worker import worker_context


def protect_site(run: Path, site: str, round_number: int) -> StageResult:
    """Protect the site's compressed update and write the payload that travels.

    Raises:
        ConsiliumError: the update or the key cannot be read, or the update cannot be protected.
    """
    started = time.time()
    folder = RunFolder(run)
    compressed = read_compressed(folder.site_path(round_number, site, COMPRESSED))
    experiment = worker_context(run).experiment
    protection: Protection = experiment.protection
    key: SecretContext | Masking | None = site_key(folder, experiment)
    received = 0
    if protection.masked:
        key, received = masking(folder, site, round_number)
    payload = protection.protect(compressed, key)
    sent = write_payload(folder.site_path(round_number, site, "payload"), payload)
    return stage_result(
        site, "protect", started, cases=compressed.cases, sent=sent, received=received
    )
