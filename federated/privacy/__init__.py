"""Differential privacy; the object chosen here is its section of params.yaml."""

from federated.privacy.none import NoPrivacy

AnyPrivacy = NoPrivacy

__all__ = ["AnyPrivacy", "NoPrivacy"]
