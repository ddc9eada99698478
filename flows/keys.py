"""Making, showing, replacing and erasing the keys of runs, for the command line."""

from collections.abc import Iterator
from pathlib import Path

from federated.errors import ConsiliumError
from federated.files import read_json
from federated.protection.keys import (
    PUBLIC_FILE,
    erase_keys,
    key_folder,
    key_folders,
    new_key,
)
from federated.run.folder import RunFolder
from federated.run.runs import reopen_run
from federated.run.update_files import read_layout
from federated.secrets.home import refuse_shared
from federated.stages.keys import key_parameters


def make_key(runs: Path, experiment: str, run_id: str, *, replace: bool) -> list[str]:
    """Make the key with which a run that was stopped goes on; return what to tell a person.

    Raises:
        ConsiliumError: there is no such run, it needs no key, has one already, or has none to
            replace.
    """
    run, resolved = reopen_run(runs, experiment, run_id, None)
    parameters = key_parameters(resolved, read_layout(_begun(run)))
    folder = key_folder(resolved.name, run.run_id, parameters)
    refuse_shared(run.root.parent.parent, folder)
    if replace and not folder.exists():
        raise ConsiliumError(
            f"Run {run.run_id} has no key to replace in {folder}: it has ended and its key is "
            "erased, or it never had one. Resuming it makes one, or `consilium keys new "
            f"{experiment}`."
        )
    public = new_key(resolved.name, run.run_id, parameters, replace=replace)
    return [
        f"key {public.fingerprint} ({parameters.scheme.name}: {parameters.describe()}) in {folder}",
        "Copy the folder to the other sites, and never to the coordinator: who has it can decrypt "
        "every site's updates of this run.",
    ]


def key_lines(experiment: str) -> Iterator[str]:
    """Lines with what is known of the keys of an experiment's runs, without the secrets."""
    folders = key_folders(experiment)
    if not folders:
        yield f"no key for {experiment}: a run makes its own, and erases it when it has ended"
    for folder in folders:
        public = read_json(folder / PUBLIC_FILE)
        scheme = public["parameters"]["scheme"]
        run_id, made = folder.parent.name, public["made"][:19]
        yield f"{public['fingerprint']}  {scheme}  run {run_id}  made {made}  {folder}"


def forget_keys(experiment: str, run_id: str) -> str:
    """Erase the keys of a run at this site; return what to tell a person."""
    count = erase_keys(experiment, run_id)
    if not count:
        return f"no key of run {run_id} of {experiment} is here"
    return f"erased {count} of run {run_id} of {experiment}; resuming the run makes another"


def _begun(run: RunFolder) -> Path:
    path = run.state_path(run.done_rounds())
    if not path.is_file():
        raise ConsiliumError(
            f"Run {run.run_id} has not begun: what its sites send is not known yet. Resume it, "
            f"which makes its key: consilium resume {run.root.parent.name} {run.run_id}"
        )
    return path
