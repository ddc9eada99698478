"""What a running `consilium serve` has started, for its owner's other terminals.

Each such process has a file below the home, which its owner alone can read. The file is locked
while the process lives, however that ends.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shlex import quote

from federated.errors import ConsiliumError
from federated.files import PRIVATE, atomic_path
from federated.secrets.home import consilium_home, private_folder
from flows.login import USER, Login


@dataclass(frozen=True)
class Session:
    """The servers of one `consilium serve`, and the secret of their login.

    ``prefect_api`` and ``mlflow`` are addresses, or None for a server that was there already.
    """

    prefect_api: str | None
    mlflow: str | None
    secret: str = field(repr=False)

    def exports(self) -> list[str]:
        """Lines for a shell, after which `prefect` is let in.

        Comments among them say how programs that ask MLflow's server are let in.
        """
        lines = []
        login = Login(self.secret)
        if self.prefect_api:
            lines.append(f"export PREFECT_API_URL={quote(self.prefect_api)}")
            lines.append(f"export PREFECT_API_AUTH_STRING={quote(login.auth_string)}")
        if self.mlflow:
            # Without these, runs write to the same store directly.
            lines.append("# For programs that ask MLflow's server:")
            lines.append(f"# export MLFLOW_TRACKING_URI={quote(self.mlflow)}")
            lines.append(f"# export MLFLOW_TRACKING_USERNAME={USER}")
            lines.append(f"# export MLFLOW_TRACKING_PASSWORD={quote(self.secret)}")
        return lines


@contextmanager
def published(session: Session) -> Iterator[None]:
    """Keep a session where :func:`running_session` finds it, until the block ends.

    Raises:
        ConsiliumError: others can open the home.
    """
    path = private_folder(_folder()) / f"{os.getpid()}.json"
    with atomic_path(path, mode=PRIVATE) as temporary:
        temporary.write_text(json.dumps(asdict(session)), encoding="utf-8")
        # Locked before it has its name: a file without a lock is taken for one left behind.
        handle = os.open(temporary, os.O_RDWR)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def running_session(prefect_port: int) -> Session:
    """The session that runs now; if there are several, the one whose Prefect has that port.

    Raises:
        ConsiliumError: none runs, or there are several and none has that port.
    """
    sessions = list(_running())
    if not sessions:
        raise ConsiliumError(
            f"No `consilium serve` runs with the home {consilium_home()}. Start one in another "
            "terminal, and call this again once it says so."
        )
    if len(sessions) == 1:
        return sessions[0]
    for session in sessions:
        if session.prefect_api and f":{prefect_port}/" in session.prefect_api:
            return session
    apis = ", ".join(session.prefect_api or "one without a Prefect" for session in sessions)
    raise ConsiliumError(
        f"Several `consilium serve` run ({apis}). Say with --prefect-port which one is meant."
    )


def _folder() -> Path:
    return consilium_home() / "serve"


def _running() -> Iterator[Session]:
    """The sessions whose process lives; the file of one that was killed is removed."""
    for path in sorted(_folder().glob("*.json")):
        with suppress(FileNotFoundError), path.open("r+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield Session(**json.load(file))
            else:
                path.unlink(missing_ok=True)
