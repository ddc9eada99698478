"""How an update is protected on its way, one file each; an object is its settings section."""

from federated.protection.plain import Plain, Sum

AnyProtection = Plain

__all__ = ["AnyProtection", "Plain", "Sum"]
