"""Calls to this machine itself never go through a proxy."""

from collections.abc import MutableMapping

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def spare_loopback(environment: MutableMapping[str, str]) -> None:
    """Add this machine's own names to ``NO_PROXY``, for this process and those that it starts.

    What stands there stays. Without a proxy nothing is changed: on macOS and Windows even an empty
    ``NO_PROXY`` would hide the system's own settings.
    """
    if not any(environment.get(name) or environment.get(name.upper()) for name in PROXIES):
        return
    # Some programs read the one, some the other, and some the first that is there.
    named = [environment.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    spared = [part.strip() for text in named for part in text.split(",") if part.strip()]
    text = ",".join(dict.fromkeys([*spared, *LOOPBACK]))
    environment["no_proxy"] = environment["NO_PROXY"] = "*" if "*" in spared else text
