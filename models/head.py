"""The head of a network: what is named ``head`` is its classifier, the rest its backbone."""

from torch import nn


def is_head(name: str) -> bool:
    """Whether a tensor or module of this name belongs to the head of any network here."""
    return name == "head" or name.startswith("head.")


def head_tensors(model: nn.Module) -> frozenset[str]:
    """The names of the tensors of a network's head."""
    return frozenset(name for name in model.state_dict() if is_head(name))
