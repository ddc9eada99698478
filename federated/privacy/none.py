"""No differential privacy."""

from typing import Literal

from federated.privacy.base import Privacy


class NoPrivacy(Privacy):
    """No noise is added, so there is no ε to state for any unit."""

    name: Literal["none"] = "none"
