"""The graph of one round.

Before the first round, share-style runs at every site, where the strategy asks for it. In a round,
local-train → compress → encrypt run for every site that is selected. Then follow aggregate →
decrypt, where there is a key → evaluate at every site → evaluate → track → checkpoint, whose record
makes the round count as done. With ``evaluation.share=sums`` what sites send of their evaluation is
summed and opened as the updates are.

Where a run allows it (``overlap.py``), local-train of the next round is begun once the sites were
asked to evaluate this one; the sum of that round waits until this one has its record.

Where there are more than fifty sites, several of them do their stages in one task run; so do sites
that train in one call.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from prefect import get_run_logger
from prefect.futures import PrefectFuture

from federated.errors import ConsiliumError, TooFewSitesError
from federated.exchange.message import Topic
from federated.learning.evaluation import PREDICTS_NONE, Evaluation
from federated.rounds.participation import site_weights
from federated.run.coordinator_home import CoordinatorHome
from federated.run.result import Outcome, Stage
from federated.run.round_record import RoundRecord
from federated.run.round_table import left_out, round_line, round_table
from federated.run.selection import is_evaluated
from federated.run.summed_round import SummedRound, read_summed, write_summed
from federated.run.timing import Evaluating, Interval
from federated.run.update_files import read_layout
from federated.stages.aggregate import download_size
from federated.stages.begun_sums import left_out_before, refuse_other_than_begun
from federated.stages.compress import compress_site
from federated.stages.evaluate import evaluate_site, without_numbers
from federated.stages.local_train import train_site, train_sites
from federated.stages.named_sums import EVALUATION, refuse_few_parties, refuse_sum
from federated.stages.opening import lose_sum
from federated.stages.protect import protect_site
from federated.stages.report import reports
from federated.stages.secagg_messages import Roster
from federated.stages.secure_sum import digits_in
from federated.stages.share_style import without_style
from flows.beginning import of_parties
from flows.coordinator_metrics import count_round
from flows.progress import describe, listener, tell
from flows.secagg import exchange_keys, forgotten_secrets, unmask_sum
from flows.site_stages import (
    Chains,
    Finished,
    Run,
    SiteStages,
    are_grouped,
    at_every,
    begun_at,
    in_groups,
    quoted,
    stacked_sites,
    wait_for,
)
from tasks.aggregate import Aggregated, aggregate, decrypt, plan_round
from tasks.checkpoint import Recorded, checkpoint
from tasks.compress import compress
from tasks.encrypt import encrypt
from tasks.evaluate import Evaluated, ask, evaluate, evaluate_at_site
from tasks.local_train import local_train
from tasks.round_table import show_round
from tasks.share_style import keep_styles, share_style
from tasks.track import track_round

# With so many styles each site has that of another one.
ENOUGH_STYLES = 2

# What a site does in one go where there are too many sites for task runs of their own.
TRAINING = SiteStages(
    "train and send", (train_site, compress_site, protect_site), "protect", train_sites
)
EVALUATING = SiteStages("evaluate", (evaluate_site,), "evaluate")


@dataclass(frozen=True)
class Begun:
    """A round whose sites train while that before it is evaluated.

    Attributes:
        topic: what the messages of the round have in common.
        chains: the tasks of each site.
    """

    topic: Topic
    chains: Chains


@dataclass(frozen=True)
class RoundEnd:
    """What a round begins after: the end of the one before it, or of what came before all rounds.

    Attributes:
        at: when the time was taken, in seconds since the epoch.
        recorded: what the task returned that wrote the record; the next round has an edge from it
            in the graph of the run.
        begun: the next round, where it was begun beside the evaluation of this one.
        evaluating: when this one was evaluated, where that is in the time of the next one.
    """

    at: float
    recorded: Recorded | None = None
    begun: Begun | None = None
    evaluating: Evaluating = field(default_factory=Evaluating)


def run_round(run: Run, round_number: int, before: RoundEnd) -> RoundEnd:
    """Run one round; it counts once its record is written.

    The time is taken just before the record is written, and returned: the next round begins there,
    so that the rounds' times leave no gap. Where the next round is begun beside the evaluation of
    this one, its time begins when the sum of this one is done, and has that evaluation in it.

    Raises:
        ConsiliumError: what a stage raises; what a site's stage raises counts only where
            ``sites.on_dropout`` is ``abort``, or where no site is left. In a consortium such a
            round is lost instead.
    """
    selected = run.context.selected(round_number)
    shown = listener()
    if shown:
        shown.round_started(round_number, run.experiment.rounds, selected)
    masked = run.experiment.protection.masked
    # A sum of the evaluation has all sites in it.
    masking = run.sites if run.experiment.evaluation.share == "sums" else selected
    with forgotten_secrets(run, masking) if masked else nullcontext():
        return _run_round(run, round_number, before, selected)


def _run_round(run: Run, round_number: int, before: RoundEnd, selected: list[str]) -> RoundEnd:
    summed, after = _summed_before(run, round_number, before), before.recorded
    begun = None
    if summed is not None:
        # Without anything beside it, so that a run which is stopped again and again goes on.
        predicted, evaluated = _evaluate(run, summed, after)
    else:
        summed, after = _train_and_sum(run, round_number, before, selected)
        if _is_beside(run, summed):
            predicted, evaluated, begun = _evaluate_beside(run, summed, after)
        else:
            predicted, evaluated = _evaluate(run, summed, after)
    record = RoundRecord(
        round_number,
        summed.sites,
        summed.dropped,
        [*summed.stages, *predicted],
        summed.aggregated,
        evaluated.when,
        evaluated.evaluation,
        summed.began,
        run.workers,
        run.experiment.privacy.unit is None,
        run.coordinator.absent,
        summed.lost,
        summed.at if begun else None,
        before.evaluating,
    )
    end = _report(run, record, [evaluated, after])
    return replace(end, at=summed.at, begun=begun, evaluating=record.evaluating) if begun else end


def _summed_before(run: Run, round_number: int, before: RoundEnd) -> SummedRound | None:
    """What became of the sum of a round in which a run was stopped since; ``None`` without one.

    Its model is there, and what sites keep belongs to it, so that nothing is trained once more.
    """
    path, state = run.folder.summed_path(round_number), run.folder.state_path(round_number)
    if not state.is_file():
        return None
    sites = None if of_parties(run.experiment) else run.sites
    found = read_summed(path, round_number, sites, state)
    if found is None:
        return None
    tell(f"round {round_number} goes on where it was stopped: its sum is done")
    # What sites tell of their evaluation has to be of the time from here on.
    run.coordinator.begun[round_number] = before.at
    return found.going_on_at(before.at)


def _train_and_sum(
    run: Run, round_number: int, before: RoundEnd, selected: list[str]
) -> tuple[SummedRound, Any]:
    """Have the sites of a round train, and their updates summed; write what became of it.

    Returns:
        What became of it, and what the last task for it has returned.
    """
    if before.begun:
        topic, sent = before.begun.topic, wait_for(run, round_number, before.begun.chains)
        left = [site for site in selected if site not in sent.dropped]
        sum_ = sum_up(run, topic, left, None, after=[*sent.tasks, before.recorded])
        return _written(run, round_number, before, sent, sum_), sum_.after
    topic = plan_round(run.quoted, round_number, wait_for=[before.recorded])
    out = not_asked(run, topic, selected)
    keys = exchange_keys(run, topic, [site for site in selected if site not in out])
    exchanged = keys.finished
    gone = exchanged.dropped | out
    if len(gone) == len(selected) and not of_parties(run.experiment):
        raise ConsiliumError(
            f"All {len(selected)} sites have dropped out of round {round_number} before they "
            f"trained; the last said: {list(gone.values())[-1]}"
        )
    styles = _share_styles(run, round_number)
    weights = site_weights(run.context.counts, selected)
    sending = {site: weights[site] for site in selected if site not in gone and not keys.lost}
    sent = _train_and_send(run, round_number, sending, keys.roster or topic)
    dropped = gone | sent.dropped
    left = [site for site in sending if site not in dropped]
    sum_ = (
        _lose(run, topic, keys.lost)
        if keys.lost
        else sum_up(run, topic, left, keys.roster, after=sent.tasks)
    )
    done = Finished([*styles, *exchanged.results, *sent.results], dropped)
    return _written(run, round_number, before, done, sum_), sum_.after


def _written(
    run: Run, round_number: int, before: RoundEnd, done: Finished, sum_: "Summed"
) -> SummedRound:
    """What became of the sum of a round once it is on the disk; ``done`` is what sites did."""
    summed = SummedRound(
        round_number,
        sum_.responded,
        done.dropped | sum_.refused,
        sum_.lost,
        [*done.results, *sum_.opened],
        sum_.when,
        before.at,
        time.time(),
    )
    timed = run.experiment.privacy.unit is None
    folder = run.folder
    path, state = folder.summed_path(round_number), folder.state_path(round_number)
    write_summed(path, summed, state, timed=timed)
    return summed


def not_asked(run: Run, topic: Topic, sites: Sequence[str]) -> dict[str, str]:
    """Which of ``sites`` are asked for nothing to a sum, since nothing of theirs could be in it.

    Those are the sites that have made a sum of this attempt one that nobody opens, that have no
    key, or without which others may have helped to the sum already, before the run was resumed.
    """
    known = run.coordinator.faulty | dict(run.unkeyed)
    out = {site: known[site] for site in sites if site in known}
    before = left_out_before(run.coordinator, topic, [site for site in sites if site not in out])
    for reason in before.values():
        tell(reason)
    return out | before


def _share_styles(run: Run, round_number: int) -> list[Outcome]:
    """Run share-style at every site before the first round, where the strategy asks for it.

    Where a site's style is missing the others go on without it. If so many are missing that some
    site has none of another, as where all were away, those that are missing are asked again before
    the next round.

    Raises:
        ConsiliumError: what a stage raises, only where ``sites.on_dropout`` is ``abort``; or all
            sites have failed.
    """
    if run.experiment.strategy.introduction() is None:
        return []
    calls = run.calls()
    if round_number > 1:
        if len(run.sites) - len(without_style(run.coordinator)) >= ENOUGH_STYLES:
            return []
        # One may have come since from a site that was late.
        missing = keep_styles(run.quoted)
        if len(run.sites) - len(missing) >= ENOUGH_STYLES:
            return []
        calls = [call for call in calls if call.site in missing]
    shared = {call.site: [share_style.submit(run.pool, call)] for call in calls}
    finished = wait_for(run, round_number, shared)
    for site, reason in keep_styles(run.quoted, wait_for=finished.results).items():
        tell(f"the style of {site} is left out: {reason}")
    return finished.results


@dataclass(frozen=True)
class Summed:
    """Whose payloads are in the opened sum, and why those of others are not; who did what for it.

    ``opened`` is what sites did for it, and ``when`` says when the coordinator worked. ``lost``
    says why nobody opens the sum, so that the model stays as it is. ``opener`` is the site that has
    opened it, where there is a key. ``after`` is what the last task for it has returned.
    """

    responded: list[str]
    refused: dict[str, str]
    opened: list[Outcome]
    when: list[Interval]
    lost: str | None = None
    opener: str | None = None
    after: Any = None


def sum_up(
    run: Run,
    topic: Topic,
    sent: list[str],
    roster: Roster | None,
    length: int | None = None,
    after: Sequence[Any] = (),
) -> Summed:
    """Run aggregate, and then what opens the sum: decrypt at a site, or unmask with all of them.

    A payload that is refused counts as a dropout of its sender. So does what else a site fails to
    do for a sum; if that makes it one that nobody opens, it is lost and has no sites. In a
    consortium it is also lost where too few are left for it.

    Args:
        run: what the graph is wired with.
        topic: of the sum.
        sent: the sites whose payloads are expected.
        roster: who takes part in a round in which sites mask.
        length: how many numbers each sends to a named sum.
        after: the tasks before, from which the graph has an edge.

    Raises:
        ConsiliumError: so few have responded that no site would help to open their sum, or no site
            has opened it.
    """
    refused: Mapping[str, str] = {}
    try:
        _refuse_too_few(run, topic, sent)
        done = aggregate(run.quoted, topic, quoted(sent), roster, length, wait_for=after)
        refused = done.added.refused
        for site, reason in refused.items():
            tell(f"{site} is left out of round {topic.round}: {reason}")
        return _open_sum(run, topic, done, roster, length)
    except TooFewSitesError as error:
        if not of_parties(run.experiment):
            raise
        return _lose(run, topic, str(error), refused or error.refused)


def _lose(run: Run, topic: Topic, said: str, refused: Mapping[str, str] | None = None) -> Summed:
    """Go on without a sum for which so few sites of a consortium are left, as is ``said``.

    What ``refused`` sites have sent did not count, which is the reason perhaps.
    """
    lose_sum(run.coordinator, topic, {})
    now = time.time()
    return _lost(topic, dict(refused or {}), [], [Interval(now, now)], said)


def _open_sum(
    run: Run, topic: Topic, done: Aggregated, roster: Roster | None, length: int | None
) -> Summed:
    """Have a sum that was added opened.

    Raises:
        ConsiliumError: so few have responded that no site would help to open their sum, or no site
            has opened it.
    """
    protection, number = run.experiment.protection, topic.round
    responded, refused, when = done.added.responded, done.added.refused, [done.when]
    opened: list[Outcome] = []
    opener = None
    last: Any = done
    if done.lost is not None:
        return _lost(topic, refused, [], when, done.lost)
    _refuse_too_few(run, topic, responded)
    if not topic.sum:
        run.context.refuse_too_little_noise(len(responded))
    if protection.keyed:
        calls = [run.call(site) for site in responded]
        decrypted = decrypt(run.pool, run.quoted, calls, topic, length, wait_for=[done])
        told = [site for site in responded if site not in decrypted.faulty]
        opened = reports(run.coordinator, number, "vouch", told, topic.sum)
        for site, reason in decrypted.passed_over.items():
            tell(f"{site} does not open the sum of round {number}, and another does: {reason}")
        if decrypted.lost is not None:
            return _lost(topic, refused | dict(decrypted.faulty), opened, when, decrypted.lost)
        opener, last = decrypted.openers[0], decrypted
        opened += reports(run.coordinator, number, "decrypt", decrypted.openers, topic.sum)
    elif roster is not None:
        opened, unmasked = unmask_sum(run, topic, roster, responded, done)
        when.append(unmasked.when)
        last = unmasked
        if unmasked.lost is not None:
            out = dict.fromkeys(unmasked.faulty, unmasked.lost)
            return _lost(topic, refused | out, opened, when, unmasked.lost)
    return Summed(responded, refused, opened, when, opener=opener, after=last)


def _refuse_too_few(run: Run, topic: Topic, sites: list[str]) -> None:
    """Refuse a sum of sites that are not enough for one, as it is said of the run.

    The sites ask this themselves, but for what a consortium's runner says; here it is said before
    anything is added, and again of those whose payloads count.

    Raises:
        TooFewSitesError: they are not.
        ConsiliumError: no site would help to open such a sum.
    """
    refuse_few_parties(run.context, sites)
    refuse_sum(run.context, topic, sites[0], sites)
    refuse_other_than_begun(run.coordinator, topic, sites)


def _lost(
    topic: Topic, dropped: dict[str, str], opened: list[Outcome], when: list[Interval], said: str
) -> Summed:
    """A sum that nobody opens, and which sites drop out with it; it is told.

    Args:
        topic: of the sum.
        dropped: the sites that are in no sum, and why.
        opened: what sites did for it.
        when: when the coordinator worked.
        said: why it is lost.
    """
    what = f"round {topic.round} is lost, and the model stays as it is"
    if topic.sum == EVALUATION.name:
        what = f"the sum of the evaluation after round {topic.round} is lost, which has no metrics"
    elif topic.sum:
        what = f"the sum {topic.sum} is lost"
    tell(f"{what}. {said}")
    return Summed([], dropped, opened, when, said)


def _evaluate(run: Run, updates: SummedRound, after: Any) -> tuple[list[Outcome], Evaluated]:
    """Run evaluate at every site and then for all together, in a round that is evaluated.

    ``after`` is what the task before has returned, from which the graph has an edge.

    After a lost round nothing is summed of the evaluation: the model is that of the round before,
    and the difference of the two sums would be what the site that is left out tells of its cases.
    """
    experiment, round_number = run.experiment, updates.round_number
    again = updates.lost is not None and experiment.evaluation.share == "sums"
    if again or not is_evaluated(experiment.selection, round_number, experiment.rounds):
        return [], _unevaluated()
    topic = ask(run.quoted, round_number, quoted(updates.sites), wait_for=[after])
    if experiment.evaluation.share == "sums":
        return _evaluate_in_sum(run, topic)
    return _measured(run, topic, _at_every(run, run.sites, topic))


def _measured(run: Run, topic: Topic, done: Finished) -> tuple[list[Outcome], Evaluated]:
    """Run evaluate for all sites together, once they are done."""
    found = evaluate(run.quoted, quoted(topic), quoted(run.sites), run.info, wait_for=done.tasks)
    for site, reason in found.evaluation.missing.items():
        tell(f"the metrics of round {topic.round} are without {site}: {reason}")
    return done.results, found


def _is_beside(run: Run, summed: SummedRound) -> bool:
    """Whether the next round is begun beside the evaluation of this one: a person may pause it."""
    another = summed.round_number < run.experiment.rounds
    return run.beside and another and not run.folder.paused_path.is_file()


def _evaluate_beside(
    run: Run, updates: SummedRound, after: Any
) -> tuple[list[Outcome], Evaluated, Begun]:
    """As :func:`_evaluate`, with the next round begun once the sites were asked to evaluate.

    What the sites of that round have done is asked for once this one has its record.
    """
    experiment, number = run.experiment, updates.round_number
    if not is_evaluated(experiment.selection, number, experiment.rounds):
        return [], _unevaluated(), _begin(run, updates, after)
    topic = ask(run.quoted, number, quoted(updates.sites), wait_for=[after])
    evaluating = begun_at(run, topic, evaluate_at_site, run.sites)
    begun = _begin(run, updates, after)
    predicted, evaluated = _measured(run, topic, wait_for(run, number, evaluating))
    return predicted, evaluated, begun


def _begin(run: Run, before: SummedRound, after: Any) -> Begun:
    """Have the sites of the round after ``before`` begin to train."""
    number = before.round_number + 1
    topic = plan_round(run.quoted, number, quoted(before.sites), wait_for=[after])
    weights = site_weights(run.context.counts, run.context.selected(number))
    return Begun(topic, _begin_training(run, number, weights, topic))


def _at_every(run: Run, sites: Sequence[str], asked: Topic) -> Finished:
    """Run evaluate at sites, after they were asked, and wait for it."""
    if are_grouped(run, sites):
        return in_groups(run, asked.round, EVALUATING, sites, after=[asked])
    return at_every(run, asked, evaluate_at_site, sites)


def _unevaluated(
    missing: Mapping[str, str] | None = None, when: Interval | None = None
) -> Evaluated:
    """No metrics: where sites were asked, with why those of each are ``missing``."""
    now = time.time()
    found = Evaluation({}, {}, {}, {}, missing=missing or {})
    return Evaluated(found, when or Interval(now, now))


def _evaluate_in_sum(run: Run, asked: Topic) -> tuple[list[Outcome], Evaluated]:
    """Run evaluate at every site into one sum, and have that opened: the topic's.

    A site that drops out of it is in no metric of the round, which the record says.

    Raises:
        ConsiliumError: so few have responded that no site would help to open their sum.
    """
    topic = replace(asked, sum=EVALUATION.name)
    out = not_asked(run, topic, run.sites)
    keys = exchange_keys(run, topic, [site for site in run.sites if site not in out], after=asked)
    if keys.lost:
        sum_ = _lose(run, topic, keys.lost)
        missing = dict.fromkeys(run.sites, keys.lost) | keys.finished.dropped
        return keys.finished.results, _unevaluated(missing, sum_.when[-1])
    gone = keys.finished.dropped | out
    left = [site for site in run.sites if site not in gone]
    predicted = _at_every(run, left, asked)
    sent = [site for site in left if site not in predicted.dropped]
    numberless = without_numbers(run.coordinator, topic, sent)
    sent = [site for site in sent if site not in numberless]
    gone |= predicted.dropped | numberless
    if numberless and not _is_enough(run, topic, sent):
        tell(f"round {topic.round} has no metrics: {PREDICTS_NONE}")
        return [*keys.finished.results, *predicted.results], _unevaluated(gone)
    info = run.info
    length = digits_in(run.coordinator, topic, info)
    sum_ = sum_up(run, topic, sent, keys.roster, length, predicted.tasks)
    results = [*keys.finished.results, *predicted.results, *sum_.opened]
    if sum_.lost:
        missing = dict.fromkeys(run.sites, sum_.lost)
        return results, _unevaluated(missing, sum_.when[-1])
    try:
        found = evaluate(
            run.quoted, topic, quoted(sum_.responded), info, sum_.opener, wait_for=[sum_.after]
        )
    except ConsiliumError as error:
        # Some site, the opener perhaps, has put into it what no cases can have.
        tell(f"round {topic.round} has no metrics: {error}")
        missing = dict.fromkeys(run.sites, str(error))
        return results, _unevaluated(missing, sum_.when[-1])
    missing = gone | sum_.refused
    if missing:
        found.evaluation = replace(found.evaluation, missing=missing)
    return results, found


def _is_enough(run: Run, topic: Topic, sites: list[str]) -> bool:
    """Whether the parts of some sites are enough for a sum."""
    try:
        refuse_sum(run.context, topic, sites[0] if sites else "", sites)
    except ConsiliumError:
        return False
    return True


def _report(run: Run, record: RoundRecord, after: Sequence[Any]) -> RoundEnd:
    """Track a round, write its record, and tell of it; return when its time was taken.

    ``after`` is what the tasks before have returned, from which the graph has an edge.
    """
    folder, number, rounds = run.folder, record.round_number, run.experiment.rounds
    length = read_layout(folder.state_path(number - 1)).size
    down = download_size(run.coordinator, number)
    sizes = record.sizes(down, len(run.sites), length)
    numbers = {f"bytes/{key}": float(value) for key, value in sizes.items()}
    # Of stages that did not run there is nothing to see.
    taken = {key: value for key, value in record.seconds().items() if value}
    numbers |= {f"seconds/{key}": value for key, value in taken.items()}
    spent = [stage.epsilon for stage in record.told if stage.epsilon is not None]
    if spent:
        numbers["privacy/epsilon_rdp"] = max(spent)
    evaluation = quoted(record.evaluation)
    track_round(run.mlflow_run_id, number, evaluation, numbers, timed=record.timed, wait_for=after)
    seconds = record.seconds()
    measured = time.time()
    written = record.to_json(run.context.counts, sizes, seconds)
    recorded = checkpoint(run.quoted, number, quoted(written), wait_for=after)
    name, run_id = run.experiment.name, run.context.run_id
    rows = round_table(record, run.context.counts, down)
    show_round(name, run_id, number, rows, f"{left_out(record)} {run.links}".strip())
    if of_parties(run.experiment):
        count_round(CoordinatorHome.default(), round_line(record, run_id, name, sizes, seconds))
    metrics = record.evaluation.overall.get("val", {})
    get_run_logger().info(describe(number, rounds, metrics, seconds["total"]))
    shown = listener()
    if shown:
        shown.round_done(number, rounds, metrics, seconds["total"])
    return RoundEnd(measured, recorded)


def _train_and_send(
    run: Run, round_number: int, weights: Mapping[str, float], after: Any
) -> Finished:
    """Run local-train → compress → encrypt at every site of ``weights``, the largest first.

    ``after`` is what the task before has returned, from which the graph has an edge.
    """
    sites = sorted(weights, key=lambda site: -weights[site])
    if are_grouped(run, sites) or stacked_sites(run) > 1:
        return in_groups(run, round_number, TRAINING, sites, after=[after])
    return wait_for(run, round_number, _begin_training(run, round_number, weights, after))


def _begin_training(
    run: Run, round_number: int, weights: Mapping[str, float], after: Any
) -> Chains:
    """Begin what :func:`_train_and_send` runs, where each site has task runs of its own."""
    sites = sorted(weights, key=lambda site: -weights[site])
    chains: dict[str, list[PrefectFuture[Stage]]] = {}
    for site in sites:
        call = run.call(site)
        trained = local_train.submit(
            run.pool, call, round_number, return_state=False, wait_for=[after]
        )
        compressed = compress.submit(
            run.pool, call, round_number, return_state=False, wait_for=[trained]
        )
        encrypted = encrypt.submit(
            run.pool, call, round_number, return_state=False, wait_for=[compressed]
        )
        chains[site] = [trained, compressed, encrypted]
    return chains
