"""A chain of entries: what its file looks like, and every way in which it may be damaged."""

import json
import os
from contextlib import contextmanager
from hashlib import sha256

import pytest

from federated.errors import ConsiliumError
from federated.privacy import hash_chain
from federated.privacy.hash_chain import FIRST, Checked, HashChain, Head


@pytest.fixture
def chain(tmp_path):
    return HashChain(tmp_path / "chain" / "site.jsonl", "chain")


def write(chain, *numbers):
    """Append an entry for each number, as a process that has read all before; what it knows."""
    checked = Checked()
    with chain.locked(writing=True):
        assert len(list(chain.read(checked, {}))) == checked.head.count
        for number in numbers:
            chain.append(checked, {"number": number})
    return checked


def read(chain, checked=None, heads=None):
    with chain.locked(writing=False):
        entries = list(chain.read(checked or Checked(), heads or {}))
    return [entry["number"] for entry in entries]


def set_head(chain, **changes):
    value = json.loads(chain.head_path.read_text())
    chain.head_path.write_text(json.dumps(value | changes))


def add_line(chain, line, known):
    """Add a line behind the last one, with a head that fits it."""
    with chain.path.open("ab") as file:
        file.write(line)
    digest = line.rpartition(b', "hash": "')[2][:64].decode()
    set_head(chain, count=known.head.count + 1, hash=digest)


def with_hash(body):
    return body[:-1] + b', "hash": "' + sha256(body).hexdigest().encode() + b'"}\n'


class TestFile:
    def test_each_line_names_the_hash_of_the_one_before_and_ends_with_its_own(self, chain):
        known = write(chain, 7, 8)
        lines = chain.path.read_bytes().splitlines(keepends=True)
        previous = "0" * 64
        for line in lines:
            entry = json.loads(line)
            assert entry["previous"] == previous
            assert len(entry["salt"]) == 32
            previous = entry["hash"]
            body = line.rpartition(b', "hash": "')[0] + b"}"
            assert sha256(body).hexdigest() == previous
        assert json.loads(chain.head_path.read_text()) == {"count": 2, "hash": previous}
        assert known.head == Head(2, previous)
        assert Head() == Head(0, "0" * 64) == Head(0, FIRST)

    def test_it_and_its_head_and_their_folder_are_their_owners_alone(self, chain):
        write(chain, 1)
        assert chain.path.stat().st_mode & 0o777 == 0o600
        assert chain.head_path.stat().st_mode & 0o777 == 0o600
        assert chain.path.parent.stat().st_mode & 0o777 == 0o700

    def test_an_entry_is_whole_where_the_system_writes_a_few_bytes_at_a_time(
        self, chain, monkeypatch
    ):
        whole = os.write
        monkeypatch.setattr(os, "write", lambda handle, line: whole(handle, line[:7]))
        write(chain, 1, 2)
        assert read(chain) == [1, 2]

    def test_what_a_crash_left_of_an_entry_is_written_over(self, chain):
        known = write(chain, 1, 2)
        with chain.path.open("ab") as file:
            file.write(b'{"number": 3, ' + b"x" * 1000)
        assert read(chain) == [1, 2]
        assert read(chain, known) == []
        write(chain, 3)
        assert chain.path.read_bytes().count(b"\n") == 3
        assert read(chain) == [1, 2, 3]

    def test_reading_makes_nothing(self, chain):
        assert read(chain) == []
        assert not chain.path.parent.exists()


class TestLock:
    def test_where_no_lock_can_be_made_it_is_read_and_not_written(self, chain, monkeypatch):
        write(chain, 1)

        @contextmanager
        def no_lock(path):
            raise ConsiliumError("no lock can be made")
            yield

        monkeypatch.setattr(hash_chain, "locked", no_lock)
        assert read(chain) == [1]
        with pytest.raises(ConsiliumError, match="no lock can be made"):
            write(chain, 2)

    def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(self, chain):
        chain.path.parent.write_text("a file in the folder's place")
        with pytest.raises(ConsiliumError, match=r"cannot be written to.*CONSILIUM_LEDGER"):
            write(chain, 1)


