"""What a person needs to be let in by servers that were started here: a user and a secret."""

import secrets
from base64 import b64encode
from dataclasses import dataclass, field

USER = "consilium"
# 256 bits: nobody guesses it, so a server needs no limit on attempts.
SECRET_BYTES = 32


@dataclass(frozen=True)
class Login:
    """The login of one start of the servers; another start has another one.

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
