"""An experiment with numbers in place of `auto`: planned from what all sites have counted."""

from dataclasses import replace
from typing import Any

from federated.configuration.compatibility import DESCRIBED, LANDMARKS
from federated.configuration.experiment import Experiment
from federated.configuration.load import resolve
from federated.data.family_of import family_of
from federated.data.folders.described.family import described_family
from federated.data.folders.families import Family
from federated.errors import ConsiliumError
from federated.planning.described import settled_by
from federated.planning.fingerprint import Fingerprint
from federated.planning.landmarks import standard_of
from federated.planning.nnunet_planner import plan_by_nnunet
from federated.planning.plan import Limits, Plan, plan
from federated.planning.topology import Topology, plan_topology
from federated.settings.networks import NNUNet

GIGABYTE = 10**9
# The memory for features where the network has no such setting of its own.
MEMORY_GB = 4.0


def planned_experiment(
    experiment: Experiment, found: Fingerprint
) -> tuple[Experiment, Plan | None]:
    """The experiment with the plan that follows from the cases of all sites.

    Args:
        experiment: one whose ``planning.auto`` says what is to be planned; all else stays.
        found: what was counted of its sites' training cases.

    Returns:
        The experiment, of which nothing is `auto` any more, and the plan that it has; ``None``
        where the description of its data alone was to be settled.

    Raises:
        ConsiliumError: nothing was counted, not even two of the smallest patches fit into the
            memory, the sums of landmarks are no scale, or what is planned does not go together with
            what is stated.
    """
    if not found.cases:
        raise ConsiliumError(
            "No case was counted at any site, so there is nothing to plan by. Check the sites' "
            "data with `consilium data check`."
        )
    auto = experiment.planning.auto
    own = tuple(key.rpartition(".")[2] for key in auto if key in DESCRIBED)
    value = experiment.to_json()
    described = experiment.data.described
    if described is not None and own:
        described = settled_by(described, own, found)
        value["data"]["described"] = described.model_dump(mode="json")
        data = experiment.data.model_copy(update={"described": described})
        experiment = experiment.model_copy(update={"data": data})
    if LANDMARKS in auto:
        value["data"]["landmarks"] = _standards(experiment, found)
    network = set(auto) - {*DESCRIBED, LANDMARKS}
    made = _with_network(experiment, found, value) if network else None
    value.pop("planning", None)
    return resolve(value.pop("name"), value, "the plan of its sites' cases"), made


def _standards(experiment: Experiment, found: Fingerprint) -> dict[str, list[float]]:
    """The standard scale of each modality, as ``data.landmarks`` has them."""
    family = family_of(experiment.data.dataset, experiment.data.described)
    assert family is not None
    standards = standard_of(found.counts["landmarks"], found.cases)
    return dict(zip(family.modalities, map(list, standards), strict=True))


def _with_network(experiment: Experiment, found: Fingerprint, value: dict[str, Any]) -> Plan:
    """The plan of spacing, patch, batch and network, written into the values of an experiment."""
    auto, model = experiment.planning.auto, experiment.model
    family = family_of(experiment.data.dataset, experiment.data.described)
    assert family is not None
    seen = family.with_spacing(experiment.data.spacing).with_patch(experiment.data.patch)
    made = _plan(experiment, seen, found)
    if "model.levels" in auto and "data.patch" not in auto and isinstance(model, NNUNet):
        sides = made.spacing or (1.0,) * seen.dims
        topology, patch = plan_topology(seen.shape, sides, model.width)
        memory = topology.memory(patch, len(family.labels), made.batch_size)
        made = replace(made, patch=patch, topology=topology, memory=memory)
    if "data.spacing" in auto:
        value["data"]["spacing"] = list(made.spacing or ())
    if "data.patch" in auto or ("model.levels" in auto and made.patch != seen.shape):
        value["data"]["patch"] = list(made.patch)
    if "training.batch_size" in auto:
        value["training"]["batch_size"] = made.batch_size
    if "model.levels" in auto:
        value["model"]["levels"] = levels_of(made.topology)
    return made


def _plan(experiment: Experiment, family: Family, found: Fingerprint) -> Plan:
    model, stated = experiment.model, None
    if "data.spacing" not in experiment.planning.auto:
        stated = family.spacing
    ct = family.window is not None
    if not isinstance(model, NNUNet):
        return plan(found, Limits(round(MEMORY_GB * GIGABYTE), ct, spacing=stated))
    limits = Limits(round(model.memory_gb * GIGABYTE), ct, model.width, stated)
    return plan_by_nnunet(found, limits) if model.planner == "nnunet" else plan(found, limits)


def levels_of(topology: Topology) -> list[dict[str, Any]]:
    """The levels of a topology as ``model.levels`` has them, the finest first."""
    triples = zip(topology.features, topology.kernels, topology.strides, strict=True)
    return [
        {"features": features, "kernel": list(kernel), "stride": list(stride)}
        for features, kernel, stride in triples
    ]


def plan_line(experiment: Experiment, made: Plan | None, sites: int) -> str:
    """One sentence with what was planned, and what it was planned from.

    Args:
        experiment: with the plan.
        made: the plan, where there is one of a network.
        sites: how many sites have counted their cases.
    """
    data, model = experiment.data, experiment.model
    family = family_of(data.dataset, data.described)
    if family is None and data.described is not None:
        family = described_family(data.dataset, data.described)
    assert family is not None
    seen = family.with_spacing(data.spacing).with_patch(data.patch)
    low, high = family.window or (0, 0)
    scheme = f"window {low:g} to {high:g} HU" if family.window else "zscore"
    if data.harmonise != "none":
        scheme = f"standard scale ({data.harmonise})"
    parts = [
        *([f"spacing {_times(seen.spacing)} mm"] if seen.spacing else []),
        f"{'whole cases of' if seen.whole else 'patch'} {_times(seen.shape)}",
        f"batch {experiment.training.batch_size}",
        f"normalisation {scheme if seen.dims == 3 else 'unit'}",
    ]
    if isinstance(model, NNUNet) and model.levels != "auto":
        told = (f"{level.features} (/{_times(level.stride)})" for level in model.levels)
        parts.append(f"levels {', '.join(told)}")
    features = f"; about {made.memory / GIGABYTE:.2g} GB of features" if made else ""
    return f"planned from federated fingerprints of {sites} sites: {', '.join(parts)}{features}"


def _times(sides: Any) -> str:
    return "x".join(f"{side:g}" for side in sides)
