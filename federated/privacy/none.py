"""No differential privacy."""

from typing import Any, Literal

from federated.settings import Settings


class NoPrivacy(Settings):
    """No noise is added, so there is no ε to state for any unit."""

    name: Literal["none"] = "none"

    def report(self) -> dict[str, Any]:
        """The ``privacy`` part of a run's summary; ``None`` stands for "no guarantee"."""
        return {
            "name": self.name,
            "unit": None,
            "delta": None,
            "epsilon": None,
            "epsilon_per_round": None,
            "per_site": {},
        }
