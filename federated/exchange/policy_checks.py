"""Whether a site takes part in a run: its plan compared with the site's own policy, line by line.

What is read from a plan is compared first, and what takes arithmetic over its rounds after that.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

from federated.configuration.experiment import Experiment
from federated.errors import RefusalError
from federated.exchange.identity import PublicIdentity
from federated.exchange.plan import RunPlan
from federated.exchange.policy import ANY, Policy, SitePolicy
from federated.privacy import Private
from federated.privacy.accounting import Release, epsilon
from federated.rounds.participation import POOLED, training_cases
from federated.rounds.planned_work import planned_work
from federated.rounds.statistics import statistics_release, told_of
from federated.settings.sections import Share, Told
from federated.weights.planned import planned_layout

# The relative error of one ε that is computed in two ways.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Proposal:
    """What a site knows of a run when it decides whether it takes part.

    Attributes:
        plan: the plan that the coordinator has signed.
        release: what the site itself works out that it releases in a round; ``None`` without
            privacy.
        code: the digest of the program at the site.
    """

    plan: RunPlan
    release: Release | None
    code: str


def refuse_by_policy(policy: Policy, site: str, proposal: Proposal) -> None:
    """Refuse a run that a site's policy does not allow.

    Raises:
        RefusalError: it does not; the message has every reason, with the line of the policy.
    """
    refuse_outright(policy, site, proposal.plan, proposal.code)
    if proposal.plan.purpose == "training":
        _refuse(policy, site, proposal.plan, _privacy_faults(policy.settings, proposal))


def refuse_outright(policy: Policy, site: str, plan: RunPlan, code: str) -> None:
    """Refuse a run for what is read from its plan, before any arithmetic over its rounds.

    Args:
        policy: the site's policy.
        site: the site.
        plan: the plan that the coordinator has signed.
        code: the digest of the program at the site.

    Raises:
        RefusalError: the policy does not allow it; the message has every such reason.
    """
    _refuse(policy, site, plan, _outright_faults(policy.settings, site, plan, code))


# What the keys of names are about.
ONE_OF = {
    "datasets": "data set",
    "experiments": "experiment",
    "protections": "protection",
    "privacies": "privacy",
}
# The key of a policy, and what of a plan it does not allow.
Faults = Iterator[tuple[str, str]]


def _refuse(policy: Policy, site: str, plan: RunPlan, faults: Faults) -> None:
    reasons = [f"{what}, by {policy.by(key)}" for key, what in faults]
    if reasons:
        what = "a run" if plan.purpose == "training" else "statistics"
        raise RefusalError(
            f"{site} does not take part in {what} of {plan.experiment.name}: {'; '.join(reasons)}. "
            "Propose a run that keeps to these lines; or whoever runs the site may change them, in "
            f"{policy.path}."
        )


def _allowed(found: str, limit: float | None, most: str = "at most {} are") -> str:
    """What a run would need of a limit, and what of it is allowed."""
    of_it = "none is" if limit is None else most.format(f"{limit:.12g}")
    return f"{found}, and {of_it} allowed"


def _outright_faults(policy: SitePolicy, site: str, plan: RunPlan, code: str) -> Faults:
    experiment = plan.experiment
    named: dict[str, str] = {
        "datasets": experiment.data.dataset,
        "experiments": experiment.name,
        "protections": experiment.protection.name,
    }
    if plan.purpose == "training":
        named["privacies"] = experiment.privacy.name
    for key, value in named.items():
        allowed = getattr(policy, key)
        if allowed != ANY and value not in allowed:
            others = f"only {', '.join(allowed):.300}" if allowed else "nor any other"
            yield key, f"it does not allow {value} as the {ONE_OF[key]}, {others}"
    yield from _strangers(policy, site, plan)
    yield from _sum_faults(policy, experiment)
    if policy.code == "same" and plan.code != code:
        yield "code", "the coordinator runs another version of the program"
    if plan.purpose == "statistics":
        yield from _statistics_faults(policy, experiment)
    else:
        yield from _training_faults(policy, site, plan)


def _statistics_faults(policy: SitePolicy, experiment: Experiment) -> Faults:
    """What of a run for statistics, in which nothing is trained, a policy does not allow."""
    told, settings = told_of(experiment), experiment.statistics
    order = ("nothing", *get_args(Told))
    if order.index(told) > order.index(policy.statistics):
        yield (
            "statistics",
            f"it allows {policy.statistics} of what is counted of training cases, and {told} is "
            "asked for",
        )
    if policy.max_epsilon is None:
        yield "max_epsilon", "it allows no ε"
    elif policy.max_epsilon != "unbounded":
        if settings.epsilon is None:
            yield "max_epsilon", f"counts without noise are above ε {policy.max_epsilon:g}"
        elif settings.epsilon > policy.max_epsilon:
            yield (
                "max_epsilon",
                f"ε would be {settings.epsilon:.3g}, and at most {policy.max_epsilon:g} is allowed",
            )
    release = statistics_release(experiment)
    if release is not None:
        if policy.max_delta is None:
            yield "max_delta", "it allows no δ"
        elif settings.delta > policy.max_delta:
            yield (
                "max_delta",
                f"δ is {settings.delta:g}, and at most {policy.max_delta:g} is allowed",
            )
        if (
            policy.min_noise_multiplier is None
            or release.noise_multiplier < policy.min_noise_multiplier
        ):
            noise = f"{release.noise_multiplier:.3g}"
            said = _allowed(noise, policy.min_noise_multiplier, "at least {} is")
            yield "min_noise_multiplier", f"the noise multiplier is {said}"
    elif policy.min_count is None:
        yield "min_count", "it allows no counts of cases"
    elif settings.min_count < policy.min_count:
        yield (
            "min_count",
            f"counts of fewer than {policy.min_count} cases have to be withheld, and "
            f"statistics.min_count is {settings.min_count}",
        )


def _training_faults(policy: SitePolicy, site: str, plan: RunPlan) -> Faults:
    experiment = plan.experiment
    yield from _missing_privacy(policy, experiment)
    if policy.max_rounds is None or experiment.rounds > policy.max_rounds:
        yield "max_rounds", f"it has {_allowed(f'{experiment.rounds} rounds', policy.max_rounds)}"
    yield from _work_faults(policy, site, plan)
    order = ("nothing", *get_args(Share))
    share: str = experiment.evaluation.share
    if share == "sums" and "coordinator" not in (
        experiment.protection.stated("hides_updates_from") or ()
    ):
        # Nothing hides what is summed, so that the coordinator gets each site's own.
        share = "statistics"
    if order.index(share) > order.index(policy.evaluation):
        asked = experiment.evaluation.share
        why = f", which comes to {share} here, since {experiment.protection.name} hides nothing"
        yield (
            "evaluation",
            f"it allows {policy.evaluation}, and {asked} is asked for"
            f"{why if asked != share else ''}",
        )
    yield from _count_faults(policy, experiment)
    if experiment.evaluation.calibrates and policy.calibration == "refused":
        yield (
            "calibration",
            "a temperature or prediction sets are asked for, which are made of its validation "
            "cases and kept with the model",
        )
    if experiment.evaluation.subgroups is not None and policy.subgroups == "refused":
        named = ", ".join(experiment.evaluation.subgroups)
        yield (
            "subgroups",
            f"metrics for groups of its test cases by {named:.200} are asked for, and are not told",
        )
    if experiment.sites.overlays and policy.pictures == "refused":
        yield "pictures", "pictures of test cases are asked for, and do not leave the site"
    if experiment.strategy.introduction() is not None and policy.styles == "refused":
        yield "styles", "a description of its images is asked for, and does not leave the site"


def _count_faults(policy: SitePolicy, experiment: Experiment) -> Faults:
    """Whether small counts are withheld; predictions are of every case, and withhold nothing."""
    asked = experiment.evaluation
    least = 0 if asked.share == "predictions" else asked.min_count
    if policy.min_count is None:
        yield "min_count", "it allows no counts of cases"
    elif least < policy.min_count:
        yield (
            "min_count",
            f"counts of fewer than {policy.min_count} cases have to be withheld, and the plan "
            f"withholds {f'those of fewer than {least}' if least else 'none'}",
        )


def _strangers(policy: SitePolicy, site: str, plan: RunPlan) -> Faults:
    if policy.participants == ANY:
        return
    for name, who in plan.participants.items():
        if name not in (site, POOLED) and _is_stranger(policy, who):
            yield "participants", f"it does not know {name} with the key {who.fingerprint}"


def _is_stranger(policy: SitePolicy, who: PublicIdentity) -> bool:
    if policy.participants == ANY:
        return False
    known = {"".join(fingerprint.split()).lower() for fingerprint in policy.participants}
    return "".join(who.fingerprint.split()) not in known


def refuse_stranger(policy: Policy, site: str, who: PublicIdentity) -> None:
    """Refuse to hand a secret to another site that a site's policy does not know.

    Raises:
        RefusalError: it does not.
    """
    if _is_stranger(policy.settings, who):
        raise RefusalError(
            f"{site} hands nothing secret to {who.name} with the key {who.fingerprint}: it does "
            f"not know it, by {policy.by('participants')}."
        )


def _missing_privacy(policy: SitePolicy, experiment: Experiment) -> Faults:
    """What of privacy a policy says nothing of; and δ, which is compared as it is."""
    privacy = experiment.privacy
    if policy.max_epsilon is None:
        yield "max_epsilon", "it allows no ε"
    if not isinstance(privacy, Private):
        return
    if policy.max_delta is None:
        yield "max_delta", "it allows no δ"
    elif privacy.delta > policy.max_delta:
        yield "max_delta", f"δ is {privacy.delta:g}, and at most {policy.max_delta:g} is allowed"
    if policy.min_noise_multiplier is None:
        yield "min_noise_multiplier", "it allows no noise multiplier"


def _privacy_faults(policy: SitePolicy, proposal: Proposal) -> Faults:
    privacy, release = proposal.plan.experiment.privacy, proposal.release
    if isinstance(policy.max_epsilon, int | float):
        found = run_epsilon(proposal.plan.experiment, release)
        if found is None:
            yield "max_epsilon", f"a run without a bound on ε is above {policy.max_epsilon:g}"
        elif found > policy.max_epsilon:
            said = _allowed(f"{found:.3g}", policy.max_epsilon, "at most {} is")
            yield "max_epsilon", f"ε would be {said}"
    if policy.min_noise_multiplier:
        least = min(privacy.noise_schedule) if isinstance(privacy, Private) else 0.0
        seeded = isinstance(privacy, Private) and privacy.noise == "seeded"
        noise = release.noise_multiplier * least if release and not seeded else 0.0
        if noise < policy.min_noise_multiplier:
            yield (
                "min_noise_multiplier",
                f"the noise multiplier would be {noise:.3g}, and at least "
                f"{policy.min_noise_multiplier:g} is asked for",
            )


def _sum_faults(policy: SitePolicy, experiment: Experiment) -> Faults:
    fewest = getattr(experiment.protection, "min_sites", 1)
    if policy.min_sites is None:
        yield "min_sites", "it allows no sum"
    elif fewest < policy.min_sites:
        yield (
            "min_sites",
            f"a sum may have {fewest} sites in it, and at least {policy.min_sites} are asked for",
        )
    corrupted = getattr(experiment.protection, "corrupted", None)
    if corrupted is not None and policy.min_corrupted is None:
        yield "min_corrupted", "it allows no assumption of how many sites collude"
    elif corrupted is not None and corrupted < (policy.min_corrupted or 0):
        yield (
            "min_corrupted",
            f"the protection holds where the share {corrupted:g} of the sites colludes, and at "
            f"least {policy.min_corrupted:g} is asked for",
        )
    if policy.max_megabytes is None:
        yield "max_megabytes", "it allows nothing to be sent"


def _work_faults(policy: SitePolicy, site: str, plan: RunPlan) -> Faults:
    """How much the site would compute in a round, and in how large a model."""
    experiment = plan.experiment
    # A plan that does not name the site is refused before anything is done by it.
    named = site == POOLED or site in plan.counts.sites
    cases = training_cases(plan.counts, site, plan.sites) if named else 0
    work = planned_work(experiment, cases)
    if policy.max_epochs is None or work.epochs > policy.max_epochs:
        times = _allowed(f"{work.epochs:g} times", policy.max_epochs)
        yield "max_epochs", f"a round draws each case {times}"
    if policy.max_steps is None or work.steps > policy.max_steps:
        steps = _allowed(f"{work.steps} optimiser steps", policy.max_steps)
        yield "max_steps", f"a round has {steps}"
    values = planned_layout(experiment).size
    if policy.max_model_values is None or values > policy.max_model_values:
        said = _allowed(f"{values} values", policy.max_model_values)
        yield "max_model_values", f"the model has {said}"


def refuse_to_send(policy: Policy, site: str, total: int) -> None:
    """Refuse to send more in a run than a site's policy allows; ``total`` is in bytes.

    Raises:
        RefusalError: it is more.
    """
    most = policy.settings.max_megabytes
    if most is None or total > most * 1e6:
        raise RefusalError(
            f"{site} sends nothing more in this run: it would be {total / 1e6:.6g} MB in all, and "
            f"at most {most or 0:g} MB are allowed, by {policy.by('max_megabytes')}."
        )


def refuse_beyond_epsilon(
    policy: Policy, site: str, releases: Iterable[Release], delta: float
) -> None:
    """Refuse a release with which a run would have a larger ε at a site than its policy allows.

    A round that is begun anew from another state is another release, so that what was planned is
    not yet what is spent.

    Args:
        policy: the site's policy.
        site: the site.
        releases: all that it has released in the run, and the one that is asked for.
        delta: the δ of the run.

    Raises:
        RefusalError: it would. What ε would be is nothing for others, and is in ``kept``.
    """
    most = policy.settings.max_epsilon
    if most == "unbounded":
        return
    found = epsilon(releases, delta, "rdp")
    if most is None or found > most * (1 + ROUNDING):
        raise RefusalError(
            f"{site} releases nothing more in this run: with all that it has released in it ε "
            f"would be larger than is allowed, by {policy.by('max_epsilon')}.",
            f"With this release ε of the run would be {found:.3g}; {most or 0:g} is allowed.",
        )


def run_epsilon(experiment: Experiment, release: Release | None) -> float | None:
    """The ε that a run of an experiment has at a site by the site's own arithmetic.

    ``release`` is what it releases in a round; the result is ``None`` where there is no bound.
    """
    privacy = experiment.privacy
    if not isinstance(privacy, Private) or release is None or privacy.noise == "seeded":
        return None
    numbers = range(1, experiment.rounds + 1)
    releases = (privacy.of_round(release, number, experiment.rounds) for number in numbers)
    return epsilon(releases, privacy.delta, "rdp")
