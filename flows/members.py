"""Who is enrolled with a coordinator, and what each site has said of itself last."""

import time
from collections.abc import Iterator
from contextlib import suppress

from federated.files import read_json
from federated.run.coordinator_home import CoordinatorHome


def members_lines(home: CoordinatorHome) -> Iterator[str]:
    """A line for each enrolled site, with when it has said hello last, and what it does.

    Raises:
        ConsiliumError: there is no coordinator.
    """
    home.identity()
    members = home.members().members
    if not members:
        yield "no site is enrolled: consilium sites enrol FILE"
    for name in sorted(members):
        member = members[name]
        yield f"{name}  {member.standing}  {member.identity.fingerprint}  {_seen(home, name)}"


def _seen(home: CoordinatorHome, name: str) -> str:
    path = home.seen_path / f"{name}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        state = str(read_json(path)["state"]) or "waits"
        return f"said hello {time.time() - path.stat().st_mtime:.0f} s ago: {state}"
    return "has never said hello"
