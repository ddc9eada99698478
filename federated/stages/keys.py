"""keys: the sites' key of a run, made before its first round and erased at its end."""

from functools import lru_cache
from pathlib import Path

from federated.configuration.experiment import Experiment
from federated.errors import ConsiliumError
from federated.protection import Protection
from federated.protection.keys import (
    PublicContext,
    SecretContext,
    erase_keys,
    key_folder,
    new_key,
    read_public,
    read_secret,
)
from federated.protection.parameters import Parameters
from federated.rounds.context import sent_length
from federated.run.folder import RunFolder
from federated.run.key import public_context
from federated.run.update_files import read_layout
from federated.secrets.home import refuse_shared
from federated.update import Layout


def key_parameters(experiment: Experiment, layout: Layout) -> Parameters:
    """The parameters of the key that fits what an experiment's sites send.

    Raises:
        ConsiliumError: the protection has no key, or no head room.
    """
    protection: Protection = experiment.protection
    if not protection.keyed:
        raise ConsiliumError(
            f"Experiment {experiment.name} has protection.name={protection.name}, which has no "
            "key. Set protection.name=packed_bfv or ckks."
        )
    return protection.parameters(sent_length(experiment, layout), experiment.cohort())


def prepare_key(run: Path) -> PublicContext:
    """Take the run's key at a site, or make it; return what the coordinator may have.

    A run that goes on has the key that it had, unless that is lost or made for other rounds.

    Raises:
        ConsiliumError: the folder of the keys is inside the run's, or not usable.
    """
    folder = RunFolder(run)
    experiment = folder.experiment()
    layout = read_layout(folder.state_path(folder.done_rounds()))
    parameters = key_parameters(experiment, layout)
    place = key_folder(experiment.name, folder.run_id, parameters)
    refuse_shared(folder.root.parent.parent, place)
    if (place / "context.json").is_file():
        return read_public(place)
    return new_key(experiment.name, folder.run_id, parameters)


def erase_key(run: Path) -> None:
    """Remove a run's key at a site once the run has ended, from this process's memory as well."""
    folder = RunFolder(run)
    _secret.cache_clear()
    erase_keys(folder.experiment().name, folder.run_id)


@lru_cache(maxsize=1)
def _secret(experiment: str, run_id: str, public: PublicContext) -> SecretContext:
    return read_secret(experiment, run_id, public)


def site_key(folder: RunFolder, experiment: Experiment) -> SecretContext | None:
    """The secret half of the run's key, at a site; ``None`` where its protection has no key.

    Raises:
        ConsiliumError: the key is missing, readable by others, damaged, or not the run's.
    """
    public = public_context(folder, experiment)
    if public is None:
        return None
    return _secret(experiment.name, folder.run_id, public)
