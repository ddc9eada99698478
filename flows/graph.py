"""The graph of one round.

For every site asked: local-train → compress → encrypt; then aggregate → decrypt, where there is a
key → evaluate at every site → evaluate → track → checkpoint, whose record makes the round count as
done.
"""

import time
from concurrent.futures import Executor
from dataclasses import dataclass

from prefect import get_run_logger
from prefect.futures import PrefectFuture

from federated.config import Experiment
from federated.coordinator import choose_sites, forget_round, site_weights
from federated.data.partition import Partition
from federated.errors import ConsiliumError
from federated.round_record import RoundRecord
from federated.run_folder import RunFolder
from federated.worker import StageResult
from flows.prepare import Prepared
from flows.progress import describe, listener, tell
from tasks.aggregate import aggregate, decrypt
from tasks.checkpoint import checkpoint
from tasks.compress import compress
from tasks.encrypt import encrypt
from tasks.evaluate import evaluate, evaluate_at_site
from tasks.local_train import local_train
from tasks.track import track_round


@dataclass
class Run:
    """What the graph of a run is wired with."""

    folder: RunFolder
    experiment: Experiment
    prepared: Prepared
    sites: list[str]
    pool: Executor
    workers: int
    mlflow_run_id: str
    started: float
    startup: dict[str, float]

    @property
    def partition(self) -> Partition:
        return self.prepared.partition


def run_round(run: Run, round_number: int, began: float) -> float:
    """Run one round; it counts once its record is written.

    Its time is taken just before the record is written, and returned: there the next round
    begins, so that the rounds' times leave no gap.

    Raises:
        ConsiliumError: what a stage says; of a site that fails only where ``sites.on_dropout`` is
            ``abort``, or no site is left.
    """
    asked = choose_sites(run.experiment, run.sites, round_number)
    shown = listener()
    if shown:
        shown.round_started(round_number, run.experiment.rounds, asked)
    stages, dropped = _site_chains(run, round_number, asked)
    arrived = [site for site in asked if site not in dropped]
    root = run.folder.root
    aggregated = aggregate(root, round_number, arrived)
    if run.experiment.protection.keyed:
        stages.append(decrypt(run.pool, root, arrived[0], round_number, arrived, aggregated))
    evaluated = [evaluate_at_site.submit(run.pool, root, site, round_number) for site in run.sites]
    predicted = [future.result() for future in evaluated]
    stages += predicted
    evaluation, scored = evaluate(root, round_number, run.sites, predicted)
    record = RoundRecord(
        round_number,
        arrived,
        dropped,
        stages,
        aggregated.interval,
        scored,
        evaluation,
        began,
        run.workers,
    )
    sizes = record.sizes(aggregated.down, len(run.sites), aggregated.length)
    numbers = {f"bytes/{key}": float(value) for key, value in sizes.items()}
    numbers |= {f"seconds/{key}": value for key, value in record.seconds().items()}
    track_round(run.mlflow_run_id, round_number, evaluation, numbers)
    seconds = record.seconds()
    measured = time.time()
    checkpoint(root, round_number, record.to_json(run.partition, sizes, seconds))
    metrics = evaluation.overall["val"]
    line = describe(round_number, run.experiment.rounds, metrics, seconds["total"])
    get_run_logger().info(line)
    if shown:
        shown.round_done(round_number, run.experiment.rounds, metrics, seconds["total"])
    return measured


def _site_chains(
    run: Run, round_number: int, asked: list[str]
) -> tuple[list[StageResult], dict[str, str]]:
    """local-train → compress → encrypt at every site asked; the largest sites start first.

    Returns:
        What the stages report, and why sites have dropped out.
    """
    weights = site_weights(run.partition, asked)
    root = run.folder.root
    chains: dict[str, list[PrefectFuture[StageResult]]] = {}
    for site in sorted(asked, key=lambda site: -weights[site]):
        trained = local_train.submit(run.pool, root, site, round_number)
        compressed = compress.submit(run.pool, root, site, round_number, weights[site], trained)
        encrypted = encrypt.submit(run.pool, root, site, round_number, compressed)
        chains[site] = [trained, compressed, encrypted]
    results: list[StageResult] = []
    dropped: dict[str, str] = {}
    for site, chain in chains.items():
        try:
            results += [_finished(future) for future in chain]
        except ConsiliumError as error:
            if run.experiment.sites.on_dropout == "abort":
                raise
            dropped[site] = str(error)
            tell(f"{site} drops out of round {round_number}: {error}")
            forget_round(run.folder, round_number, site)
    if len(dropped) == len(asked):
        raise ConsiliumError(
            f"All {len(asked)} sites have dropped out of round {round_number}; the last said: "
            f"{dropped[asked[-1]]}"
        )
    return results, dropped


def _finished(future: PrefectFuture[StageResult]) -> StageResult:
    result = future.result()
    shown = listener()
    if shown and result.stage == "local_train":
        shown.site_done(result.site, "local-train", f"loss {result.loss:.3f}")
    return result
