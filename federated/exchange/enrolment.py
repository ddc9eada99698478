"""Whom a party knows: the coordinator's key at a site, the enrolled sites' keys at the coordinator.

A key is compared over another channel before it is entered here. Who is not entered, or is
suspended, is nobody: what it sends is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from federated.errors import ConsiliumError
from federated.exchange.identity import PublicIdentity
from federated.files import PRIVATE, read_json, write_json

Standing = Literal["enrolled", "suspended"]


@dataclass(frozen=True)
class Member:
    """A party that another one knows, and whether what it sends counts."""

    identity: PublicIdentity
    standing: Standing = "enrolled"


@dataclass(frozen=True)
class Enrolment:
    """The members that a party knows, by name."""

    members: Mapping[str, Member] = field(default_factory=dict)

    def enrol(self, *identities: PublicIdentity) -> "Enrolment":
        """This list with more members.

        Raises:
            ConsiliumError: another key has such a name, or such a key has another name.
        """
        members = dict(self.members)
        names = {member.identity.key: name for name, member in members.items()}
        for identity in identities:
            before, name = members.get(identity.name), names.get(identity.key, identity.name)
            if before is not None and before.identity != identity:
                raise ConsiliumError(
                    f"{identity.name} is enrolled with another key, "
                    f"{before.identity.fingerprint}. If the party has a new key, remove it from "
                    "the list first, and compare the new fingerprint with the party by telephone."
                )
            if name != identity.name:
                raise ConsiliumError(
                    f"The key of {identity.name} is that of {name}, and each site needs a key of "
                    "its own: a key makes one site out of two names."
                )
            members[identity.name] = Member(identity)
            names[identity.key] = identity.name
        return Enrolment(members)

    def suspend(self, name: str) -> "Enrolment":
        """This list with a member suspended.

        Raises:
            ConsiliumError: there is no such member.
        """
        return Enrolment({**self.members, name: replace(self._member(name), standing="suspended")})

    def remove(self, name: str) -> "Enrolment":
        """This list without a member.

        Raises:
            ConsiliumError: there is no such member.
        """
        self._member(name)
        return Enrolment({n: member for n, member in self.members.items() if n != name})

    def standing(self, name: str) -> Standing | None:
        """How a name stands; ``None`` where it is nobody's."""
        member = self.members.get(name)
        return member.standing if member else None

    def _member(self, name: str) -> Member:
        if name not in self.members:
            known = ", ".join(sorted(self.members)) or "nobody"
            raise ConsiliumError(f"{name!r:.80} is not enrolled. Enrolled: {known}.")
        return self.members[name]

    def write(self, path: Path) -> None:
        """Write the list, for the owner alone."""
        value = [
            member.identity.to_json() | {"standing": member.standing}
            for member in self.members.values()
        ]
        write_json(path, value, PRIVATE)

    @staticmethod
    def read(path: Path) -> "Enrolment":
        """The list that :meth:`write` wrote.

        Raises:
            ConsiliumError: the file is missing or something else.
        """
        try:
            return Enrolment(dict(_members(read_json(path), str(path))))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConsiliumError(
                f"The list of members {path} cannot be read ({error!r:.200}). Put the file back, "
                "or enrol the parties again."
            ) from error


def _members(value: Any, where: str) -> list[tuple[str, Member]]:
    found = []
    for entry in value:
        standing = entry.pop("standing")
        if standing not in get_args(Standing):
            raise ValueError(f"standing is {standing!r:.40}")
        identity = PublicIdentity.from_json(entry, where)
        found.append((identity.name, Member(identity, standing)))
    return found
