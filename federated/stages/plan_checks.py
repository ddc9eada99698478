"""What a site checks of a plan that the coordinator has signed, before anything is done by it."""

from collections.abc import Mapping
from dataclasses import replace

from federated.configuration.experiment import Experiment
from federated.data.dataset import Split
from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError, RefusalError
from federated.exchange.plan import RunPlan
from federated.exchange.policy_checks import Proposal, refuse_by_policy, refuse_outright
from federated.privacy import Private
from federated.privacy.accounting import Release
from federated.provenance import code_digest
from federated.rounds.participation import POOLED, training_cases
from federated.site.approvals import refuse_unapproved
from federated.site.home import SiteHome, SiteRun
from federated.training.optimization import local_work


def check_plan(home: SiteHome, store: SiteRun, plan: RunPlan, proposal: RunPlan) -> None:
    """Check the plan of a run at a site.

    Args:
        home: the site's home.
        store: what it keeps of the run.
        plan: the plan.
        proposal: what was proposed to the site in the same attempt, and what it has answered to.

    Raises:
        RefusalError: the site is not in it or under another key, it has other numbers of cases or
            another release than the site itself works out, it is no plan of what was proposed, or
            the site's policy refuses it.
        ConsiliumError: the site's own files cannot be read.
    """
    site, own = home.name, plan.participants.get(home.name)
    if own != home.identity().public:
        said = "does not name it" if own is None else "has another key for it"
        raise RefusalError(f"{site} does not take part in run {store.run_id}: its plan {said}.")
    refuse_outright(home.policy(), site, plan, code_digest())
    release = own_release(store, site, plan)
    # Before anything is said of the site's own numbers: a run that is refused learns none.
    refuse_proposal(home, store, plan, release, proposal)
    counts = part_counts(store)
    told = {part: dict(plan.counts.sites.get(part, {})) for part in counts}
    if told != counts:
        raise RefusalError(
            f"{site} does not take part in run {store.run_id}: its plan says that it has {told} "
            f"cases, and it has {dict(counts)}. Its update would have another weight."
        )
    if plan.releases.get(site) != release:
        raise RefusalError(
            f"{site} does not take part in run {store.run_id}: by its plan the site releases "
            f"{plan.releases.get(site)} in a round, and by its own arithmetic {release}."
        )
    _refuse_other_run(site, store, plan, proposal)


def _refuse_other_run(site: str, store: SiteRun, plan: RunPlan, proposal: RunPlan) -> None:
    """Refuse a plan of another run than was proposed, or of other sites.

    Sites that were proposed may be missing, since not all take part; nothing else may differ.

    Raises:
        RefusalError: it is one, or so few sites are left that none of its sums would be opened.
    """
    known = proposal.participants
    others = [name for name, who in plan.participants.items() if known.get(name) != who]
    said = proposal.counts.sites or plan.counts.sites
    counts = {name: said.get(name) for name in plan.sites}
    same = replace(
        proposal,
        participants=plan.participants,
        counts=plan.counts,
        releases=plan.releases,
    )
    if others or counts != dict(plan.counts.sites) or plan != same:
        what = f"{', '.join(others)} not among its sites" if others else "something else in it"
        raise RefusalError(
            f"{site} does not take part in run {store.run_id}: its plan is another one than was "
            f"proposed to the site, with {what}."
        )
    try:
        plan.experiment.protection.check(plan.experiment.cohort(len(plan.sites)))
    except ConsiliumError as error:
        raise RefusalError(
            f"{site} does not take part in run {store.run_id}, of which {len(plan.sites)} of "
            f"{len(proposal.sites)} sites are left: {error}"
        ) from error


def refuse_proposal(
    home: SiteHome,
    store: SiteRun,
    plan: RunPlan,
    release: Release | None,
    proposal: RunPlan,
) -> None:
    """Refuse a run that the site's policy does not allow, or that a person has yet to approve.

    What a person has approved is the ``proposal``; its ``plan`` may have fewer sites.

    Args:
        home: the site's home.
        store: what it keeps of the run.
        plan: the plan, or the proposal itself.
        release: what the site releases in a round by its own arithmetic.
        proposal: what was proposed to the site.

    Raises:
        RefusalError: it does not; the message has the lines of the policy.
        ConsiliumError: there is no policy that can be read.
    """
    policy = home.policy()
    refuse_by_policy(policy, home.name, Proposal(plan, release, code_digest()))
    if policy.settings.approval == "required":
        refuse_unapproved(home, store, proposal, policy.by("approval"))


def refuse_other_code(home: SiteHome, plan: RunPlan) -> None:
    """Refuse to go on with a plan of another program than the one that runs at the site now.

    What the plan says of the coordinator's is its word; what is compared with it is taken of the
    site's own files. A site whose program has changed since it accepted the plan stops here.

    Raises:
        RefusalError: the policy asks for the same program, and it is another.
    """
    policy = home.policy()
    if policy.settings.code == "same" and plan.code != code_digest():
        raise RefusalError(
            f"{home.name} does nothing more in this run: the coordinator says that it runs another "
            f"version of the program than this site, by {policy.by('code')}."
        )


def own_release(store: SiteRun, site: str, plan: RunPlan) -> Release | None:
    """What a site releases in a round by its own arithmetic; ``None`` without privacy.

    In a run for statistics there are no rounds; the noise of those is in the configuration.

    Raises:
        RefusalError: the privacy that is asked for cannot be reached.
    """
    private = isinstance(plan.experiment.privacy, Private) and plan.purpose == "training"
    if not private or site == POOLED:
        return None
    cases = training_cases(CaseCounts(part_counts(store)), site, [site])
    try:
        return release_of(plan.experiment, cases)
    except ConsiliumError as error:
        # Of the site's own it tells how many cases it has, which everyone knows.
        raise RefusalError(str(error)) from error


def release_of(experiment: Experiment, cases: int) -> Release | None:
    """What a site of so many training cases releases in a round; ``None`` without privacy.

    Raises:
        ConsiliumError: the privacy that is asked for cannot be reached, or there are no such cases.
    """
    privacy, training = experiment.privacy, experiment.training
    if not isinstance(privacy, Private):
        return None
    if not cases:
        raise ConsiliumError(
            "A site without training cases has nothing to release under privacy.name="
            f"{privacy.name}. Give it some, or leave the site out of the run."
        )
    steps = local_work(cases, training, batch_norm=False).steps
    return privacy.plan(cases, steps, training.batch_size, experiment.rounds)


def part_counts(store: SiteRun) -> Mapping[str, dict[Split, int]]:
    """How many cases each part of what a site holds has in each split, from the site's own file."""
    _, parts = store.data()
    return {
        part: {split: len(cases) for split, cases in own.items()} for part, own in parts.items()
    }
