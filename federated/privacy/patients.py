"""Cases and people: the unit of record-level privacy is a case, and a patient may have several."""

from collections import Counter
from collections.abc import Sequence
from math import isinf

from federated.privacy import Private
from federated.privacy.accounting import Release, epsilon
from federated.privacy.spending import Kind


def most_of_one(patients: Sequence[str] | None) -> int | None:
    """The largest number of cases of one patient; ``None`` where nobody knows whose they are."""
    return None if patients is None else max(Counter(patients).values(), default=0)


def patient_epsilon(privacy: Private, planned: Sequence[Release], cases: int) -> float:
    """The ε, by RDP, of all ``planned`` rounds for a patient who has so many cases.

    It is an upper bound for record-level privacy, by
    :meth:`federated.privacy.spending.Kind.for_unit`.
    """
    found = []
    for release in planned:
        kind = Kind(privacy.mechanism, "record", release.noise_multiplier, release.sampling_rate)
        counted = kind.for_unit("record", cases)
        if counted is None:
            return float("inf")
        found.append(Release(counted.noise_multiplier, counted.sampling_rate, release.steps))
    return epsilon(found, privacy.delta, "rdp")


def patient_warnings(
    privacy: Private, site: str, planned: Sequence[Release], patients: Sequence[str] | None
) -> list[str]:
    """What a person should know of the patients behind a site's training cases.

    The largest number of cases of one patient is told, and is taken to be public, as the number of
    cases is.

    Args:
        privacy: the experiment's.
        site: the name of the site.
        planned: what each round releases.
        patients: whose each case is, or ``None`` where nobody knows.
    """
    if privacy.unit != "record":
        return []
    most = most_of_one(patients)
    if most is None:
        return [
            "the unit of privacy is a case; the data set does not say which cases are of one "
            "patient, so no epsilon can be stated for a patient, and it is larger for whoever has "
            "several"
        ]
    if most <= 1:
        return []
    value = patient_epsilon(privacy, planned, most)
    said = "without bound" if isinf(value) else f"{value:.3g}"
    return [
        f"the unit of privacy is a case, and {site} has up to {most} training cases of one "
        f"patient, for whom epsilon is {said} at delta={privacy.delta:g} over all rounds (rdp)"
    ]
