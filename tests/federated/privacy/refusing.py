"""What is told of a refusal for a budget, and what stays with whoever refuses."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from federated.errors import RefusalError


@contextmanager
def beyond(kept: str) -> Iterator[None]:
    """Expect a refusal that keeps what ``kept`` matches, and tells nothing of what is spent."""
    with pytest.raises(RefusalError, match="has a privacy budget of") as caught:
        yield
    assert re.search(kept, caught.value.kept), caught.value.kept
    told = str(caught.value)
    assert "is spent;" not in told
    assert "would make it" not in told
