"""compress: weight a site's update, choose what is sent of it, and keep the rest."""

import time
from dataclasses import asdict
from functools import partial
from typing import Final

from federated.rounds.participation import site_weights
from federated.run.result import stage_result
from federated.run.update_files import (
    pack_compressed,
    pack_memory,
    read_memory,
    read_update,
    write_packed,
)
from federated.site.releases import Parts, ReleaseStore, arrays_digest, state_digest
from federated.stages.entering import training_records
from federated.stages.privacy_report import spent_so_far
from federated.stages.private_release import begin_release, release_sources
from federated.stages.report import tell
from federated.stages.site import SiteCall, open_round, open_site
from federated.update import Arrays, CompressedUpdate

# What a site writes of a round's compression.
COMPRESSED: Final = "compressed"
RESIDUAL: Final = "residual"


def compress_site(call: SiteCall, round_number: int) -> None:
    """Weight the site's update by n_k / Σn, compress it, and keep what is not sent.

    The weight is over the sites selected, by the numbers of cases in the plan of the run. Where the
    quantised values get the noise of a privacy they are a release, which is made once: if it is
    asked again, the site sends what it stored.

    Raises:
        ConsiliumError: the update is not finite or cannot be read, or the release would pass a
            budget.
    """
    started = time.time()
    site = open_site(call)
    opened = open_round(site, round_number)
    context = opened.context
    state, weight = context.state, site_weights(site.run.counts, opened.selected)[site.name]
    update = read_update(site.store.work_path(round_number, "update"))
    path = site.store.latest_memory(round_number - 1, RESIDUAL)
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
        records = training_records(site)
        given = {"weight": weight, "grid": asdict(grid)}
        sources = release_sources(site, context, records, "quantised", None, inputs, given)

        def make() -> Parts:
            private = begin_release(site, context, records, None)
            assert private is not None
            return _packed(*compress(partial(grid.quantise, random=private.random)))

        parts = ReleaseStore(site.store.releases, site.home.root).once(sources, make)
    if RESIDUAL in parts:
        write_packed(site.store.memory_path(round_number, RESIDUAL), parts[RESIDUAL])
    path = site.store.work_path(round_number, COMPRESSED)
    write_packed(path, parts[COMPRESSED], durable=not site.ends_with_its_run)
    tell(
        site,
        round_number,
        stage_result(
            site.name,
            "compress",
            started,
            cases=update.cases,
            epsilon=spent_so_far(site) if grid else None,
        ),
    )


def _packed(compressed: CompressedUpdate, kept: Arrays) -> Parts:
    parts = {COMPRESSED: pack_compressed(compressed)}
    return parts | {RESIDUAL: pack_memory(kept)} if kept else parts
