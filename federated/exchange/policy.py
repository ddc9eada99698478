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
from federated.rounds.participation import POOLED
from federated.settings.base import Settings

# What a site shares of the evaluation of its cases, from least to most.
Share = Literal["metrics", "statistics", "predictions"]
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
        max_rounds: how many rounds a run may have.
        max_megabytes: how much the site sends in a run, in 10^6 bytes.
        evaluation: the most that is told of the site's validation and test cases.
        pictures: whether pictures of test cases may leave the site.
        styles: whether a description of how its images look may leave the site.
        own_model: whether a model of the site's own may be handed to the coordinator at the end.
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
    max_rounds: Annotated[int, Field(ge=0)] | None = None
    max_megabytes: Annotated[float, Field(ge=0)] | None = None
    evaluation: Share | Literal["nothing"] = "nothing"
    pictures: Literal["allowed", "refused"] = "refused"
    styles: Literal["allowed", "refused"] = "refused"
    own_model: Literal["allowed", "refused"] = "refused"
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
max_rounds: 1000000000
max_megabytes: 1000000000000
evaluation: predictions
pictures: allowed
styles: allowed
own_model: allowed
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
    faults = _faults(policy.settings, site, proposal)
    reasons = [f"{what}, by {policy.by(key)}" for key, what in faults]
    if reasons:
        raise RefusalError(
            f"{site} does not take part in a run of {proposal.plan.experiment.name}: "
            f"{'; '.join(reasons)}."
        )


def _faults(policy: SitePolicy, site: str, proposal: Proposal) -> Iterator[tuple[str, str]]:
    """The key of the policy, and what of the proposal it does not allow."""
    experiment = proposal.plan.experiment
    named: dict[str, str] = {
        "datasets": experiment.data.dataset,
        "experiments": experiment.name,
        "protections": experiment.protection.name,
        "privacies": experiment.privacy.name,
    }
    for key, value in named.items():
        allowed = getattr(policy, key)
        if allowed != ANY and value not in allowed:
            yield key, f"it does not allow {value}"
    yield from _strangers(policy, site, proposal)
    yield from _privacy_faults(policy, proposal)
    yield from _size_faults(policy, proposal)
    order = ("nothing", *get_args(Share))
    share = experiment.evaluation.share
    if order.index(share) > order.index(policy.evaluation):
        yield "evaluation", f"it allows {policy.evaluation}, and {share} is asked for"
    if experiment.sites.overlays and policy.pictures == "refused":
        yield "pictures", "pictures of test cases do not leave the site"
    if experiment.strategy.introduction() is not None and policy.styles == "refused":
        yield "styles", "a description of its images does not leave the site"
    if policy.code == "same" and proposal.plan.code != proposal.code:
        yield "code", "the coordinator runs another version of the program"


def _strangers(policy: SitePolicy, site: str, proposal: Proposal) -> Iterator[tuple[str, str]]:
    for name, who in proposal.plan.participants.items():
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


def _privacy_faults(policy: SitePolicy, proposal: Proposal) -> Iterator[tuple[str, str]]:
    privacy, release = proposal.plan.experiment.privacy, proposal.release
    if policy.max_epsilon is None:
        yield "max_epsilon", "it allows no ε"
    elif policy.max_epsilon != "unbounded":
        found = run_epsilon(proposal.plan.experiment, release)
        if found is None:
            yield "max_epsilon", f"a run without a bound on ε is above {policy.max_epsilon:g}"
        elif found > policy.max_epsilon:
            yield "max_epsilon", f"ε would be {found:.3g}, and at most {policy.max_epsilon:g} is"
    if isinstance(privacy, Private) and policy.max_delta is None:
        yield "max_delta", "it allows no δ"
    elif isinstance(privacy, Private) and privacy.delta > (policy.max_delta or 0):
        yield "max_delta", f"δ is {privacy.delta:g}, and at most {policy.max_delta:g} is allowed"
    if policy.min_noise_multiplier is None:
        if isinstance(privacy, Private):
            yield "min_noise_multiplier", "it allows no noise multiplier"
    elif policy.min_noise_multiplier > 0:
        least = min(privacy.noise_schedule) if isinstance(privacy, Private) else 0.0
        seeded = isinstance(privacy, Private) and privacy.noise == "seeded"
        noise = release.noise_multiplier * least if release and not seeded else 0.0
        if noise < policy.min_noise_multiplier:
            yield (
                "min_noise_multiplier",
                f"the noise multiplier would be {noise:.3g}, and at least "
                f"{policy.min_noise_multiplier:g} is asked for",
            )


def _size_faults(policy: SitePolicy, proposal: Proposal) -> Iterator[tuple[str, str]]:
    experiment = proposal.plan.experiment
    fewest = getattr(experiment.protection, "min_sites", 1)
    if policy.min_sites is None:
        yield "min_sites", "it allows no sum"
    elif fewest < policy.min_sites:
        yield (
            "min_sites",
            f"a sum may have {fewest} sites in it, and at least {policy.min_sites} are asked for",
        )
    if policy.max_rounds is None or experiment.rounds > policy.max_rounds:
        yield "max_rounds", f"it has {experiment.rounds} rounds"
    if policy.max_megabytes is None:
        yield "max_megabytes", "it allows nothing to be sent"


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
