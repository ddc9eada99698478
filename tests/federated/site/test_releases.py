"""What a site has released is stored before it is sent, and sent as it was stored."""

import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.run.folder import RunFolder
from federated.secrets.home import consilium_home, private_folder
from federated.site.home import SiteHome
from federated.site.releases import ReleaseStore, Sources, arrays_digest
from federated.stages.coordinator import begin_round
from tests.conftest import PROJECT
from tests.federated.federation import SITE, begin, entries, sent

SOURCES = Sources(
    *("update", "run", "site-00", 3, {"seed": 0}, ("site-00",), ("a", "b"), {"clip": 1.0}),
    *({"state": "0"}, "code"),
)
PARTS = {"update": b"\x00\n\xff" * 9, "memory": b"", "more": b"line\nline"}
OTHERS = {
    "kind": "quantised",
    "run": "another",
    "site": "site-01",
    "round_number": 4,
    "experiment": {"seed": 1},
    "participants": ("site-00", "site-01"),
    "records": ("b", "a"),
    "plan": {"clip": 2.0},
    "inputs": {"state": "1"},
    "code": "another",
}


@pytest.fixture
def store(tmp_path):
    home = SiteHome(tmp_path / "site-00")
    return ReleaseStore(home.run("run").releases, home.root)


def never():
    raise AssertionError("made again")


def stored(store: ReleaseStore) -> Path:
    (path,) = store.place.glob("*.release")
    return path


class TestStore:
    def test_the_same_is_made_once(self, store):
        assert store.once(SOURCES, lambda: PARTS) == PARTS
        assert ReleaseStore(store.place, store.home).once(SOURCES, never) == PARTS

    @pytest.mark.parametrize("field", OTHERS)
    def test_of_other_sources_it_is_another_release(self, store, field):
        store.once(SOURCES, lambda: PARTS)
        other = replace(SOURCES, **{field: OTHERS[field]})
        assert store.once(other, lambda: {"update": b"other"}) == {"update": b"other"}
        assert set(OTHERS) == set(Sources.__dataclass_fields__)

    def test_what_fails_is_not_stored(self, store):
        with pytest.raises(AssertionError, match="made again"):
            store.once(SOURCES, never)
        assert store.once(SOURCES, lambda: PARTS) == PARTS

    def test_rounds_before_are_not_kept_and_those_of_the_round_are(self, store):
        quantised = replace(SOURCES, kind="quantised")
        for sources in (SOURCES, quantised, replace(SOURCES, round_number=9)):
            store.once(sources, lambda: PARTS)
        assert stored(store).name == "round-009.update.release"
        store.once(replace(quantised, round_number=9), lambda: PARTS)
        assert len(list(store.place.glob("*.release"))) == 2
        store.once(replace(SOURCES, round_number=1000), lambda: PARTS)
        assert stored(store).name == "round-1000.update.release"

    def test_once_closed_a_record_of_digests_is_left(self, store):
        store.once(SOURCES, lambda: PARTS)
        store.close()
        (line,) = map(json.loads, (store.place / "released.jsonl").read_text().splitlines())
        assert (line["round"], line["kind"], line["sources"]) == (3, "update", SOURCES.digest)
        assert not list(store.place.glob("*.release"))
        assert store.once(SOURCES, lambda: {"update": b"new"}) == {"update": b"new"}

    @pytest.mark.parametrize("position", [0, 63, 64, 70, -1])
    def test_a_damaged_release_is_made_anew_aloud(self, store, position, caplog):
        store.once(SOURCES, lambda: PARTS)
        content = bytearray(stored(store).read_bytes())
        content[position] ^= 1
        stored(store).write_bytes(content)
        with caplog.at_level(logging.WARNING):
            assert store.once(SOURCES, lambda: {"update": b"new"}) == {"update": b"new"}
        assert "is damaged, so site-00 makes round 3 anew, with other noise" in caplog.text
        assert store.once(SOURCES, never) == {"update": b"new"}

    @pytest.mark.parametrize("length", [0, 10, 64, 100])
    def test_a_truncated_release_is_made_anew(self, store, length):
        store.once(SOURCES, lambda: PARTS)
        stored(store).write_bytes(stored(store).read_bytes()[:length])
        assert store.once(SOURCES, lambda: {"update": b"new"}) == {"update": b"new"}

    def test_names_do_not_lead_out_of_the_home(self, tmp_path):
        for name in ("../../other", "/other", "a/b", ".", ""):
            with pytest.raises(ConsiliumError, match="Use letters, digits"):
                SiteHome(tmp_path).run(name)
            with pytest.raises(ConsiliumError, match="cannot be a site's name"):
                RunFolder(tmp_path).home_path(name)

    def test_they_lie_in_the_home_of_their_site_and_in_no_other_place(self, project):
        run = begin("privacy.name=site_level", "privacy.noise_multiplier=1", "privacy.clip=1")
        sent(run)
        everywhere = [*project.rglob("*.release"), *consilium_home().rglob("*.release")]
        assert everywhere == [stored(ReleaseStore(run.store(SITE).releases, run.home(SITE).root))]
        assert everywhere[0].is_relative_to(run.home(SITE).root)

    def test_a_store_that_cannot_be_written_to_is_named(self, store):
        private_folder(store.place.parent, store.home)
        store.place.write_text("")
        with pytest.raises(ConsiliumError, match="Nothing is sent that is not stored first"):
            store.once(SOURCES, never)


