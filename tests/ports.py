"""Ports for servers that tests start."""

from flows.ports import listen, port_of


def free_port() -> int:
    """A loopback port that is free now."""
    with listen() as listening:
        return port_of(listening)
