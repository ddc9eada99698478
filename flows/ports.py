"""Loopback ports: whether they are free, and sockets that listen at them."""

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


def listen(port: int = 0) -> socket.socket:
    """A socket that listens at a loopback port, or at one that is free now if ``port`` is 0.

    It does so at once, whatever may have to start before somebody answers: a port that was only
    seen to be free could by then be another user's, who would be told secrets.

    Raises:
        OSError: something listens there already.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen()
    except OSError:
        listening.close()
        raise
    return listening


def listen_at(port: int, what: str, option: str) -> socket.socket:
    """A socket that listens at a loopback port that a person chose.

    Args:
        port: the port.
        what: what it is meant for, for the message.
        option: the option by which another port can be chosen.

    Raises:
        ConsiliumError: something listens there already, or a user may not listen there.
    """
    try:
        return listen(port)
    except PermissionError as error:
        raise ConsiliumError(
            f"Port {port} on {HOST}, meant for {what}, is kept for the machine's own services. "
            f"Choose one above 1023 with {option}."
        ) from error
    except OSError as error:
        raise ConsiliumError(
            f"Port {port} on {HOST}, meant for {what}, is in use by another program. Stop that "
            f"program, or choose another port with {option}."
        ) from error


def port_of(listening: socket.socket) -> int:
    """The port that a socket listens at."""
    return int(listening.getsockname()[1])
