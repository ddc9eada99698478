"""A consortium in one process: a coordinator and sites that share a folder as their exchange."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from federated.configuration.load import load_experiment
from federated.exchange.enrolment import Enrolment
from federated.exchange.journal import JournalledExchange
from federated.exchange.policy import PERMISSIVE
from federated.files import make_folders
from federated.run.coordinator_home import CoordinatorHome
from federated.secrets.home import private_folder
from federated.site.home import SiteHome
from flows.consortium_up import deal_files
from flows.site_service import SiteService


@dataclass
class Party:
    """A site that is a party of its own, with its own file of data."""

    home: SiteHome
    data: Path
    exchange: JournalledExchange
    said: list[str]
    service: SiteService | None = None

    @contextmanager
    def at_work(self) -> Iterator[SiteService]:
        """The site's service, in a thread, until the block ends."""
        service = SiteService(self.home, self.data, self.exchange, self.said.append)
        self.service = service
        thread = threading.Thread(target=service.run, daemon=True)
        thread.start()
        try:
            yield service
        finally:
            service.stop()
            thread.join(10)


def make_consortium(root: Path, experiment: str = "tiny", *sets: str) -> dict[str, Party]:
    """A coordinator, and the sites that an experiment would have, each with its own cases."""
    home = CoordinatorHome.default()
    identity = home.make_identity()
    resolved = load_experiment(experiment, list(sets), Path("params.yaml"))
    names = [f"site-{number:02d}" for number in range(resolved.sites.count)]
    folders = {name: root / "hospital" / name for name in names}
    deal_files(resolved, folders)
    make_folders(home.exchange_path, private=True)
    exchange = JournalledExchange(home.exchange_path)
    members, parties = Enrolment(), {}
    for name, data in folders.items():
        own = SiteHome(private_folder(root / "homes" / name, root / "homes" / name))
        own.know(identity.public)
        own.write_policy(PERMISSIVE)
        members = members.enrol(own.identity().public)
        parties[name] = Party(own, data, exchange, [])
    members.write(home.members_path)
    return parties
