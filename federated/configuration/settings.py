"""The base of every section of params.yaml."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen section: unknown keys and impossible values are refused when it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
