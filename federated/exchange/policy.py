"""What a site takes part in: its own policy, ``site-policy.yaml`` in its home.

A policy is closed by default: what it does not name is refused. Each refusal names the line of the
policy that it is by, or the key that the policy does not have.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from federated.configuration.explain import explain
from federated.configuration.yaml_text import UnclearYamlError, key_lines, parse_yaml
from federated.errors import ConsiliumError
from federated.settings.base import Settings
from federated.settings.sections import Share, Told

ANY = "any"


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
        calibration: whether it is told how well the model's probabilities fit the site's validation
            and test cases at a list of temperatures, and a threshold by the site's validation cases
            is kept with the model.
        subgroups: whether it is told how good the model is for groups of the site's test cases, by
            attributes of the patients as age and sex, and how many there are of each.
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
    calibration: Literal["allowed", "refused"] = "refused"
    subgroups: Literal["allowed", "refused"] = "refused"
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
calibration: allowed
subgroups: allowed
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
    try:
        settings, lines = _parsed(text)
    except UnclearYamlError as error:
        raise ConsiliumError(f"The site's policy {path} is no YAML with keys: {error}.") from error
    except ValidationError as error:
        said = explain(error, SitePolicy.model_json_schema(), {})
        raise ConsiliumError(f"The site's policy {path} cannot be used. {said}") from error
    return Policy(settings, path, lines)


# By the text alone: of many simulated sites each has a file of its own, with the same in it.
@lru_cache(maxsize=64)
def _parsed(text: str) -> tuple[SitePolicy, dict[str, int]]:
    """What the text of a policy says, and the line of each key.

    Raises:
        UnclearYamlError: it is no YAML, or has no keys.
        ValidationError: it has an unknown key or an impossible value.
    """
    value = parse_yaml(text) or {}
    if not isinstance(value, dict):
        raise UnclearYamlError("it has no keys")
    return SitePolicy.model_validate(value), key_lines(text)
