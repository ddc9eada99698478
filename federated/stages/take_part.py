"""take-part: a site answers the proposal of a run, or refuses it by its policy."""

from dataclasses import replace

from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.exchange.plan import Joining, RunPlan
from federated.exchange.policy_checks import refuse_outright
from federated.privacy import Private
from federated.privacy.patients import patient_warnings
from federated.provenance import code_digest
from federated.site.told_subgroups import refuse_other_subgroups
from federated.stages.entering import refuse_evaluation
from federated.stages.keys import send_sealing
from federated.stages.plan_checks import own_release, part_counts, refuse_proposal
from federated.stages.site import Site, SiteCall, candidate
from federated.stages.worker import held_cases


def take_part(call: SiteCall) -> int:
    """Answer a proposal with how many cases the site has and what it releases in a round.

    What the site refuses stands in its audit log, with the reason.

    Returns:
        The bytes of the answer.

    Raises:
        ConsiliumError: the policy refuses the run, the privacy that is asked for cannot be reached,
            or a budget does not allow that the site's cases are evaluated.
    """
    site, plan = candidate(call)
    try:
        return _answer(site, plan)
    except ConsiliumError as error:
        site.home.audit.add("does not take part", run=call.run, said=str(error))
        raise


def _answer(site: Site, plan: RunPlan) -> int:
    counts = part_counts(site.store)
    own = counts.get(site.name, {"train": 0, "val": 0, "test": 0})
    # Where the proposal leaves numbers of cases to the sites, its own is what it is judged by.
    known = plan.counts.sites
    judged = plan if known else replace(plan, counts=CaseCounts({site.name: own}))
    # Before the arithmetic over all rounds, which a plan of very many could keep busy.
    refuse_outright(site.home.policy(), site.name, judged, code_digest())
    if plan.purpose == "training":
        refuse_other_subgroups(site.home, plan.experiment)
    release = own_release(site.store, site.name, plan)
    refuse_proposal(site.home, site.store, judged, release, plan)
    warnings: list[str] = []
    privacy = plan.experiment.privacy
    if isinstance(privacy, Private) and release is not None:
        refuse_evaluation(site)
        warnings = privacy.warnings(own["train"], len(plan.sites))
        rounds = plan.experiment.rounds
        planned = [privacy.of_round(release, n + 1, rounds) for n in range(rounds)]
        patients = held_cases(site).patients(site.name, "train")
        warnings += patient_warnings(privacy, site.name, planned, patients)
    if plan.experiment.protection.keyed:
        send_sealing(site)
    answer = Joining(own, release, site.store.data()[0].source, tuple(warnings))
    return site.to_coordinator(site.start, kinds.JOINING, answer.to_bytes())
