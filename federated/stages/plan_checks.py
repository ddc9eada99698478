"""What a site checks of a plan that the coordinator has signed, before anything is done by it."""

from collections.abc import Mapping

from federated.data.dataset import Split
from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError, RefusalError
from federated.exchange.plan import RunPlan
from federated.exchange.policy import Proposal, refuse_by_policy
from federated.privacy import Private
from federated.privacy.accounting import Release
from federated.provenance import code_digest
from federated.rounds.participation import POOLED, training_cases
from federated.site.approvals import refuse_unapproved
from federated.site.home import SiteHome, SiteRun
from federated.training.optimization import local_work


def check_plan(home: SiteHome, store: SiteRun, plan: RunPlan) -> None:
    """Check the plan of a run at a site.

    Raises:
        RefusalError: the site is not in it or under another key, it has other numbers of cases or
            another release than the site itself works out, or the site's policy refuses it.
        ConsiliumError: the site's own files cannot be read.
    """
    site, own = home.name, plan.participants.get(home.name)
    if own != home.identity().public:
        said = "does not name it" if own is None else "has another key for it"
        raise RefusalError(f"{site} does not take part in run {store.run_id}: its plan {said}.")
    counts = part_counts(store)
    told = {part: dict(plan.counts.sites.get(part, {})) for part in counts}
    if told != counts:
        raise RefusalError(
            f"{site} does not take part in run {store.run_id}: its plan says that it has {told} "
            f"cases, and it has {dict(counts)}. Its update would have another weight."
        )
    release = own_release(store, site, plan)
    if plan.releases.get(site) != release:
        raise RefusalError(
            f"{site} does not take part in run {store.run_id}: by its plan the site releases "
            f"{plan.releases.get(site)} in a round, and by its own arithmetic {release}."
        )
    refuse_proposal(home, store, plan, release)


def refuse_proposal(home: SiteHome, store: SiteRun, plan: RunPlan, release: Release | None) -> None:
    """Refuse a run that the site's policy does not allow, or that a person has yet to approve.

    Raises:
        RefusalError: it does not; the message has the lines of the policy.
        ConsiliumError: there is no policy that can be read.
    """
    proposal = Proposal(plan, release, code_digest())
    policy = home.policy()
    refuse_by_policy(policy, home.name, proposal)
    if policy.settings.approval == "required":
        refuse_unapproved(home, store, plan, policy.by("approval"))


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

    Raises:
        RefusalError: the privacy that is asked for cannot be reached.
    """
    privacy = plan.experiment.privacy
    if not isinstance(privacy, Private) or site == POOLED:
        return None
    training = plan.experiment.training
    cases = training_cases(CaseCounts(part_counts(store)), site, [site])
    steps = local_work(cases, training, batch_norm=False).steps
    try:
        return privacy.plan(cases, steps, training.batch_size, plan.experiment.rounds)
    except ConsiliumError as error:
        # Of the site's own it tells how many cases it has, which everyone knows.
        raise RefusalError(str(error)) from error


def part_counts(store: SiteRun) -> Mapping[str, dict[Split, int]]:
    """How many cases each part of what a site holds has in each split, from the site's own file."""
    _, parts = store.data()
    return {
        part: {split: len(cases) for split, cases in own.items()} for part, own in parts.items()
    }
