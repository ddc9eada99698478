"""What statistics say for harmonisation: the standard scale, and the model of derived features."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from federated.errors import ConsiliumError
from federated.planning.feature_sums import pooled_model
from federated.planning.fingerprint import Fingerprint
from federated.planning.landmarks import standard_of


def harmonisation_of(
    found: Fingerprint, modalities: Sequence[str], least: int = 0
) -> dict[str, Any]:
    """The standard scale and the model of features, as plain values, or why there is none.

    Args:
        found: what was summed over all sites.
        modalities: the names of the images of a case.
        least: with fewer cases nothing is told; 0 tells all.

    Returns:
        ``landmarks`` with the ``standard`` that an experiment's ``data.landmarks`` takes, and
        ``features``, each
        where it was summed; or with why no use can be made of it, as ``refused``.
    """
    result: dict[str, Any] = {}
    scheme = found.scheme
    few = {"refused": f"There are fewer than {least} cases, and nothing is told of them."}
    if scheme.landmarks:
        sums = found.counts["landmarks"]
        result["landmarks"] = (
            few if found.cases < least else _or_why(lambda: _standards(found, sums, modalities))
        )
    if scheme.features is not None:
        result["features"] = few if found.cases < least else _or_why(lambda: _model(found))
    return result


def harmonisation_lines(value: Mapping[str, Any]) -> Iterator[str]:
    """The same for people, in Markdown; nothing where nothing was summed."""
    if "landmarks" in value:
        yield "## Standard scale of intensities"
        yield ""
        if refused := value["landmarks"].get("refused"):
            yield str(refused)
        else:
            yield "For an experiment that is to harmonise the images of all sites:"
            yield ""
            yield "```yaml"
            yield settings_line(value["landmarks"]["standard"])
            yield "```"
        yield ""
    if "features" in value:
        yield "## Derived features"
        yield ""
        yield value["features"].get("refused") or (
            f"ComBat over {value['features']['cases']} cases. Each site has its own features, "
            "without what it adds to them, in `features.csv` of this run in its home."
        )
        yield ""


def settings_line(landmarks: Mapping[str, Any]) -> str:
    """The line of an experiment in params.yaml that uses a standard scale."""
    return f"data: {{harmonise: nyul, landmarks: {json.dumps(landmarks)}}}"


def _standards(found: Fingerprint, sums: Any, modalities: Sequence[str]) -> dict[str, Any]:
    standards = map(list, standard_of(sums, found.cases))
    return {"standard": dict(zip(modalities, standards, strict=True))}


def _model(found: Fingerprint) -> dict[str, Any]:
    scheme = found.scheme.features
    assert scheme is not None
    model = pooled_model(scheme, found.counts["features"])
    return {
        "cases": model.cases,
        "columns": {name: list(ends) for name, ends in scheme.features},
        "covariates": {name: list(ends) for name, ends in scheme.covariates},
        "grand_mean": model.grand_mean.tolist(),
        "effects": model.effects.tolist(),
        "variance": model.variance.tolist(),
    }


def _or_why(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is made, or the reason why it cannot be, so that all else is told all the same."""
    try:
        return make()
    except ConsiliumError as error:
        return {"refused": str(error)}
