"""docs/one-round.md says what the code does."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "one-round.md"


def test_its_snippets_run_one_after_the_other():
    snippets = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.S | re.M)
    assert len(snippets) == 7
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, str(PAGE), "exec"), names)
    assert (names["after"].weights != names["before"]).any()
    assert names["after"].round_number == 1
