"""Showing and erasing the keys of runs that were stopped, for the command line."""

from collections.abc import Iterator
from pathlib import Path

from federated.run.runs import reopen_run
from federated.settings.names import refuse_name
from federated.site.home import SiteHome
from federated.site.key_store import KeyStore


def key_lines(runs: Path, experiment: str, home: SiteHome | None) -> Iterator[str]:
    """Lines with what is known of the keys of an experiment's runs, without the secrets.

    They are those that the simulated sites have, or those of all runs in one ``home``.

    Raises:
        ConsiliumError: what is known of a key cannot be read.
    """
    if home is None:
        folder = runs / refuse_name(experiment, "an experiment's name")
        places = folder.glob("*/sites/*/runs/*/key")
    else:
        places = home.root.glob("runs/*/key")
    # `latest` is a link to one of the runs.
    stores = {_store(place.resolve()) for place in places}
    lines = [line for store in sorted(stores, key=lambda s: s.place) if (line := _line(store))]
    if not lines:
        lines = [f"no key for {experiment}: a run makes its own, and erases it when it has ended"]
    yield from lines


def forget_keys(runs: Path, experiment: str, run_id: str, home: SiteHome | None) -> str:
    """Erase the key of a run at its simulated sites, or in one ``home``; return what to tell.

    Raises:
        ConsiliumError: there is no such run.
    """
    if home is None:
        folder, _ = reopen_run(runs, experiment, run_id, None)
        run_id = folder.run_id
        homes = [SiteHome(place) for place in sorted((folder.root / "sites").glob("[!.]*"))]
    else:
        homes = [home]
    count = sum(KeyStore.of(each, run_id).erase() for each in homes)
    if not count:
        return f"no key of run {run_id} of {experiment} is here"
    sites = "1 site" if count == 1 else f"{count} sites"
    return (
        f"erased the key of run {run_id} of {experiment} at {sites}; resuming the run makes "
        "another, or has it sealed anew by a site that still has it"
    )


def _store(place: Path) -> KeyStore:
    return KeyStore(place.parent, place.parent.parent.parent)


def _line(store: KeyStore) -> str | None:
    told = store.public()
    if told is None:
        return None
    scheme, made = told["parameters"]["scheme"], told["made"][:19]
    run_id = store.place.name
    return f"{told['fingerprint']}  {scheme}  run {run_id}  {store.home.name}  kept {made}"
