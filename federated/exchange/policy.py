"""What a site takes part in: its own policy, ``site-policy.yaml`` in its home.

A policy is closed by default: what it does not name is refused. Each refusal names the line of the
policy that it is by, or the key that the policy does not have.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationError

from federated.configuration.experiment import Experiment
from federated.configuration.explain import explain
from federated.configuration.yaml_text import UnclearYamlError, key_lines, parse_yaml
from federated.errors import ConsiliumError, RefusalError
from federated.exchange.identity import PublicIdentity
from federated.exchange.plan import RunPlan
from federated.privacy import Private
from federated.privacy.accounting import Release, epsilon
from federated.rounds.participation import POOLED, training_cases
from federated.rounds.planned_work import planned_work
from federated.rounds.statistics import Told, statistics_release, told_of
from federated.settings.base import Settings
from federated.settings.sections import Share
from federated.weights.planned import planned_layout

ANY = "any"
# The relative error of one ε that is computed in two ways.
ROUNDING = 1e-9


class SitePolicy(Settings):
    """What a site takes part in; a key that is left out allows nothing of its kind.

    Attributes:
        datasets: the data sets that may be trained on, or ``any``.
        experiments: the names of experiments, or ``any``.
        protections: the protections, one of which a run has to have; ``plain`` hides nothing.
        privacies: the kinds of privacy, one of which a run has to have; ``none`` is one of them.
        participants: the fingerprints of the other sites that may be in a run, or ``any``. Their
            keys come from the coordinator, which could be all of them with keys of its own.
        max_epsilon: the largest ε of a run at this site, by its own arithmetic; ``unbounded`` for
            any, and for none.
        max_delta: the largest δ that this ε may be for.
        min_noise_multiplier: the least noise multiplier of a release; noise that follows from the
            experiment's seed counts as none.
        min_sites: how many sites a sum has to have in it at least.
        min_corrupted: the least share of the sites that a sum of masked updates has to allow to
            collude with the coordinator (``protection.corrupted``), where a protection has that.
        max_rounds: how many rounds a run may have.
        max_epochs: how often a round may draw each of the site's cases, patches counted each.
        max_steps: how many optimiser steps a round may have at the site.
        max_model_values: how many values the model may have.
        max_megabytes: how much the site sends in a run, in 10^6 bytes.
        evaluation: the most that is told of the site's validation and test cases.
        min_count: the number of cases below which tables of counts have to be withheld
            (``evaluation.min_count``); 0 for any.
        pictures: whether pictures of test cases may leave the site.
        styles: whether a description of how its images look may leave the site.
        own_model: whether a model of the site's own may be handed to the coordinator at the end.
        statistics: the most that is told of the site's training cases for statistics and planning:
            ``noised`` counts, exact ``sums`` over sites that the protection hides, or its own
            counts in the ``clear``.
        heterogeneity: whether it is told how far the site's own statistics are from those of all.
        approval: whether a person has to approve each run.
        code: whether the coordinator has to run the same program.
    """

    datasets: tuple[str, ...] | Literal["any"] = ()
    experiments: tuple[str, ...] | Literal["any"] = ()
    protections: tuple[str, ...] | Literal["any"] = ()
    privacies: tuple[str, ...] | Literal["any"] = ()
    participants: tuple[str, ...] | Literal["any"] = ()
    max_epsilon: Annotated[float, Field(gt=0)] | Literal["unbounded"] | None = None
    max_delta: Annotated[float, Field(gt=0, le=1)] | None = None
    min_noise_multiplier: Annotated[float, Field(ge=0)] | None = None
    min_sites: Annotated[int, Field(ge=1)] | None = None
    min_corrupted: Annotated[float, Field(ge=0, lt=1)] | None = None
    max_rounds: Annotated[int, Field(ge=0)] | None = None
    max_epochs: Annotated[float, Field(ge=0)] | None = None
    max_steps: Annotated[int, Field(ge=0)] | None = None
    max_model_values: Annotated[int, Field(ge=0)] | None = None
    max_megabytes: Annotated[float, Field(ge=0)] | None = None
    evaluation: Share | Literal["nothing"] = "nothing"
    min_count: Annotated[int, Field(ge=0)] | None = None
    pictures: Literal["allowed", "refused"] = "refused"
    styles: Literal["allowed", "refused"] = "refused"
    own_model: Literal["allowed", "refused"] = "refused"
    statistics: Told | Literal["nothing"] = "nothing"
    heterogeneity: Literal["allowed", "refused"] = "refused"
    approval: Literal["required", "not-required"] = "required"
    code: Literal["same", "any"] = "same"


PERMISSIVE = """\
# What this simulated site takes part in: everything. A hospital's policy names less; what a policy
# does not name is refused.
datasets: any
experiments: any
protections: any
privacies: any
participants: any
max_epsilon: unbounded
max_delta: 1
min_noise_multiplier: 0
min_sites: 1
min_corrupted: 0
max_rounds: 1000000000
max_epochs: 1000000000000
max_steps: 1000000000000
max_model_values: 1000000000000
max_megabytes: 1000000000000
evaluation: predictions
min_count: 0
pictures: allowed
styles: allowed
own_model: allowed
statistics: clear
heterogeneity: allowed
approval: not-required
code: any
"""


@dataclass(frozen=True)
class Policy:
    """A site's policy with where it was read from, so that a refusal can name its line."""

    settings: SitePolicy
    path: Path
    lines: dict[str, int] = field(default_factory=dict)

    def by(self, key: str) -> str:
        """Which line of the policy says something, in words."""
        if key in self.lines:
            return f"line {self.lines[key]} of {self.path.name} ({key})"
        return f"{self.path.name}, which does not name {key}"


def read_policy(path: Path) -> Policy:
    """A site's policy from its file.

    Raises:
        ConsiliumError: the file is missing, is no YAML, or has an unknown key or an impossible
            value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConsiliumError(
            f"The site's policy {path} cannot be read ({error}). Without a policy a site takes "
            "part in nothing. Put the file back, or write one: docs/parties.md has its keys."
        ) from error
    return _parsed(text, path)


@lru_cache(maxsize=64)
def _parsed(text: str, path: Path) -> Policy:
    try:
        value = parse_yaml(text) or {}
        if not isinstance(value, dict):
            raise UnclearYamlError("it has no keys")
        return Policy(SitePolicy.model_validate(value), path, key_lines(text))
    except UnclearYamlError as error:
        raise ConsiliumError(f"The site's policy {path} is no YAML with keys: {error}.") from error
    except ValidationError as error:
        said = explain(error, SitePolicy.model_json_schema(), {})
        raise ConsiliumError(f"The site's policy {path} cannot be used. {said}") from error


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
        RefusalError: it would.
    """
    most = policy.settings.max_epsilon
    if most == "unbounded":
        return
    found = epsilon(releases, delta, "rdp")
    if most is None or found > most * (1 + ROUNDING):
        raise RefusalError(
            f"{site} releases nothing more in this run: with all that it has released in it ε "
            f"would be {found:.3g}, and at most {most or 0:g} is allowed, by "
            f"{policy.by('max_epsilon')}."
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
