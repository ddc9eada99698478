"""Networks, and nothing else; ``federated.settings.networks`` has their settings and makes them."""

from models.centring import Centring, centring_of
from models.head import head_tensors, is_head

__all__ = ["Centring", "centring_of", "head_tensors", "is_head"]
