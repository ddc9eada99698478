"""The base of every section of params.yaml."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, model_validator

# Whom privacy protects: every case of a site, or a site with all that it has.
Unit = Literal["record", "site"]


class _TruthValue:
    """A value that no field accepts; a message shows it as YAML writes it."""

    def __init__(self, value: bool) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "true" if self.value else "false"


class Settings(BaseModel):
    """A frozen section; unknown keys and impossible values are refused when it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # This validates the whole section: a field by which a section is chosen may not have a
    # validator of its own.
    @model_validator(mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, data: Any) -> Any:
        """Do not let ``true`` pass where a number is meant; it would be taken for 1."""
        if not isinstance(data, Mapping):
            return data
        numbers = {
            field.alias or name
            for name, field in cls.model_fields.items()
            if (kinds := set(_kinds(field.annotation))) & {int, float} and bool not in kinds
        }
        return {key: _told(value) if key in numbers else value for key, value in data.items()}

    @classmethod
    def stated(cls, name: str) -> Any:
        """What this class itself says under ``name``; ``None`` where it says nothing.

        What a class is covered for is not inherited: a subclass that does more than its parent has
        to say for itself that it is covered too.
        """
        return vars(cls).get(name)


def _told(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_told(each) for each in value]
    return _TruthValue(value) if isinstance(value, bool) else value


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of, as ``int`` and ``None`` of ``int | None``."""
    parts = get_args(annotation)
    if not parts:
        # A value of a Literal is not a type.
        if isinstance(annotation, type):
            yield annotation
        return
    for part in parts:
        yield from _kinds(part)
