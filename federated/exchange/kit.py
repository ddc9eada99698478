"""The two files by which a site and a coordinator come to know each other.

The coordinator's kit says where it is reached, which certificate authority its server has, and the
public half of its key. A site's request for enrolment has the public half of the site's key. Both
are public; what has to be right about them is compared by telephone, by the fingerprints.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from federated.errors import ConsiliumError, unreadable
from federated.exchange.identity import COORDINATOR, PublicIdentity
from federated.files import read_json, write_json
from federated.settings.names import refuse_site_name

KIT, REQUEST = "consilium-kit", "consilium-enrolment"
# In bytes.
MOST_FILE = 2**20
MOST_URL = 2000


@dataclass(frozen=True)
class Kit:
    """What a site needs of its coordinator.

    Attributes:
        url: where it is reached, ``https://HOST:PORT`` with or without a path.
        authority: the certificate (PEM) of the authority of its server; empty for one that
            machines trust anyway.
        coordinator: the public half of its key.
    """

    url: str
    authority: str
    coordinator: PublicIdentity

    def write(self, path: Path, mode: int = 0o644) -> None:
        """Write the kit's file."""
        told = asdict(self) | {"coordinator": self.coordinator.to_json()}
        write_json(path, {"kind": KIT, **told}, mode)

    @staticmethod
    def read(path: Path) -> "Kit":
        """The kit that :meth:`write` wrote.

        Raises:
            ConsiliumError: the file is missing or something else.
        """
        value = _read(path, KIT, {"url", "authority", "coordinator"})
        url, authority = value["url"], value["authority"]
        if not (isinstance(url, str) and isinstance(authority, str)):
            raise _other(path, KIT)
        if not url.startswith("https://") or len(url) > MOST_URL or not url.isprintable():
            raise ConsiliumError(
                f"The kit {path} gives {url!r:.80} as the coordinator's address, and it has to "
                "begin with https://. Have the coordinator write its kit again."
            )
        coordinator = PublicIdentity.from_json(value["coordinator"], str(path))
        if coordinator.name != COORDINATOR:
            raise _other(path, KIT)
        return Kit(url, authority, coordinator)


def write_request(identity: PublicIdentity, path: Path) -> None:
    """Write a site's request for enrolment."""
    write_json(path, {"kind": REQUEST, "site": identity.to_json()})


def read_request(path: Path) -> PublicIdentity:
    """The site that asks to be enrolled, by the file that :func:`write_request` wrote.

    Raises:
        ConsiliumError: the file is missing or something else, or no site can have that name.
    """
    found = PublicIdentity.from_json(_read(path, REQUEST, {"site"})["site"], str(path))
    refuse_site_name(found.name, f" (in {path})")
    return found


def _read(path: Path, kind: str, names: set[str]) -> dict[str, Any]:
    try:
        value = read_json(path, MOST_FILE)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if not isinstance(value, dict) or value.get("kind") != kind or value.keys() != names | {"kind"}:
        raise _other(path, kind)
    return value


def _other(path: Path, kind: str) -> ConsiliumError:
    what = {
        KIT: "a coordinator's kit, as `consilium coordinator init` writes it",
        REQUEST: "a site's request for enrolment, as `consilium site init` writes it",
    }
    return ConsiliumError(f"The file {path} is not {what[kind]}. Have it sent again.")
