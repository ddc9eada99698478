"""keys: the sites' key of a run, made before its first round and erased at its end.

One site makes it, which is the first by the plan, and tells everyone its public half in a signed
message. The others have the secret half from that site, by a way on which no coordinator is.
"""

import json
from functools import lru_cache

from federated.configuration.experiment import Experiment
from federated.errors import ConsiliumError
from federated.exchange import kinds
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
from federated.run.update_files import read_layout
from federated.stages.site import Site, SiteCall, open_site
from federated.update import Layout
from federated.weights.bounded_file import Content
from federated.weights.planned import most_state


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
    return protection.parameters(sent_length(experiment, layout), experiment.largest_cohort())


def prepare_key(call: SiteCall, done: int) -> PublicContext:
    """Take the run's key at a site, or make it; tell everyone its public half, and return that.

    A run that goes on has the key that it had, unless that is lost or made for other rounds.
    ``done`` is the last round that is done.

    Raises:
        ConsiliumError: the folder of the keys is not usable.
    """
    site = open_site(call)
    experiment, run_id = site.run.experiment, site.run.run_id
    state = site.from_coordinator(site.topic(done), kinds.STATE, most_state(experiment))
    layout = read_layout(Content(state.body, "of the coordinator's state"), done)
    parameters = key_parameters(experiment, layout)
    place = key_folder(experiment.name, run_id, parameters)
    if (place / "context.json").is_file():
        public = read_public(place)
    else:
        public = new_key(experiment.name, run_id, parameters)
    site.to_all(site.topic(0), kinds.KEY, json.dumps(public.to_json()).encode())
    return public


def erase_key(call: SiteCall) -> None:
    """Remove a run's key at a site once the run has ended, from this process's memory as well."""
    site = open_site(call)
    _secret.cache_clear()
    erase_keys(site.run.experiment.name, site.run.run_id)


@lru_cache(maxsize=1)
def _secret(experiment: str, run_id: str, public: PublicContext) -> SecretContext:
    return read_secret(experiment, run_id, public)


def site_key(site: Site) -> SecretContext | None:
    """The secret half of the run's key, at a site; ``None`` where its protection has no key.

    Raises:
        ConsiliumError: nobody has told of a key, or the key is missing, readable by others,
            damaged, or not the run's.
    """
    experiment = site.run.experiment
    if not experiment.protection.keyed:
        return None
    maker = site.run.sites[0]
    message = site.mailbox.receive(site.topic(0), kinds.KEY, maker, kinds.MOST_SMALL)
    return _secret(experiment.name, site.run.run_id, told_context(message.body, maker))


def told_context(content: bytes, maker: str) -> PublicContext:
    """The public half of a key, as a site has told it.

    Raises:
        ConsiliumError: it is none.
    """
    try:
        return PublicContext.from_json(json.loads(content))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConsiliumError(
            f"What {maker} tells of the run's key is none ({error!r:.100}). Resume the run; the "
            "site tells it again."
        ) from error
