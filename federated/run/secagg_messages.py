"""What travels in a round of SecAgg+ beside the updates, as small JSON files in its folder.

On the way up this is what a site advertises, shares and answers. On the way down it is the roster
for all sites, and for each site an inbox of sealed shares.
"""

from dataclasses import asdict, dataclass
from typing import Any

from federated.errors import ConsiliumError, why_unreadable
from federated.files import read_json, write_json
from federated.protection.secagg.round import Advertised
from federated.run.folder import MessageKind, RunFolder


@dataclass(frozen=True)
class Roster:
    """What the coordinator tells all sites of a round.

    It says who has advertised which keys, who has shared them, and whose masked update the
    coordinator has.
    """

    advertised: dict[str, Advertised]
    sharing: tuple[str, ...] = ()
    responded: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """The sites that have shared their keys and sent nothing."""
        return tuple(site for site in self.sharing if site not in self.responded)


def read_roster(folder: RunFolder, round_number: int) -> tuple[Roster, int]:
    """The roster, and the bytes that a site downloads for it.

    Raises:
        ConsiliumError: it is missing or no roster.
    """
    path = folder.roster_path(round_number)
    try:
        value = read_json(path)
        keys = {site: Advertised(**from_hex(own)) for site, own in value["advertised"].items()}
        roster = Roster(keys, tuple(value["sharing"]), tuple(value["responded"]))
        return roster, path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConsiliumError(
            f"The roster {path} cannot be read ({why_unreadable(error)}). Resume the run; the "
            "round begins anew."
        ) from error


def write_roster(folder: RunFolder, round_number: int, roster: Roster) -> None:
    """Write what the coordinator tells all sites."""
    write_json(folder.roster_path(round_number), to_hex(asdict(roster)))


def write_message(
    folder: RunFolder, round_number: int, site: str, kind: MessageKind, value: Any
) -> int:
    """Write a message of a site, and return how many bytes it takes.

    Args:
        folder: the run's folder.
        round_number: the round.
        site: whose message it is.
        kind: which of its messages.
        value: what JSON can hold, and bytes.
    """
    path = folder.message_path(round_number, site, kind)
    write_json(path, to_hex(value))
    return path.stat().st_size


def read_message(folder: RunFolder, round_number: int, site: str, kind: MessageKind) -> Any:
    """A message of a site, with its bytes as hexadecimal digits.

    Raises:
        ConsiliumError: the message is missing or not JSON.
    """
    path = folder.message_path(round_number, site, kind)
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise ConsiliumError(
            f"The message {path} cannot be read ({why_unreadable(error)}). Resume the run; the "
            "round begins anew."
        ) from error


def to_hex(value: Any) -> Any:
    """A value with hexadecimal digits for all bytes in it."""
    if isinstance(value, dict):
        return {key: to_hex(item) for key, item in value.items()}
    return value.hex() if isinstance(value, bytes) else value


def from_hex(value: Any) -> Any:
    """A value with bytes for all text in it, which has to be hexadecimal digits.

    Raises:
        ConsiliumError: a text in it is something else.
    """
    if isinstance(value, dict):
        return {key: from_hex(item) for key, item in value.items()}
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError) as error:
        raise ConsiliumError(
            f"A message of SecAgg+ holds {value!r:.40} where bytes in hexadecimal digits are "
            "expected: it was changed. Resume the run; the round begins anew."
        ) from error
