"""Simulation: the homes of the sites of a run on one machine, and their enrolment.

A hospital makes its own home. Here the one who starts a run makes those of all sites, each with its
own cases, and enrols them; from then on coordinator and sites pass messages alone.
"""

from federated.data.dataset import LocatedFile
from federated.data.partition import Partition
from federated.exchange.enrolment import Enrolment
from federated.rounds.participation import POOLED
from federated.run.folder import RunFolder
from federated.site.simulated import make_home
from federated.stages.coordinator import coordinator_identity
from flows.prepare import Prepared


def enrol_simulated(folder: RunFolder, inputs: Prepared) -> Enrolment:
    """Make the homes of a run's sites and enrol them, and of who trains on all cases.

    Raises:
        ConsiliumError: a home is open to others, or cannot be written to.
    """
    return enrol_parts(folder, inputs.data, inputs.partition, folder.sites())


def enrol_parts(
    folder: RunFolder, data: LocatedFile, partition: Partition, sites: list[str]
) -> Enrolment:
    """Make the homes of ``sites``, each with its part of the data, and enrol them.

    Args:
        folder: the run's folder, below which the homes lie.
        data: the data of all of them.
        partition: which cases each site has.
        sites: the sites that take part.

    Raises:
        ConsiliumError: a home is open to others, or cannot be written to.
    """
    coordinator = coordinator_identity(folder).public
    holding = {site: {site: dict(partition.sites[site])} for site in sites}
    if folder.experiment().strategy.pools_cases:
        holding[POOLED] = {site: dict(partition.sites[site]) for site in sites}
    members = Enrolment().enrol(
        *(
            make_home(folder.home_path(name), folder.run_id, coordinator, data, parts)
            for name, parts in holding.items()
        )
    )
    members.write(folder.coordinator_path / "members.json")
    return members
