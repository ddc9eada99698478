"""What a person needs to be let in by servers that were started here: a user and a secret."""

import os
import re
import secrets
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from federated.errors import ConsiliumError, unreadable
from federated.files import PRIVATE, make_folders
from federated.secrets.home import refuse_open

USER = "consilium"
# 256 bits: nobody guesses it, so a server needs no limit on attempts.
SECRET_BYTES = 32


@dataclass(frozen=True)
class Login:
    """The login of servers: of one start of them, or the one that a coordinator keeps.

    It is handed to processes in their environment, which their owner alone can read, and never in
    their arguments, which everybody on the machine can read.
    """

    secret: str = field(repr=False)

    @property
    def auth_string(self) -> str:
        """The text ``user:secret``, as Prefect's ``PREFECT_API_AUTH_STRING`` has it."""
        return f"{USER}:{self.secret}"

    @property
    def header(self) -> bytes:
        """The value of the header ``Authorization`` (RFC 7617)."""
        return b"Basic " + b64encode(self.auth_string.encode())


def new_login() -> Login:
    """A login with a random secret from the operating system."""
    return Login(secrets.token_urlsafe(SECRET_BYTES))


# What `new_login` draws has 43 characters; nothing shorter than 128 bits is taken.
SECRET = re.compile(r"[A-Za-z0-9_-]{22,200}")


def kept_login(path: Path) -> Login:
    """The login in a file that its owner alone can read; it is made if it is not there.

    Two that make it at once get the same one.

    Raises:
        ConsiliumError: others can read the file, or it holds something else.
    """
    with suppress(FileExistsError):
        _make(path, new_login().secret)
    refuse_open(path)
    try:
        secret = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if not SECRET.fullmatch(secret):
        raise ConsiliumError(
            f"The file {path} holds no login: one line of 22 to 200 letters, digits, hyphens and "
            "underscores. Remove it, and the next start makes another one."
        )
    return Login(secret)


def _make(path: Path, secret: str) -> None:
    """Write the file, whole from the first moment.

    Raises:
        FileExistsError: it is there.
    """
    if path.exists():
        raise FileExistsError(path)
    make_folders(path.parent, private=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Not a rename, which would take the place of one that somebody else has just made.
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
