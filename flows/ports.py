"""Loopback ports."""

import socket
from contextlib import closing

from federated.errors import ConsiliumError

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on a loopback port now."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((HOST, port))
        except OSError:
            return False
    return True


def require_free(port: int, what: str, option: str) -> None:
    """Refuse a port that is taken.

    Raises:
        ConsiliumError: something listens there already.
    """
    if not is_free(port):
        raise ConsiliumError(
            f"Port {port} on {HOST}, meant for {what}, is in use by another program. Stop that "
            f"program, or choose another port with {option}."
        )
