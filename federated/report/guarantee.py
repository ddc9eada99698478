"""What a guarantee of differential privacy means and what it rests on, in sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

NO_PRIVACY = (
    "There is no differential privacy in this run.",
    "Nothing bounds how much the model, or what sites sent, tells of a single training case.",
    "The ledger of each site has the run as a release without a bound.",
)


@dataclass(frozen=True)
class Guarantee:
    """A guarantee in sentences, whose numbers may be elements of a page.

    Attributes:
        warning: what a reader has to know before anything else; ``""`` where there is nothing.
        opening: the guarantee itself, or that nobody can state one.
        question: what an attacker wonders, and sees; it ends with a colon.
        bounds: how the answer is bounded; empty where nobody can state a guarantee.
        notes: what these bounds leave open.
        rests_on: what has to hold for it.
    """

    warning: str
    opening: Markup | str
    question: str
    bounds: Sequence[Markup]
    notes: Sequence[str]
    rests_on: Sequence[str]


def guarantee_of(part: Mapping[str, Any]) -> Guarantee:
    """The sentences of what :func:`federated.report.privacy_part.privacy_part` has found.

    Args:
        part: its values: the unit, ε, δ, the accountant, and what they mean.
    """
    thing, known = part["thing"], part["known"]
    warning = (
        "The noise of this run follows its seed, so it protects nobody." if part["seeded"] else ""
    )
    seen = (
        "the sums of the run over all sites, and of no site what it sent by itself"
        if part["in_sum"]
        else "all that its site sent in this run"
    )
    return Guarantee(
        warning,
        _opening(part) if known else "Nobody can state an ε for this run.",
        f"Somebody wonders whether one {thing} was part of the training, and sees {seen}. Whatever "
        "they knew before:",
        _bounds(part) if known else (),
        _notes(part) if known else (),
        _rests_on(part),
    )


def _opening(part: Mapping[str, Any]) -> Markup:
    whose = "training cases are" if part["unit"] == "record" else "taking part is"
    return Markup(
        "Each site's {} protected by (ε, δ)-differential privacy with ε = {} and δ = {}, for each "
        "{}, composed over all rounds of this run (accountant: {}). By the usual tiers (Ponomareva "
        "et al. 2023) that is {}."
    ).format(
        whose, part["epsilon"], part["delta"], part["thing"], part["accountant"], part["grade"]
    )


def _bounds(part: Mapping[str, Any]) -> Sequence[Markup]:
    return (
        Markup(
            "the odds that they give to it change by a factor of at most e<sup>ε</sup> {}, but for "
            "a chance in the order of δ, one in {}, that this bound fails;"
        ).format(part["odds"], part["odds_of_delta"]),
        Markup(
            "a test that wrongly accuses 1 % of those that were not there recognises at most {} of "
            "those that were;"
        ).format(part["recognised"]),
        Markup(
            "a guess between “was there” and “was not”, equally likely before, is right in at most "
            "{} of cases."
        ).format(part["guess"]),
    )


def _notes(part: Mapping[str, Any]) -> Sequence[str]:
    loose = (
        "The last two are nearly 100 %: an ε of this size by itself rules out little. It still "
        f"limits how much a single {part['thing']} can change the model, which in practice stops "
        "most known attacks, but that is experience and no proof."
    )
    bounds = (
        "These are bounds on the best possible attack; known attacks do less. They say nothing of "
        "what the model tells about people in general, which it can learn without any one of them."
    )
    return [loose, bounds] if part["loose"] else [bounds]


def _rests_on(part: Mapping[str, Any]) -> Sequence[str]:
    lines = [
        "Each site runs the code that it says it runs: noise and sampling are its own work, and no "
        "other party can check them.",
        "Noise follows the seed of this run: whoever knows it can take it away again, and nothing "
        "holds."
        if part["seeded"]
        else "Noise comes from a secret that is new in every release and is kept nowhere.",
        "The numbers of training cases are public. Validation and test cases are not covered.",
    ]
    if part["unit"] == "site":
        lines.append(
            "A site is protected as a whole: whether it took part, or its update was zero. A "
            "single patient is protected in so far as all of the site are."
        )
    if part["in_sum"]:
        lines.append(
            "Each site adds a share of the noise. It holds in the sum alone, while nobody opens "
            "what a single site sends (which is the protection's part, see above) and at most "
            f"{part['missing'] or 0} shares of the noise are missing."
        )
    lines.append("The arithmetic is taken to be that of real numbers; computers round.")
    return lines
