"""Making, showing and replacing the sites' keys, for the command line."""

from collections.abc import Iterator

from federated.configuration.experiment import Experiment
from federated.data.medmnist import dataset_info
from federated.errors import ConsiliumError
from federated.exchange import key_parameters
from federated.files import read_json
from federated.protection.keys import PUBLIC_FILE, key_folder, key_folders, new_key
from federated.update import Layout
from federated.worker import new_model


def make_key(experiment: Experiment, *, replace: bool) -> list[str]:
    """Make the key that an experiment needs; return what to tell a person.

    Raises:
        ConsiliumError: it needs none, has one already, or has none to replace.
    """
    model = new_model(experiment, dataset_info(experiment.data.dataset))
    parameters = key_parameters(experiment, Layout.of(model, experiment.strategy.personal(model)))
    folder = key_folder(experiment.name, parameters)
    if replace and not folder.exists():
        raise ConsiliumError(
            f"There is no key to replace in {folder}. Make one with "
            f"`consilium keys new {experiment.name}` and the same settings."
        )
    public = new_key(experiment.name, parameters, replace=replace)
    return [
        f"key {public.fingerprint} ({parameters.scheme}: {parameters.describe()}) in {folder}",
        "Copy the folder to the other sites, and never to the coordinator: who has it can decrypt "
        "every site's updates.",
    ]


def key_lines(experiment: str) -> Iterator[str]:
    """What is known of an experiment's keys, without the secret."""
    folders = key_folders(experiment)
    if not folders:
        yield f"no key for {experiment}; a run makes one, or `consilium keys new {experiment}`"
    for folder in folders:
        public = read_json(folder / PUBLIC_FILE)
        scheme = public["parameters"]["scheme"]
        yield f"{public['fingerprint']}  {scheme}  made {public['made'][:19]}  {folder}"
