"""The graph of one round.

Before the first round, share-style runs at every site, where the strategy asks for it. In a round,
local-train → compress → encrypt run for every site that is selected. Then follow aggregate →
decrypt, where there is a key → evaluate at every site → evaluate → track → checkpoint, whose record
makes the round count as done.
"""

import time
from collections.abc import Mapping
from contextlib import nullcontext

from prefect import get_run_logger
from prefect.futures import PrefectFuture

from federated.learning.evaluation import Evaluation
from federated.rounds.participation import site_weights
from federated.run.result import StageResult
from federated.run.round_record import RoundRecord
from federated.run.selection import is_evaluated
from federated.run.timing import Interval
from federated.run.update_files import read_layout
from federated.stages.aggregate import download_size
from federated.stages.checkpoint import forget_round
from flows.progress import describe, listener
from flows.secagg import exchange_keys, forgotten_secrets, unmask_sum
from flows.site_stages import Finished, Run, wait_for
from tasks.aggregate import aggregate, decrypt
from tasks.checkpoint import checkpoint
from tasks.compress import compress
from tasks.encrypt import encrypt
from tasks.evaluate import evaluate, evaluate_at_site
from tasks.local_train import local_train
from tasks.share_style import share_style
from tasks.track import track_round


def run_round(run: Run, round_number: int, began: float) -> float:
    """Run one round; it counts once its record is written.

    The time is taken just before the record is written, and returned: the next round begins there,
    so that the rounds' times leave no gap.

    Raises:
        ConsiliumError: what a stage raises; what a site's stage raises counts only where
            ``sites.on_dropout`` is ``abort``, or where no site is left.
    """
    selected = run.context.selected(round_number)
    shown = listener()
    if shown:
        shown.round_started(round_number, run.experiment.rounds, selected)
    masked = run.experiment.protection.masked
    with forgotten_secrets(run, selected) if masked else nullcontext():
        return _run_round(run, round_number, began, selected)


def _run_round(run: Run, round_number: int, began: float, selected: list[str]) -> float:
    exchanged = Finished([], {})
    if run.experiment.protection.masked:
        exchanged = exchange_keys(run, round_number, selected)
    styles = _share_styles(run, round_number)
    weights = site_weights(run.partition, selected)
    sending = {site: weights[site] for site in selected if site not in exchanged.dropped}
    sent = _train_and_send(run, round_number, sending)
    dropped = exchanged.dropped | sent.dropped
    responded = [site for site in selected if site not in dropped]
    opened, aggregated = _sum_up(run, round_number, responded)
    predicted, evaluation, scored = _evaluate(run, round_number)
    record = RoundRecord(
        round_number,
        responded,
        dropped,
        [*styles, *exchanged.results, *sent.results, *opened, *predicted],
        aggregated,
        scored,
        evaluation,
        began,
        run.workers,
    )
    return _report(run, record)


def _share_styles(run: Run, round_number: int) -> list[StageResult]:
    """Run share-style at every site before the first round, where the strategy asks for it.

    Raises:
        ConsiliumError: what a stage raises; without all styles there is no first round.
    """
    if round_number > 1 or run.experiment.strategy.introduction() is None:
        return []
    shared = [share_style.submit(run.pool, run.folder.root, site) for site in run.sites]
    return [future.result() for future in shared]


def _sum_up(
    run: Run, round_number: int, responded: list[str]
) -> tuple[list[StageResult], list[Interval]]:
    """Run aggregate, and then what opens the sum: decrypt at a site, or unmask with all of them.

    Returns:
        What sites did for it, and when the coordinator worked.

    Raises:
        ConsiliumError: so few have responded that no site would help to open their sum.
    """
    root, protection = run.folder.root, run.experiment.protection
    selected = run.context.selected(round_number)
    # The sites ask this themselves; here it is said before anything is added.
    protection.refuse_too_few(responded[0], round_number, selected, responded)
    aggregated = aggregate(run.folder, run.context, round_number, responded)
    if protection.keyed:
        opened = decrypt(
            run.pool, root, responded[0], round_number, responded, wait_for=[aggregated]
        )
        return [opened], [aggregated]
    if protection.masked:
        answered, unmasked = unmask_sum(run, round_number, responded)
        return answered, [aggregated, unmasked]
    return [], [aggregated]


def _evaluate(run: Run, round_number: int) -> tuple[list[StageResult], Evaluation, Interval]:
    """Run evaluate at every site and then for all together, in a round that is evaluated."""
    experiment, root = run.experiment, run.folder.root
    if not is_evaluated(experiment.selection, round_number, experiment.rounds):
        now = time.time()
        return [], Evaluation({}, {}, {}, {}), Interval(now, now)
    submitted = [evaluate_at_site.submit(run.pool, root, site, round_number) for site in run.sites]
    predicted = [future.result() for future in submitted]
    info = run.prepared.dataset.info
    found = evaluate(root, round_number, run.sites, info, wait_for=predicted)
    return predicted, *found


def _report(run: Run, record: RoundRecord) -> float:
    """Track a round, write its record, and tell of it; return when its time was taken."""
    folder, number, rounds = run.folder, record.round_number, run.experiment.rounds
    length = read_layout(folder.state_path(number - 1)).size
    sizes = record.sizes(download_size(folder, number), len(run.sites), length)
    numbers = {f"bytes/{key}": float(value) for key, value in sizes.items()}
    taken = {key: value for key, value in record.seconds().items() if value is not None}
    numbers |= {f"seconds/{key}": value for key, value in taken.items()}
    spent = [stage.epsilon for stage in record.stages if stage.epsilon is not None]
    if spent:
        numbers["privacy/epsilon_rdp"] = max(spent)
    track_round(run.mlflow_run_id, number, record.evaluation, numbers, timed=record.timed)
    seconds = record.seconds()
    measured = time.time()
    checkpoint(folder, run.context, number, record.to_json(run.partition, sizes, seconds))
    metrics = record.evaluation.overall.get("val", {})
    get_run_logger().info(describe(number, rounds, metrics, seconds["total"]))
    shown = listener()
    if shown:
        shown.round_done(number, rounds, metrics, seconds["total"])
    return measured


def _train_and_send(run: Run, round_number: int, weights: Mapping[str, float]) -> Finished:
    """Run local-train → compress → encrypt at every site of ``weights``, the largest first."""
    root = run.folder.root
    chains: dict[str, list[PrefectFuture[StageResult]]] = {}
    for site in sorted(weights, key=lambda site: -weights[site]):
        trained = local_train.submit(run.pool, root, site, round_number)
        compressed = compress.submit(
            run.pool,
            root,
            site,
            round_number,
            weights[site],
            return_state=False,
            wait_for=[trained],
        )
        encrypted = encrypt.submit(
            run.pool, root, site, round_number, return_state=False, wait_for=[compressed]
        )
        chains[site] = [trained, compressed, encrypted]
    finished = wait_for(run, round_number, chains)
    for site in finished.dropped:
        forget_round(run.folder, round_number, site)
    return finished
