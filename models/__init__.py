"""Networks, and nothing else: :func:`build_model` is the one way to make one."""

from models.build import MODELS, build_model, is_head

__all__ = ["MODELS", "build_model", "is_head"]
