"""download and partition: from an experiment's settings to the cases of each site."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from federated.configuration.experiment import Experiment
from federated.data.dataset import LocatedFile
from federated.data.load import load, locate
from federated.data.partition import Partition
from federated.data.partitioning import AnyDataset, partition_dataset
from federated.run.prepared import PreparedFolder


@task(name="download", task_run_name="download {experiment.data.dataset}", cache_policy=NO_CACHE)
def download(experiment: Experiment) -> LocatedFile:
    """Find, download or generate the data file or folder.

    Raises:
        ConsiliumError: the data cannot be had, or are not what they should be.
    """
    return locate(experiment.data)


@task(name="keep", task_run_name="keep {data.path.name}", cache_policy=NO_CACHE)
def keep(data: LocatedFile, folder: PreparedFolder) -> LocatedFile:
    """Keep the data in the prepared folder."""
    return folder.store_dataset(data)


@task(name="read", task_run_name="read {experiment.data.dataset}", cache_policy=NO_CACHE)
def read(experiment: Experiment, data: LocatedFile) -> AnyDataset:
    """Read the data file and check it against the set's schema; or list a folder."""
    return load(data, experiment.data)


@task(
    name="partition",
    task_run_name="partition {experiment.sites.partition} over {experiment.sites.count} sites",
    cache_policy=NO_CACHE,
)
def partition(experiment: Experiment, dataset: AnyDataset) -> Partition:
    """Deal the cases to the sites."""
    return partition_dataset(dataset, experiment.sites, experiment.seed)
