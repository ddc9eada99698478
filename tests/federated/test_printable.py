"""What another party has written is shown, and does nothing to whoever reads it."""

import pytest

from federated.errors import ConsiliumError, RefusalError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb\nc", r"a\x0db\x0ac"),
        ("safe\u202egnp.exe", r"safe\u202egnp.exe"),
        ("line\u2028line", r"line\u2028line"),
        ("ε ≤ 8, Klinik Süd\u00a0東京", "ε ≤ 8, Klinik Süd\u00a0東京"),
    ],
)
def test_what_would_command_a_terminal_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_text_without_end_is_cut() -> None:
    assert printable("x" * 10**6, 10) == "xxxxxxxxxx… (1000000 characters)"


def test_an_error_of_any_party_commands_no_terminal() -> None:
    assert str(ConsiliumError("a\x1b[2J\nb")) == "a\\x1b[2J\nb"
    assert str(RefusalError("a\x1b[2J\nSigned: everyone")) == r"a\x1b[2J\x0aSigned: everyone"
    assert len(str(RefusalError("x" * 10**6))) < 5000
