"""The beginning of a run: its data, its sites, and their answer to what is proposed to them.

On one machine the data are prepared here, and the sites are simulated. In a consortium both are
elsewhere: the coordinator knows of the data what the configuration says, and of the cases how many
each site says that it has.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass

from federated.configuration.compatibility import refuse
from federated.configuration.experiment import Experiment
from federated.data.dataset import DatasetInfo, DataSource, LocatedFile
from federated.data.load import known_info
from federated.data.partition import CaseCounts
from federated.errors import ConsiliumError
from federated.exchange.journal import JournalledExchange
from federated.exchange.mailbox import Mailbox
from federated.rounds.context import Purpose
from federated.run.coordinator_home import CoordinatorHome
from federated.run.folder import RunFolder
from federated.settings.sections import Parties
from federated.stages.asking import MOST_NAMES
from federated.stages.coordinator import Coordinator, propose, propose_by
from flows.prepare import Prepared
from flows.progress import begins, counted, tell
from flows.simulation import enrol_simulated
from flows.site_stages import call_site, quoted
from tasks.pool import leave
from tasks.take_part import agree


@dataclass(frozen=True)
class Beginning:
    """A run that its sites have agreed to.

    Attributes:
        coordinator: the coordinator, with the plan that it has signed.
        data: where the sites' data come from.
        info: of the data set.
        warnings: for each site, what a person should know of its privacy.
    """

    coordinator: Coordinator
    data: LocatedFile
    info: DatasetInfo
    warnings: Mapping[str, Sequence[str]]


def begin_simulated(
    folder: RunFolder, inputs: Prepared, pool: Executor, purpose: Purpose = "training"
) -> Beginning:
    """Make the homes of the sites below the run's folder, and have them take part in the run.

    Raises:
        ConsiliumError: a home cannot be made, or too few sites take part.
    """
    members = enrol_simulated(folder, inputs)
    proposed = propose(folder, members, folder.sites(), purpose)
    coordinator, warnings = _agreed(pool, proposed)
    return Beginning(coordinator, inputs.data, inputs.dataset.info, warnings)


def of_parties(experiment: Experiment) -> bool:
    """Whether the sites of an experiment are parties of their own, and not simulated ones."""
    return isinstance(experiment.runner, Parties)


def with_parties(experiment: Experiment) -> Experiment:
    """The experiment with as many sites as the consortium of this machine's coordinator has.

    A site that drops out never ends such a run: who is left has to be enough.

    Raises:
        ConsiliumError: there is no coordinator or no site, or they are too few for the experiment.
    """
    home = CoordinatorHome.default()
    home.identity()
    names = enrolled(home)
    if not names:
        raise ConsiliumError(
            f"No site is enrolled at the coordinator of {home.root}, so that runner.name=sites has "
            "nobody to train. Enrol one with `consilium sites enrol FILE`, with the file that "
            "`consilium site init` has written there."
        )
    if len(names) > MOST_NAMES:
        raise ConsiliumError(
            f"{len(names)} sites are enrolled at the coordinator of {home.root}, and a run with "
            f"runner.name=sites has at most {MOST_NAMES}: each is waited for on its own. Suspend "
            "those that are not to take part with `consilium sites suspend NAME`."
        )
    # Whether a round without some of its sites is one, is for runner.quorum to say.
    settings = {"count": len(names), "on_dropout": "continue"}
    sites = experiment.sites.model_copy(update=settings)
    changed = experiment.model_copy(update={"sites": sites})
    refuse(changed, f"a consortium of {len(names)} sites")
    return changed


def enrolled(home: CoordinatorHome) -> tuple[str, ...]:
    """The sites that are enrolled and not suspended, in order."""
    members = home.members()
    return tuple(name for name in sorted(members.members) if members.standing(name) == "enrolled")


def begin_parties(
    experiment: Experiment, folder: RunFolder, pool: Executor, purpose: Purpose = "training"
) -> Beginning:
    """Propose a run to the enrolled sites of a consortium, and have them take part in it.

    Raises:
        ConsiliumError: there is no coordinator, or too few sites take part.
    """
    home = CoordinatorHome.default()
    names, mailbox = enrolled(home), coordinator_mailbox(home)
    folder.write_configuration(experiment)
    proposed = propose_by(mailbox, folder, names, CaseCounts({}), purpose)
    tell(f"run {folder.run_id} is proposed to {', '.join(names)}")
    coordinator, warnings = _agreed(pool, proposed)
    data = folder.write_told(_source(coordinator), coordinator.run.counts)
    return Beginning(coordinator, data, known_info(experiment.data), warnings)


def coordinator_mailbox(home: CoordinatorHome) -> Mailbox:
    """The coordinator of a consortium as it sends and receives messages.

    Raises:
        ConsiliumError: there is no coordinator here, or its members cannot be read.
    """
    exchange = JournalledExchange(home.exchange_path)
    return Mailbox(home.identity(), home.members(), exchange, home.audit)


def _agreed(pool: Executor, proposed: Coordinator) -> tuple[Coordinator, dict[str, list[str]]]:
    calls = [call_site(proposed, site) for site in proposed.run.sites]
    begins(f"asking {counted(len(calls), 'site')} to take part")
    try:
        agreed: tuple[Coordinator, dict[str, list[str]]] = agree(
            pool, quoted(proposed), quoted(calls)
        )
    except Exception:
        # Those who would take part wait for nothing more.
        with suppress(Exception):
            leave(pool, calls)
        raise
    return agreed


def _source(coordinator: Coordinator) -> DataSource:
    """Where the data come from: phantoms, as soon as those of one site are."""
    told = set(coordinator.sources.values())
    return "phantom" if "phantom" in told else sorted(told)[0]
