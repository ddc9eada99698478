"""The privacy ledger: what was released is never lost, changed unnoticed, or more than allowed."""

import json
import os
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest

from federated.errors import ConsiliumError
from federated.privacy.accounting import epsilon
from federated.privacy.ledger import Budget, Ledger, Spending, spent

ONE = Spending("gaussian", "record", 2.0, 0.1, 50, 1.0, 1, "run", "adrenal", "site-00")


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger" / "site.jsonl")


def test_what_is_spent_is_read_back_and_composed(ledger):
    entries = [replace(ONE, round_number=number) for number in (1, 2, 3)]
    heads = [ledger.spend(entry) for entry in entries]
    assert [head.count for head in heads] == [1, 2, 3]
    assert ledger.spendings() == entries
    assert ledger.head() == heads[-1]
    ledger.spend(replace(ONE, run="other", experiment="other"))
    assert len(ledger.spendings("run")) == 3
    found = spent(ledger.spendings(), "record", 1e-5, "rdp")
    assert found == epsilon([entry.release for entry in [*entries, ONE]], 1e-5, "rdp")
    assert ledger.path.stat().st_mode & 0o077 == 0


def test_a_site_level_release_protects_a_record_at_half_its_noise_and_not_the_other_way():
    site = replace(ONE, unit="site", noise_multiplier=8.0, sampling_rate=1.0, steps=1)
    at_half = replace(site, unit="record", noise_multiplier=4.0)
    assert spent([site, ONE], "record", 1e-5, "rdp") == spent([at_half, ONE], "record", 1e-5, "rdp")
    assert spent([site], "site", 1e-5, "rdp") < spent([site], "record", 1e-5, "rdp")
    assert spent([site, ONE], "site", 1e-5, "rdp") == inf


class TestBudget:
    def test_a_release_beyond_the_budget_is_refused_and_not_entered(self, ledger):
        ledger.set_budget(Budget("record", 3.0, 1e-5))
        for number in range(1, 100):
            try:
                ledger.spend(replace(ONE, round_number=number))
            except ConsiliumError as error:
                said = str(error)
                break
        assert f"round {number} of run run would make it" in said
        assert "site-00 has a privacy budget of epsilon=3 at delta=1e-05" in said
        assert len(ledger.spendings()) == number - 1 > 1
        assert spent(ledger.spendings(), "record", 1e-5, "prv") <= 3.0
        one_more = [*ledger.spendings(), ONE]
        assert spent(one_more, "record", 1e-5, "prv") > 3.0

    def test_a_changed_budget_holds_from_then_on_and_both_stay_on_record(self, ledger):
        ledger.set_budget(Budget("record", 0.1, 1e-5))
        with pytest.raises(ConsiliumError, match="privacy budget"):
            ledger.spend(ONE)
        ledger.set_budget(Budget("record", 10.0, 1e-5))
        ledger.spend(ONE)
        assert ledger.budgets() == {"record": Budget("record", 10.0, 1e-5)}
        assert ledger.head().count == 3

    def test_a_record_level_release_has_no_place_in_a_site_budget(self, ledger):
        ledger.set_budget(Budget("site", 100.0, 1e-5))
        with pytest.raises(ConsiliumError, match="would make it inf"):
            ledger.spend(ONE)


class TestChanges:
    @pytest.fixture
    def written(self, ledger):
        for number in (1, 2, 3):
            ledger.spend(replace(ONE, round_number=number))
        return ledger

    def refused(self, ledger, said):
        for action in (ledger.head, ledger.spendings, lambda: ledger.spend(ONE)):
            with pytest.raises(ConsiliumError, match=said):
                action()

    def test_an_edited_entry(self, written):
        text = written.path.read_text()
        written.path.write_text(text.replace('"round_number": 2', '"round_number": 9'))
        self.refused(written, "entry 2 was changed")

    def test_an_edited_entry_with_a_hash_that_fits(self, written):
        from federated.privacy.ledger import _hash

        lines = written.path.read_text().splitlines()
        entry = json.loads(lines[1]) | {"noise_multiplier": 100.0}
        lines[1] = json.dumps(entry | {"hash": _hash(entry)})
        written.path.write_text("\n".join(lines) + "\n")
        self.refused(written, "entry 3 was changed, or one before it removed")

    @pytest.mark.parametrize(
        ("index", "said"), [(0, "entry 1"), (1, "entry 2"), (2, "1 entries at")]
    )
    def test_a_removed_entry(self, written, index, said):
        lines = written.path.read_text().splitlines(keepends=True)
        written.path.write_text("".join(lines[:index] + lines[index + 1 :]))
        self.refused(written, said)

    def test_a_removed_file(self, written):
        written.path.unlink()
        self.refused(written, "3 entries at its end are missing")

    def test_an_old_head(self, written):
        head = json.loads(written.head_path.read_text())
        written.head_path.write_text(json.dumps(head | {"count": 1}))
        self.refused(written, "not those that its head was written for")


def spend_until_death(folder: Path, moment: int) -> None:
    """Spend five times, and say on the disk what was released; die at the n-th write."""
    count = 0

    def mortal(function, dying=None):
        def call(*arguments, **named):
            nonlocal count
            count += 1
            if count == moment:
                if dying:
                    dying(*arguments)
                os._exit(9)
            return function(*arguments, **named)

        return call

    write = os.write
    os.write = mortal(write, lambda handle, line: write(handle, line[: len(line) // 2]))
    os.fsync, os.ftruncate = mortal(os.fsync), mortal(os.ftruncate)
    Path.replace = mortal(Path.replace)
    ledger = Ledger(folder / "site.jsonl")
    for number in range(1, 6):
        ledger.spend(replace(ONE, round_number=number))
        (folder / f"released-{number}").touch()
    os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="dies in a copy of this process")
def test_killed_between_any_two_writes_no_release_is_missing(tmp_path):
    """In a process that dies at each write in turn, until one lives to the end."""
    for moment in range(1, 1000):
        folder = tmp_path / str(moment)
        folder.mkdir()
        child = os.fork()
        if not child:
            try:
                spend_until_death(folder, moment)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9)
        ledger = Ledger(folder / "site.jsonl")
        released = {int(path.name.split("-")[1]) for path in folder.glob("released-*")}
        entered = {spending.round_number for spending in ledger.spendings()}
        assert released <= entered
        assert len(entered - released) <= 1
        # It goes on from there, whatever was left half-written.
        ledger.spend(replace(ONE, round_number=99))
        assert ledger.spendings()[-1].round_number == 99
        if code == 0:
            break
    assert moment > 5 * 5
