"""The base of every section of params.yaml."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen section: unknown keys and impossible values are refused when it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def stated(cls, name: str) -> Any:
        """What this class says of itself under ``name``; ``None`` where it says nothing.

        What a class is covered for is not inherited: a subclass that does more than its parent has
        to say for itself that it is covered too.
        """
        return vars(cls).get(name)
