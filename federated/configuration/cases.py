"""The cases of an experiment's sites, as their scanners show them."""

from typing import TYPE_CHECKING

from federated.configuration.experiment import Experiment
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset
from federated.data.site_cases import Shown, SiteCases

if TYPE_CHECKING:
    from federated.data.folders.segmented_cases import Kept


def experiment_cases(
    experiment: Experiment, dataset: AnyDataset, partition: Partition, kept: "Kept | None" = None
) -> SiteCases:
    """The cases of ``partition``, with a scanner at each site where the experiment has them.

    ``kept`` is where prepared cases are kept, if other cases are kept there too.
    """
    shift = experiment.sites.scanner_shift
    shown = Shown(experiment.seed, releases_records(experiment)) if shift else None
    return SiteCases(dataset, partition, shown, kept)


def releases_records(experiment: Experiment) -> bool:
    """Whether something is released that is private with a record as the unit.

    A scanner's noise in an image then depends on the image's own record, so that one case more or
    less changes no other's. Otherwise it depends on a case's place or name.
    """
    told = experiment.strategy.introduction()
    noised = told is not None and told.noise is not None
    return experiment.privacy.unit == "record" or noised
