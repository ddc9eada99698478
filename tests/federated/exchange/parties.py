"""A coordinator and sites that know each other, with mailboxes on one folder."""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federated.exchange.audit import AuditLog
from federated.exchange.enrolment import Enrolment
from federated.exchange.folder import FolderExchange
from federated.exchange.identity import COORDINATOR, Identity
from federated.exchange.mailbox import Mailbox
from federated.exchange.message import Topic

SITES = ("site-00", "site-01", "site-02")
TOPIC = Topic("c0ffee", "run-1", attempt=2, round=3, state="5" * 64, plan="a" * 64)


def identity(name: str) -> Identity:
    """A party with a new key."""
    return Identity(name, Ed25519PrivateKey.generate().private_bytes_raw())


@dataclass(frozen=True)
class Parties:
    """The mailboxes of parties by name, all on one exchange."""

    root: Path
    exchange: FolderExchange
    boxes: dict[str, Mailbox]

    @property
    def coordinator(self) -> Mailbox:
        return self.boxes[COORDINATOR]

    def refused(self, party: str = COORDINATOR) -> list[str]:
        """Why a party has refused messages, by its audit log."""
        lines = self.boxes[party].audit.lines()
        return [line["reason"] for line in lines if line["event"] == "refused"]


def parties(root: Path) -> Parties:
    """A coordinator and the sites of :data:`SITES`."""
    everyone = {name: identity(name) for name in (COORDINATOR, *SITES)}
    members = Enrolment()
    for who in everyone.values():
        members = members.enrol(who.public)
    exchange = FolderExchange(root / "exchange")
    boxes = {
        name: Mailbox(who, members, exchange, AuditLog(root / name / "audit.jsonl"))
        for name, who in everyone.items()
    }
    return Parties(root, exchange, boxes)
