"""Which subgroups of patients a model is evaluated for: attributes, with their values or bounds.

They stand in the plan of a run, so that what each site tells of them has the same known size
whatever its tables say.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import isfinite
from typing import Annotated, Any

from pydantic import BeforeValidator

MOST_ATTRIBUTES = 8
MOST_BOUNDS = 12
LONGEST = 200

# The values of an attribute, or the numbers between which its groups lie, rising.
Bounds = tuple[str, ...] | tuple[float, ...]


def _checked(value: Any) -> Any:
    """The attributes as they are, once it is sure what is meant.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, Mapping):
        raise ValueError(
            "attributes are expected with their values or bounds, as {sex: [F, M], age: [40, 60]}"
        )
    # What lies over an entry of params.yaml takes an attribute of it away by null.
    value = {name: bounds for name, bounds in value.items() if bounds is not None}
    if not 1 <= len(value) <= MOST_ATTRIBUTES:
        raise ValueError(f"1 to {MOST_ATTRIBUTES} attributes can be named, not {len(value)}")
    names = [str(name).lower() for name in value]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"the attribute {twice[0]} is there twice; upper case makes no difference")
    return {str(name): _bounds(str(name), bounds) for name, bounds in value.items()}


def _bounds(name: str, value: Any) -> Bounds:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_BOUNDS:
        raise ValueError(
            f"{name} needs a list of 1 to {MOST_BOUNDS} values, as [F, M], or of numbers between "
            "which groups lie, as [40, 60]"
        )
    if all(isinstance(each, str) and 0 < len(each) <= LONGEST for each in value):
        return tuple(value)
    numbers = [each for each in value if isinstance(each, int | float)]
    if len(numbers) < len(value) or any(isinstance(each, bool) for each in value):
        raise ValueError(
            f"{name} has to be all text or all numbers. A number that is a value and no bound, as "
            '0 and 1 of a finding, is written as text: ["0", "1"]'
        )
    ends = [float(each) for each in numbers]
    rising = all(low < high for low, high in pairwise(ends))
    if not rising or not all(map(isfinite, ends)):
        raise ValueError(f"the bounds of {name} have to rise, each being a finite number")
    return tuple(ends)


Subgroups = Annotated[Mapping[str, Bounds], BeforeValidator(_checked)]
