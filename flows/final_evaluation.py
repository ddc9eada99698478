"""The end of a run: what sites tell once of their test cases, by the model that the run keeps.

Each tells for itself; or with ``evaluation.share=sums`` all tell a sum, which is opened as that of
a round's evaluation is.
"""

from contextlib import nullcontext
from typing import Any

from federated.errors import ConsiliumError
from federated.exchange.message import Topic
from federated.learning.final_task import final_task
from federated.learning.subgroup_statistics import final_over_sites
from federated.run.final_record import final_record, write_groups
from federated.stages.begun_sums import evaluated_with
from federated.stages.final_evaluation import FinalOutcome
from federated.stages.secure_sum import digits_in
from flows.graph import not_asked, sum_up
from flows.progress import tell
from flows.secagg import exchange_keys, forgotten_secrets
from flows.site_stages import Run, at_every
from tasks.final_evaluation import ask, collect, each_site, sum_at_site


def final_evaluation(run: Run, topic: Topic) -> dict[str, Any]:
    """What sites tell at the end of their test cases, for the summary; nothing if not asked for.

    Args:
        run: what the graph is wired with.
        topic: what the messages of the run's end have in common.
    """
    settings = run.experiment.evaluation
    if not settings.evaluates_at_end:
        return {}
    if settings.share == "sums":
        masked = run.experiment.protection.masked
        with forgotten_secrets(run, run.sites) if masked else nullcontext():
            outcome = _in_sum(run)
    else:
        outcome = each_site(run.pool, run.quoted, run.calls(), topic, run.info)
    for site, reason in outcome.missing.items():
        tell(f"what is told at the end of test cases is without {site}: {reason}")
    if settings.subgroups is not None:
        write_groups(run.folder.groups_path, outcome.sums)
    return final_record(outcome.sums, outcome.missing, settings)


def _in_sum(run: Run) -> FinalOutcome:
    """Run the graph of the sum; where nobody opens it, or it is impossible, nothing is known."""
    topic = ask(run.quoted)
    out = not_asked(run, topic, run.sites)
    keys = exchange_keys(run, topic, [site for site in run.sites if site not in out])
    if keys.lost:
        return _nothing(run, keys.lost)
    gone = keys.finished.dropped | out
    left = [site for site in run.sites if site not in gone]
    done = at_every(run, topic, sum_at_site, left)
    sent = [site for site in left if site not in done.dropped]
    length = digits_in(run.coordinator, topic, run.info)
    missing = [site for site in evaluated_with(run.coordinator, topic) if site not in sent]
    if missing:
        # Of others, beside the sum of the evaluation it would tell what those who are missing have.
        return _nothing(
            run,
            f"{', '.join(missing)} did not take part at the end, and the model that is kept was "
            "evaluated in a sum with them",
        )
    opened = sum_up(run, topic, sent, keys.roster, length, done.tasks)
    if opened.lost:
        return _nothing(run, opened.lost)
    try:
        sums = collect(
            run.quoted, topic, run.info, opened.responded, opened.opener, wait_for=[opened.after]
        )
    except ConsiliumError as error:
        # Some site, the opener perhaps, has put into it what no cases can have.
        return _nothing(run, str(error))
    return FinalOutcome(sums, gone | done.dropped | opened.refused)


def _nothing(run: Run, why: str) -> FinalOutcome:
    asked = final_task(run.info, run.experiment.evaluation)
    return FinalOutcome(final_over_sites(asked, {}), dict.fromkeys(run.sites, why))
