"""The graph of one round.

Before the first round, share-style runs at every site, where the strategy asks for it. In a round,
local-train → compress → encrypt run for every site that is selected. Then follow aggregate →
decrypt, where there is a key → evaluate at every site → evaluate → track → checkpoint, whose record
makes the round count as done.
"""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from prefect import get_run_logger
from prefect.futures import PrefectFuture

from federated.errors import ConsiliumError
from federated.exchange.message import Topic
from federated.learning.evaluation import Evaluation
from federated.rounds.participation import site_weights
from federated.run.result import StageResult
from federated.run.round_record import RoundRecord
from federated.run.selection import is_evaluated
from federated.run.timing import Interval
from federated.run.update_files import read_layout
from federated.stages.aggregate import download_size
from federated.stages.secagg_messages import Roster
from flows.progress import describe, listener, tell
from flows.secagg import Exchanged, exchange_keys, forgotten_secrets, unmask_sum
from flows.site_stages import Finished, Run, wait_for
from tasks.aggregate import aggregate, decrypt, plan_round
from tasks.checkpoint import checkpoint
from tasks.compress import compress
from tasks.encrypt import encrypt
from tasks.evaluate import ask, evaluate, evaluate_at_site
from tasks.local_train import local_train
from tasks.share_style import keep_styles, share_style
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
    topic = plan_round(run.coordinator, round_number)
    keys = Exchanged(None, Finished([], {}))
    if run.experiment.protection.masked:
        keys = exchange_keys(run, topic, selected)
    exchanged = keys.finished
    gone = exchanged.dropped | {s: run.unkeyed[s] for s in selected if s in run.unkeyed}
    if len(gone) == len(selected):
        raise ConsiliumError(
            f"All {len(selected)} sites have dropped out of round {round_number} before they "
            f"trained; the last said: {list(gone.values())[-1]}"
        )
    styles = _share_styles(run, round_number)
    weights = site_weights(run.context.counts, selected)
    sending = {site: weights[site] for site in selected if site not in gone}
    sent = _train_and_send(run, round_number, sending)
    dropped = gone | sent.dropped
    left = [site for site in selected if site not in dropped]
    sum_ = _sum_up(run, topic, left, keys.roster)
    predicted, evaluation, scored = _evaluate(run, round_number, sum_.responded)
    record = RoundRecord(
        round_number,
        sum_.responded,
        dropped | sum_.refused,
        [*styles, *exchanged.results, *sent.results, *sum_.opened, *predicted],
        sum_.when,
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
    shared = [share_style.submit(run.pool, call) for call in run.calls()]
    results = [future.result() for future in shared]
    keep_styles(run.coordinator, wait_for=results)
    return results


@dataclass(frozen=True)
class _Summed:
    """Whose payloads are in the opened sum, and why those of others are not; who did what for it.

    ``opened`` is what sites did for it, and ``when`` says when the coordinator worked.
    """

    responded: list[str]
    refused: dict[str, str]
    opened: list[StageResult]
    when: list[Interval]


def _sum_up(run: Run, topic: Topic, sent: list[str], roster: Roster | None) -> _Summed:
    """Run aggregate, and then what opens the sum: decrypt at a site, or unmask with all of them.

    A payload that is refused counts as a dropout of its sender.

    Raises:
        ConsiliumError: so few have responded that no site would help to open their sum.
    """
    protection, number = run.experiment.protection, topic.round
    selected = run.context.selected(number)
    # The sites ask this themselves; here it is said before anything is added.
    protection.refuse_too_few(sent[0], number, selected, sent)
    done = aggregate(run.coordinator, topic, sent, roster)
    responded, refused, when = done.added.responded, done.added.refused, [done.when]
    for site, reason in refused.items():
        tell(f"{site} is left out of round {number}: {reason}")
    opened: list[StageResult] = []
    protection.refuse_too_few(responded[0], number, selected, responded)
    if protection.keyed:
        calls = [run.call(site) for site in responded]
        opened = decrypt(
            run.pool, run.coordinator, calls[0], topic, responded, calls, wait_for=[done]
        )
    elif roster is not None:
        opened, unmasked = unmask_sum(run, topic, roster, responded)
        when.append(unmasked)
    return _Summed(responded, refused, opened, when)


def _evaluate(
    run: Run, round_number: int, responded: list[str]
) -> tuple[list[StageResult], Evaluation, Interval]:
    """Run evaluate at every site and then for all together, in a round that is evaluated."""
    experiment = run.experiment
    if not is_evaluated(experiment.selection, round_number, experiment.rounds):
        now = time.time()
        return [], Evaluation({}, {}, {}, {}), Interval(now, now)
    topic = ask(run.coordinator, round_number, responded)
    calls = run.calls()
    submitted = [evaluate_at_site.submit(run.pool, call, round_number) for call in calls]
    predicted = [future.result() for future in submitted]
    info = run.prepared.dataset.info
    found = evaluate(run.coordinator, topic, run.sites, info, wait_for=predicted)
    return predicted, *found


def _report(run: Run, record: RoundRecord) -> float:
    """Track a round, write its record, and tell of it; return when its time was taken."""
    folder, number, rounds = run.folder, record.round_number, run.experiment.rounds
    length = read_layout(folder.state_path(number - 1)).size
    sizes = record.sizes(download_size(run.coordinator, number), len(run.sites), length)
    numbers = {f"bytes/{key}": float(value) for key, value in sizes.items()}
    taken = {key: value for key, value in record.seconds().items() if value is not None}
    numbers |= {f"seconds/{key}": value for key, value in taken.items()}
    spent = [stage.epsilon for stage in record.stages if stage.epsilon is not None]
    if spent:
        numbers["privacy/epsilon_rdp"] = max(spent)
    track_round(run.mlflow_run_id, number, record.evaluation, numbers, timed=record.timed)
    seconds = record.seconds()
    measured = time.time()
    checkpoint(run.coordinator, number, record.to_json(run.partition, sizes, seconds))
    metrics = record.evaluation.overall.get("val", {})
    get_run_logger().info(describe(number, rounds, metrics, seconds["total"]))
    shown = listener()
    if shown:
        shown.round_done(number, rounds, metrics, seconds["total"])
    return measured


def _train_and_send(run: Run, round_number: int, weights: Mapping[str, float]) -> Finished:
    """Run local-train → compress → encrypt at every site of ``weights``, the largest first."""
    chains: dict[str, list[PrefectFuture[StageResult]]] = {}
    for site in sorted(weights, key=lambda site: -weights[site]):
        call = run.call(site)
        trained = local_train.submit(run.pool, call, round_number)
        compressed = compress.submit(
            run.pool, call, round_number, return_state=False, wait_for=[trained]
        )
        encrypted = encrypt.submit(
            run.pool, call, round_number, return_state=False, wait_for=[compressed]
        )
        chains[site] = [trained, compressed, encrypted]
    return wait_for(run, round_number, chains)