def test_the_digest_of_arrays_tells_names_types_shapes_and_values_apart():
    zero = np.zeros(4, np.float32)
    variants = [
        *({"a": zero}, {"b": zero}, {"a": zero, "b": zero}, {"a": zero[:0]}, {}),
        *({"a": zero.reshape(2, 2)}, {"a": zero.view(np.int32)}, {"a": -zero}),
        {"a": np.zeros(4)},
    ]
    assert len({arrays_digest(arrays) for arrays in variants}) == len(variants)
    assert arrays_digest({"a": np.arange(4)[::2]}) == arrays_digest({"a": np.array([0, 2])})


def test_a_damaged_release_is_never_replaced_by_one_with_the_same_noise(project, caplog):
    run = begin("privacy.name=site_level", "privacy.noise_multiplier=100", "privacy.clip=1")
    first = sent(run).vector
    (path,) = run.store(SITE).releases.glob("*.release")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    second = sent(run).vector
    assert (first != second).mean() > 0.99
    assert entries(run) == 2
    assert "a further entry in its ledger" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="dies in copies of a process")
def test_killed_at_any_write_a_site_has_entered_what_it_sends_and_sends_it_once(project, tmp_path):
    """In processes that die at each write in turn, until one lives to the end."""
    run = begin(
        *("privacy.name=dp_sgd", "privacy.noise_multiplier=2", "privacy.adaptive.rate=0.5"),
        "model.name=shallow_cnn",
    )
    begin_round(run.coordinator, 1)
    call = run.call(SITE)
    command = [sys.executable, "-m", "tests.federated.mortal_site"]
    home = tmp_path / "homes"
    done = subprocess.run(
        [*command, str(call.home), str(call.exchange), call.run, str(home)],
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    moments = [json.loads(line) for line in done.stdout.splitlines()]
    for at_death, after in moments:
        was_sent = {key: at_death[key] for key in (call.run, "memory") if key in at_death}
        # Nothing is sent that is not stored, nothing is stored that is not entered.
        assert at_death["stored"] or not was_sent
        assert at_death["entries"] == 1 or not at_death["stored"]
        # What is stored is sent, and whatever was sent is what is sent again.
        assert was_sent.items() <= after.items()
        assert after["entries"] == (1 if at_death["stored"] else at_death["entries"] + 1)
        assert {call.run, "memory"} <= set(after)
    kinds = {(d["entries"], d["stored"], len(d)) for d, _ in moments}
    assert {(0, False, 2), (1, False, 2), (1, True, 2), (1, True, 3), (1, True, 4)} <= kinds
    # Fresh noise each time.
    assert len({after[call.run] for _, after in moments}) == len(moments)
