"""compress: weight a site's update, choose what is sent of it, and keep the rest."""

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from federated.run.folder import RunFolder
from federated.run.result import StageResult, stage_result
from federated.run.update_files import (
    pack_compressed,
    pack_memory,
    read_memory,
    read_update,
    write_packed,
)
from federated.site.releases import Parts, arrays_digest, site_releases, state_digest
from federated.stages.context import read_round
from federated.stages.entering import training_records
from federated.stages.privacy_report import spent_so_far
from federated.stages.private_release import begin_release, release_sources
from federated.update import Arrays, CompressedUpdate

# What a site writes of a round's compression.
COMPRESSED: Final = "compressed"
RESIDUAL: Final = "residual"


def compress_site(run: Path, site: str, round_number: int, weight: float) -> StageResult:
    """Weight the site's update by n_k / Σn, compress it, and keep what is not sent.

    Where the quantised values get the noise of a privacy they are a release, which is made once: if
    it is asked again, the site sends what it stored.

    Raises:
        ConsiliumError: the update is not finite or cannot be read, or the release would pass a
            budget.
    """
    started = time.time()
    folder = RunFolder(run)
    context = read_round(folder, round_number)
    state = context.state
    update = read_update(folder.site_path(round_number, site, "update"))
    path = folder.latest_memory(site, round_number - 1, RESIDUAL)
    memory = read_memory(path) if path else {}
    compression, grid = context.experiment.compression, context.grid
    compress = partial(compression.compress, update, weight, context.compression_context, memory)
    # Noise that nobody adds would be missing in silence.
    assert (grid is not None) == context.experiment.privacy.noise_in_sum
    if grid is None:
        parts = _packed(*compress())
    else:
        inputs = {
            "update": arrays_digest({"vector": update.vector}),
            "state": state_digest(state),
            "memory": arrays_digest(memory),
        }
        records = training_records(run, site)
        given = {"weight": weight, "grid": asdict(grid)}
        sources = release_sources(context, site, records, "quantised", None, inputs, given)

        def make() -> Parts:
            private = begin_release(folder, context, site, records, None)
            assert private is not None
            return _packed(*compress(partial(grid.quantise, random=private.random)))

        parts = site_releases(run, site).once(sources, make)
    if RESIDUAL in parts:
        write_packed(folder.memory_path(round_number, site, RESIDUAL), parts[RESIDUAL])
    write_packed(folder.site_path(round_number, site, COMPRESSED), parts[COMPRESSED])
    return stage_result(
        site,
        "compress",
        started,
        cases=update.cases,
        epsilon=spent_so_far(folder, site) if grid else None,
    )


def _packed(compressed: CompressedUpdate, kept: Arrays) -> Parts:
    parts = {COMPRESSED: pack_compressed(compressed)}
    return parts | {RESIDUAL: pack_memory(kept)} if kept else parts
