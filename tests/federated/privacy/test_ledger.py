"""The privacy ledger: what was released is never lost, changed unnoticed, or more than allowed."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from hashlib import sha256
from math import inf
from pathlib import Path

import pytest

import federated.privacy.ledger as ledger_module
from federated.errors import ConsiliumError, RefusalError
from federated.privacy import composition, hash_chain
from federated.privacy.accounting import epsilon
from federated.privacy.composition import spent
from federated.privacy.kept_heads import keep_head
from federated.privacy.ledger import Budget, Head, Ledger, Spending
from federated.privacy.record_sets import record_set
from federated.privacy.spending import EVALUATION
from tests.federated.privacy.refusing import beyond

NOTHING = Spending("none", "record", 0.0, 1.0, 1, 0.0, 1, "run", "adrenal", "site-00")
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


def _forget():
    """As another process, which has read nothing."""
    ledger_module._READ.clear()


class TestRecords:
    """An entry is of the records that it touched; the worst of them counts."""

    def worst(self, ledger, records, unit="record"):
        return ledger.histories(records, unit).worst(1e-5, "rdp")

    def of(self, steps):
        return epsilon([replace(ONE, steps=steps).release], 1e-5, "rdp")

    def test_a_record_keeps_its_history_wherever_it_goes(self, ledger):
        ledger.spend(ONE, ["a", "b", "c"])
        ledger.spend(ONE, ["c", "d"])  # dealt anew, at a site of another name
        assert self.worst(ledger, ["a"]) == self.worst(ledger, ["d"]) == self.of(50)
        assert self.worst(ledger, ["c"]) == self.worst(ledger, ["a", "c", "d"]) == self.of(100)
        assert self.worst(ledger, ["new"]) == 0
        histories = ledger.histories(["a", "b", "c", "d", "new"], "record")
        found = dict(zip(histories.epsilons(1e-5, "rdp"), histories.counts, strict=True))
        assert found == {self.of(50): 3, self.of(100): 1}
        _forget()
        assert self.worst(ledger, ["c"]) == self.of(100)

    def test_an_entry_without_records_counts_for_every_one(self, ledger):
        ledger.spend(ONE)
        ledger.spend(ONE, ["a"])
        assert self.worst(ledger, ["a"]) == self.of(100)
        assert self.worst(ledger, ["never named"]) == self.of(50)

    def test_of_a_site_counts_whatever_touched_any_of_its_records(self, ledger):
        site = replace(ONE, unit="site", sampling_rate=1.0, steps=1)
        ledger.spend(site, ["a", "b"])
        ledger.spend(site, ["b", "c"])
        one, two = (epsilon([replace(site, steps=n).release], 1e-5, "rdp") for n in (1, 2))
        assert self.worst(ledger, ["a", "x"], "site") == one
        assert self.worst(ledger, ["a", "c"], "site") == self.worst(ledger, ["b"], "site") == two
        assert self.worst(ledger, ["x"], "site") == 0

    def test_no_privacy_is_a_release_without_a_bound(self, ledger):
        ledger.spend(ONE, ["a", "b"])
        ledger.spend(NOTHING, ["b"])
        assert self.worst(ledger, ["a"]) == self.of(50)
        assert self.worst(ledger, ["a", "b"]) == inf
        assert self.worst(ledger, ["b"], "site") == inf

    def test_prv_is_never_above_rdp_and_never_below_the_truth_of_the_worst(
        self, ledger, monkeypatch
    ):
        monkeypatch.setattr(composition, "MOST_BY_PRV", 3)
        for number in range(1, 6):  # more histories than are tried by PRV
            ledger.spend(replace(ONE, steps=1000 + number), [f"r{number}"])
        records = [f"r{number}" for number in range(1, 6)]
        worst = ledger.histories(records, "record").worst(1e-5, "prv")
        assert worst >= epsilon([replace(ONE, steps=1005).release], 1e-5, "prv")
        assert worst <= self.of(1005)

    def test_a_set_is_stored_once_under_its_own_digest(self, ledger):
        for _ in range(3):
            ledger.spend(ONE, ["b", "a"])
        (path,) = ledger.sets.folder.glob("*.txt")
        assert path.read_text() == "a\nb\n"
        assert path.stem == sha256(path.read_bytes()).hexdigest()
        assert {entry.records for entry in ledger.spendings()} == {path.stem}

    def test_another_process_adds_to_what_this_one_has_read(self, ledger):
        ledger.spend(ONE, ["a"])
        known = ledger_module._READ.pop(ledger.path)
        ledger.spend(ONE, ["a"])  # as another process
        ledger_module._READ[ledger.path] = known
        assert len(ledger.spendings()) == 2
        assert self.worst(ledger, ["a"]) == self.of(100)


def test_a_spend_reads_no_more_than_was_added_since_the_last(ledger, monkeypatch):
    """With every run of a data set in one file it would otherwise take longer and longer."""
    read = []
    parsed = hash_chain._parsed
    monkeypatch.setattr(hash_chain, "_parsed", lambda *a: read.append(1) or parsed(*a))
    for _ in range(20):
        ledger.spend(ONE, ["a"])
    assert not read
    ledger_module._READ.clear()
    ledger.spend(ONE, ["a"])
    assert len(read) == 20  # wholly, once in a process
    ledger.spend(ONE, ["a"])
    ledger.spendings("run")
    assert len(read) == 20
    ledger.head()
    assert len(read) == 20 + 22


def test_what_several_enter_at_once_is_all_there(ledger):
    def enter(worker):
        for number in range(10):
            Ledger(ledger.path).spend(replace(ONE, round_number=number), [f"r{worker}"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(4)))
    assert ledger.head().count == 40
    assert {entry.records for entry in ledger.spendings()} == {
        record_set([f"r{worker}"]).name for worker in range(4)
    }
    assert ledger.histories(["r0"], "record").worst(1e-5, "rdp") == epsilon(
        [replace(ONE, steps=500).release], 1e-5, "rdp"
    )


class TestBudgetOfRecords:
    def test_it_is_of_every_record_that_a_release_touches(self, ledger):
        ledger.set_budget(Budget("record", 1.01 * epsilon([ONE.release], 1e-5, "rdp"), 1e-5))
        ledger.spend(ONE, ["a", "b"])
        ledger.spend(ONE, ["c"])
        with pytest.raises(ConsiliumError, match="privacy budget"):
            ledger.spend(ONE, ["b", "c", "d"])  # another partition of the same records
        ledger.spend(ONE, ["d"])
        assert len(ledger.spendings()) == 3

    def test_a_release_without_privacy_is_refused(self, ledger):
        ledger.set_budget(Budget("record", 1e6, 1e-5), ["a"])
        with beyond(r"would make it inf \(mechanism 'none'\)"):
            ledger.spend(NOTHING, ["a", "b"])
        ledger.spend(NOTHING, ["b"])  # not in the budget

    def test_the_latest_that_is_for_a_record_holds(self, ledger):
        ledger.set_budget(Budget("record", 0.01, 1e-5))
        ledger.set_budget(Budget("record", 100.0, 1e-5, site="site-01"), ["b", "c"])
        ledger.spend(ONE, ["b", "c"])
        with pytest.raises(ConsiliumError, match=r"epsilon=0\.01"):
            ledger.spend(ONE, ["b", "a"])
        ledger.set_budget(Budget("record", 0.01, 1e-5))
        with pytest.raises(ConsiliumError, match=r"epsilon=0\.01"):
            ledger.spend(ONE, ["b"])
        ledger.set_budget(Budget("record", inf, 1e-5))
        ledger.spend(NOTHING, ["b"])

    def test_of_a_site_it_counts_what_touched_its_records_under_any_name(self, ledger):
        site = replace(ONE, unit="site", sampling_rate=1.0, steps=1)
        limit = 1.01 * epsilon([site.release], 1e-5, "rdp")
        ledger.set_budget(Budget("site", limit, 1e-5))
        ledger.spend(site, ["a", "b"])
        with pytest.raises(ConsiliumError, match="privacy budget"):
            ledger.spend(replace(site, site="site-07"), ["b", "c"])
        ledger.spend(site, ["c", "d"])

    def test_what_is_left_is_counted(self, ledger):
        ledger.set_budget(Budget("record", 8.0, 1e-5))
        ledger.spend(ONE, ["a", "b"])
        ((budget, left),) = ledger.left(["a", "b", "c", "d", "e"])
        used = epsilon([ONE.release], 1e-5, "prv")
        assert budget.epsilon == 8.0
        assert left == [(8.0, 3), (8.0 - used, 2)]

    def test_what_is_left_is_told_of_every_budget_that_has_an_end(self, ledger):
        ledger.set_budget(Budget("record", 8.0, 1e-5))
        ledger.set_budget(Budget("record", inf, 1e-5), ["a"])
        ledger.set_budget(Budget("record", 4.0, 1e-5), ["b", "c"])
        ledger.set_budget(Budget("record", inf, 1e-5), ["d"])
        ledger.spend(NOTHING, ["a"])
        found = ledger.left(["a", "b", "c", "d", "e"])
        assert [(b.epsilon, left) for b, left in found] == [(4.0, [(4.0, 2)]), (8.0, [(8.0, 1)])]

    def test_of_records_without_a_guarantee_nothing_is_left(self, ledger):
        ledger.spend(NOTHING, ["a", "b"])
        ledger.set_budget(Budget("record", 8.0, 1e-5))
        ((_, left),) = ledger.left(["a", "b"])
        assert left == [(-inf, 2)]

    def test_budgets_are_those_for_any_of_the_records_and_those_for_the_site_last(self, ledger):
        site, one, other = (
            Budget("site", 3.0, 1e-5),
            Budget("record", 1.0, 1e-5),
            Budget("record", 2.0, 1e-5),
        )
        ledger.set_budget(site)
        ledger.set_budget(one, ["a"])
        ledger.set_budget(other, ["b"])
        stored = {budget.epsilon for budget in ledger.budgets(["a"])}
        assert stored == {1.0, 3.0}
        assert [budget.epsilon for budget in ledger.budgets()] == [2.0, 1.0, 3.0]

    def test_what_would_be_refused_is_refused_beforehand_and_nothing_is_entered(self, ledger):
        ledger.set_budget(Budget("record", 1.01 * epsilon([ONE.release], 1e-5, "rdp"), 1e-5), ["a"])
        ledger.refuse(ONE, ["a"])
        ledger.spend(ONE, ["a"])
        with pytest.raises(ConsiliumError, match="privacy budget"):
            ledger.refuse(ONE, ["a", "b"])
        ledger.refuse(ONE, ["b"])
        assert ledger.head().count == 2


def test_a_ledger_of_an_older_version_is_taken_over_once(ledger):
    entries = [{"kind": "spending", **asdict(replace(ONE, round_number=n))} for n in (1, 2)]
    head = ledger.take_over("old.jsonl", "abc", entries)
    assert ledger.take_over("old.jsonl", "abc", entries) == head == Head(1, head.hash)
    assert len(ledger.spendings()) == 2
    assert ledger.migrated() == {"old.jsonl": "abc"}
    assert ledger.take_over("other.jsonl", "abc", entries[:1]).count == 2


def test_of_a_ledger_that_is_not_there_there_is_nothing_and_asking_makes_nothing(ledger):
    assert ledger.spendings() == ledger.budgets() == ledger.hashes() == []
    assert ledger.head() == ledger.last() == Head()
    assert ledger.trained_on() == frozenset()
    assert not ledger.path.parent.exists()


def test_a_ledger_is_read_where_no_lock_can_be_made_and_nothing_is_entered(ledger, monkeypatch):
    heads = [ledger.spend(ONE, ["a"]), ledger.set_budget(Budget("record", 9.0, 1e-5))]
    monkeypatch.setattr(hash_chain, "locked", _no_lock)
    _forget()
    assert len(ledger.spendings()) == 1
    assert ledger.hashes() == [head.hash for head in heads]
    assert ledger.head() == heads[-1]
    for enter in (
        lambda: ledger.spend(ONE, ["a"]),
        lambda: ledger.set_budget(Budget("record", 9.0, 1e-5)),
        lambda: ledger.take_over("old.jsonl", "abc", []),
    ):
        with pytest.raises(ConsiliumError, match="no lock"):
            enter()
    assert ledger.last() == heads[-1]


@contextmanager
def _no_lock(path):
    raise ConsiliumError("no lock")
    yield


def test_ledgers_lie_in_the_sites_home_or_where_they_are_said_to(
    consilium_home, tmp_path, monkeypatch
):
    monkeypatch.delenv("CONSILIUM_LEDGER", raising=False)
    assert ledger_module.ledger_root() == (consilium_home / "ledger").resolve()
    monkeypatch.setenv("CONSILIUM_LEDGER", str(tmp_path / "elsewhere"))
    assert ledger_module.ledger_root() == (tmp_path / "elsewhere").resolve()


def test_without_its_heads_file_an_entry_is_still_counted(ledger):
    ledger.spend(ONE, ["a"])
    ledger.head_path.unlink()
    _forget()
    assert ledger.spendings() == [replace(ONE, records=record_set(["a"]).name)]


def test_the_records_of_a_ledger_are_told_apart_by_what_touched_them(ledger):
    told = replace(NOTHING, mechanism=EVALUATION)
    ledger.spend(ONE, ["a", "b"])
    ledger.spend(told, ["b", "c"])
    assert ledger.trained_on() == {"a", "b"}
    assert ledger.evaluated_only() == {"c"}
    ledger.spend(told)
    assert ledger.evaluated_only() == {"c"}
    assert ledger.trained_on() == {"a", "b"}
    ledger.spend(ONE)
    assert ledger.trained_on() is None


class TestEvaluation:
    TOLD = Spending(EVALUATION, "record", 0.0, 1.0, 1, 0.0, 1, "run", "adrenal", "site-00")

    def test_cases_that_are_only_evaluated_are_counted_apart(self, ledger):
        ledger.spend(ONE, ["a"])
        ledger.spend(self.TOLD, ["t"])
        assert ledger.evaluated_only() == {"t"}
        assert ledger.histories(["a", "t"], "record").worst(1e-5, "rdp") < inf
        assert ledger.histories(["a", "t"], "site").worst(1e-5, "rdp") == inf  # of single cases

    def test_a_case_that_is_both_has_no_bound(self, ledger):
        ledger.spend(ONE, ["a", "b"])
        ledger.spend(self.TOLD, ["b"])
        assert ledger.histories(["a"], "record").worst(1e-5, "rdp") < inf
        assert ledger.histories(["b"], "record").worst(1e-5, "rdp") == inf
        assert not ledger.evaluated_only()

    @pytest.mark.parametrize("unit", ["record", "site"])
    def test_under_a_budget_no_case_is_both(self, ledger, unit):
        ledger.set_budget(Budget(unit, 1e5, 1e-5))
        one = replace(ONE, unit=unit)
        ledger.spend(one, ["a"])
        ledger.spend(self.TOLD, ["t"])
        with pytest.raises(ConsiliumError, match="and cases to be evaluated were trained on"):
            ledger.spend(self.TOLD, ["a", "u"])
        with beyond("would make it inf"):
            ledger.spend(one, ["b", "t"])
        assert len(ledger.spendings()) == 2

    def test_a_budget_may_refuse_it_altogether(self, ledger):
        ledger.set_budget(Budget("record", 8.0, 1e-5, evaluation="refuse"))
        with pytest.raises(ConsiliumError, match="refuses that any case is evaluated"):
            ledger.spend(self.TOLD, ["t"])

    def test_after_an_entry_of_unknown_records_any_case_may_have_been_trained_on(self, ledger):
        ledger.spend(ONE)
        ledger.set_budget(Budget("record", 8.0, 1e-5))
        with pytest.raises(ConsiliumError, match="or may have been"):
            ledger.spend(self.TOLD, ["t"])


class TestBudget:
    def test_a_release_beyond_the_budget_is_refused_and_not_entered(self, ledger):
        ledger.set_budget(Budget("record", 3.0, 1e-5))
        for number in range(1, 100):
            try:
                ledger.spend(replace(ONE, round_number=number))
            except RefusalError as error:
                said, kept = str(error), error.kept
                break
        assert f"round {number} of run run would make it" in kept
        assert "Of the budget of epsilon=3 at delta=1e-05" in kept
        assert "site-00 has a privacy budget of epsilon=3 at delta=1e-05" in said
        # How much is spent others do not read, in whatever form.
        spent_so_far = spent(ledger.spendings(), "record", 1e-5, "prv")
        assert f"{spent_so_far:.3g} is spent" in kept
        assert f"{spent_so_far:.3g}" not in said
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
        assert ledger.budgets() == [Budget("record", 10.0, 1e-5)]
        assert ledger.head().count == 3

    def test_a_record_level_release_has_no_place_in_a_site_budget(self, ledger):
        ledger.set_budget(Budget("site", 100.0, 1e-5))
        with beyond("would make it inf"):
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
        lines = written.path.read_text().splitlines()
        body = lines[1].rpartition(', "hash": "')[0].replace(": 2.0", ": 100.0") + "}"
        lines[1] = f'{body[:-1]}, "hash": "{sha256(body.encode()).hexdigest()}"}}'
        assert json.loads(lines[1])["noise_multiplier"] == 100.0
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

    def test_both_files_put_back_to_an_older_copy_that_a_run_has_seen(self, written):
        old = written.path.read_bytes(), written.head_path.read_bytes()
        keep_head(written.path, written.spend(replace(ONE, round_number=4)), "run")
        written.path.write_bytes(old[0])
        written.head_path.write_bytes(old[1])
        self.refused(written, "1 entries at its end are missing, which are on record elsewhere")
        written.path.unlink()
        written.head_path.unlink()
        self.refused(written, "4 entries at its end are missing, which are on record elsewhere")

    def test_another_past_than_the_one_that_a_run_has_seen(self, written):
        keep_head(written.path, written.head(), "run")
        for path in (written.path, written.head_path):
            path.unlink()
        _forget()
        other = Ledger(written.path.with_name("other.jsonl"))
        for number in (5, 6, 7):
            other.spend(replace(ONE, round_number=number))
        other.path.rename(written.path)
        other.head_path.rename(written.head_path)
        self.refused(written, "entry 3 is not the one that was kept on record")

    def test_a_changed_or_missing_set_of_records(self, written):
        written.spend(ONE, ["a", "b"])
        (path,) = written.sets.folder.glob("*.txt")
        path.write_text("a\nc\n")
        with pytest.raises(ConsiliumError, match=r"set of records .* missing or was changed"):
            written.head()
        path.unlink()
        with pytest.raises(ConsiliumError, match=r"set of records .* missing or was changed"):
            written.head()
        # Written anew with the next entry that names it.
        written.spend(ONE, ["b", "a"])
        assert written.head().count == 5

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