class TestHead:
    @pytest.mark.parametrize("knows", [False, True])
    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_one_of_another_hash_is_noticed_whatever_was_read_before(self, chain, knows, count):
        known = write(chain, 1, 2, 3)
        set_head(chain, count=count, hash="f" * 64)
        with pytest.raises(ConsiliumError, match=r"not those that its head was written for|crash"):
            read(chain, known if knows else None)

    @pytest.mark.parametrize("knows", [False, True])
    def test_one_entry_behind_is_what_a_crash_leaves_and_two_are_not(self, chain, knows):
        before = write(chain, 1, 2)
        old = chain.head_path.read_text()
        known = write(chain, 3)
        chain.head_path.write_text(old)
        assert read(chain, known if knows else before) == ([] if knows else [3])
        known = write(chain, 4)
        chain.head_path.write_text(old)
        with pytest.raises(ConsiliumError, match="older than its last entry by more than a crash"):
            read(chain, known if knows else None)

    def test_none_is_there_where_the_first_entry_was_cut_short_by_a_crash(self, chain):
        write(chain, 1)
        chain.head_path.unlink()
        assert read(chain) == [1]
        write(chain, 2)
        chain.head_path.unlink()
        with pytest.raises(ConsiliumError, match="older than its last entry by more than a crash"):
            read(chain)

    def test_entries_that_it_has_and_the_file_has_not_are_counted(self, chain):
        known = write(chain, 1)
        set_head(chain, count=3)
        with pytest.raises(ConsiliumError, match=": 2 entries at its end are missing"):
            read(chain, known)

    @pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"count": 1, "other": 2}'])
    def test_one_that_cannot_be_read_is_no_head(self, chain, text):
        write(chain, 1)
        chain.head_path.write_text(text)
        with pytest.raises(ConsiliumError, match=r"its head site\.head\.json cannot be read"):
            read(chain)

    def test_heads_on_record_elsewhere_have_to_fit(self, chain):
        known = write(chain, 1, 2)
        hashes = {2: known.head.hash}
        assert read(chain, heads=hashes) == [1, 2]
        with pytest.raises(ConsiliumError, match="entry 1 is not the one that was kept on record"):
            read(chain, heads=hashes | {1: "f" * 64})
        with pytest.raises(ConsiliumError, match=": 3 entries at its end are missing, which are"):
            read(chain, heads=hashes | {5: "f" * 64})


class TestLines:
    @pytest.mark.parametrize(
        "damage",
        [
            lambda line: line.replace(b'"}\n', b'" }\n'),
            lambda line: line.replace(b'"}\n', b'0"}\n'),
            lambda line: line.replace(b', "hash": ', b', "hush": '),
            lambda line: b"\n",
            lambda line: b"{}\n",
        ],
        ids=["a space", "a longer hash", "no hash", "an empty line", "an empty entry"],
    )
    def test_a_damaged_line_is_refused(self, chain, damage):
        write(chain, 1, 2)
        lines = chain.path.read_bytes().splitlines(keepends=True)
        chain.path.write_bytes(lines[0] + damage(lines[1]))
        with pytest.raises(ConsiliumError, match="entry 2 was changed, or one before it removed"):
            read(chain)

    def test_a_line_whose_hash_fits_and_that_follows_no_other_is_refused(self, chain):
        known = write(chain, 1)
        body = json.dumps({"number": 2, "previous": "f" * 64}).encode()
        add_line(chain, with_hash(body), known)
        with pytest.raises(ConsiliumError, match="entry 2 was changed"):
            read(chain)

    @pytest.mark.parametrize("body", [b"no json}", b'{"number": "\xff"}'])
    def test_a_line_whose_hash_fits_and_that_is_no_json_is_refused(self, chain, body):
        known = write(chain, 1)
        add_line(chain, with_hash(body), known)
        with pytest.raises(ConsiliumError, match="entry 2 was changed"):
            read(chain)


class TestExtends:
    def test_the_same_file_with_more_at_its_end_does(self, chain):
        known = write(chain, 1)
        assert chain.extends(known)
        write(chain, 2)
        assert chain.extends(known)
        assert read(chain, known) == [2]

    def test_nothing_extends_what_was_never_read_and_no_file_extends_anything(self, chain):
        assert not chain.extends(Checked())
        known = write(chain, 1)
        assert not chain.extends(Checked(size=known.size))
        chain.path.unlink()
        assert not chain.extends(known)

    def test_a_shorter_file_or_one_written_anew_or_another_in_its_place_does_not(self, chain):
        known = write(chain, 1, 2)
        whole = chain.path.read_bytes()
        chain.path.write_bytes(whole[:-1])
        assert not chain.extends(known)
        chain.path.write_bytes(whole)
        # Of the same length, and changed at another time.
        assert chain.extends(known) == (chain.path.stat().st_ctime_ns == known.state[2])
        other = chain.path.with_name("other")
        other.write_bytes(whole + whole)
        other.rename(chain.path)
        assert not chain.extends(known)
