"""What a run's folder has of the sites' key."""

from federated.configuration.experiment import Experiment
from federated.files import read_json
from federated.protection.keys import PublicContext
from federated.run.folder import RunFolder


def public_context(folder: RunFolder, experiment: Experiment) -> PublicContext | None:
    """The context of the run's key, where its protection has one."""
    if not experiment.protection.keyed:
        return None
    return PublicContext.from_json(read_json(folder.context_path))
