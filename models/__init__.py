"""Networks, and nothing else: :func:`build_model` is the one way to make one."""

from models.build import CLASSIFIERS, MODELS, build_model, is_head
from models.centring import Centring, centring_of

__all__ = ["CLASSIFIERS", "MODELS", "Centring", "build_model", "centring_of", "is_head"]
