"""What a run's folder has of the sites' key."""

from federated.configuration.experiment import Experiment
from federated.errors import ConsiliumError, why_unreadable
from federated.files import read_json
from federated.protection.keys import PublicContext
from federated.run.folder import RunFolder


def public_context(folder: RunFolder, experiment: Experiment) -> PublicContext | None:
    """The context of the run's key; ``None`` where its protection has no key.

    Raises:
        ConsiliumError: the context cannot be read.
    """
    if not experiment.protection.keyed:
        return None
    try:
        return PublicContext.from_json(read_json(folder.context_path))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConsiliumError(
            f"What the coordinator has of the sites' key, {folder.context_path}, cannot be read "
            f"({why_unreadable(error)}). Put the file back, or resume the run at a site that may "
            "make a key."
        ) from error
