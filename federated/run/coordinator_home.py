"""The home of a consortium's coordinator: what is its own across all runs.

``identity.key`` is the private half of its key, by whose fingerprint the consortium is known;
``members.json`` lists the sites that are enrolled; ``audit.jsonl`` is its audit log. ``exchange/``
has the messages of all runs, ``seen/`` when each site last said hello, and ``tls/`` the
certificates; ``rounds.jsonl`` counts rounds. The folder is open to its owner alone.
"""

from dataclasses import dataclass
from pathlib import Path

from federated.errors import ConsiliumError
from federated.exchange.audit import AuditLog
from federated.exchange.enrolment import Enrolment
from federated.exchange.identity import COORDINATOR, Identity, own_identity
from federated.secrets.home import consilium_home, private_folder


@dataclass(frozen=True)
class CoordinatorHome:
    """The paths of a coordinator's home."""

    root: Path

    @staticmethod
    def default() -> "CoordinatorHome":
        """The home below ``CONSILIUM_HOME``."""
        return CoordinatorHome(consilium_home() / "coordinator")

    @property
    def identity_path(self) -> Path:
        """The file of the private half of the coordinator's key."""
        return self.root / "identity.key"

    @property
    def members_path(self) -> Path:
        """The file of the enrolled sites."""
        return self.root / "members.json"

    @property
    def exchange_path(self) -> Path:
        """The folder of the messages of all runs."""
        return self.root / "exchange"

    @property
    def seen_path(self) -> Path:
        """The folder of when each site last said hello."""
        return self.root / "seen"

    @property
    def rounds_path(self) -> Path:
        """The file with a line for each round of all runs, for those who count them."""
        return self.root / "rounds.jsonl"

    @property
    def tls_path(self) -> Path:
        """The folder of the certificates."""
        return self.root / "tls"

    @property
    def settings_path(self) -> Path:
        """The file of where the coordinator listens, and how its sites reach it."""
        return self.root / "coordinator.json"

    @property
    def audit(self) -> AuditLog:
        """The log of what the coordinator was sent, has sent and has refused."""
        return AuditLog(self.root / "audit.jsonl")

    def make_identity(self) -> Identity:
        """The coordinator with its private key, which is made if it is not there.

        Raises:
            ConsiliumError: others can open the home, or the key is damaged.
        """
        private_folder(self.root, self.root)
        return own_identity(COORDINATOR, self.identity_path, self.root)

    def identity(self) -> Identity:
        """The coordinator with its private key.

        Raises:
            ConsiliumError: there is none: nobody has made this a coordinator's home; or others can
                open it.
        """
        if not self.identity_path.is_file():
            raise ConsiliumError(
                f"{self.root} is no home of a coordinator: it has no {self.identity_path.name}. "
                "Make one with `consilium coordinator init`, or name another with CONSILIUM_HOME."
            )
        return self.make_identity()

    def members(self) -> Enrolment:
        """The enrolled sites; none before the first is.

        Raises:
            ConsiliumError: the list cannot be read.
        """
        return Enrolment.read(self.members_path) if self.members_path.is_file() else Enrolment()
