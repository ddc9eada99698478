"""Numbers for Prometheus, read from the files that other processes write."""

import json
from dataclasses import replace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from federated.data.partition import CaseCounts
from federated.exchange.enrolment import Enrolment
from federated.exchange.identity import Identity
from federated.files import make_folders
from federated.learning.evaluation import Evaluation
from federated.run.coordinator_home import CoordinatorHome
from federated.run.result import StageResult
from federated.run.round_record import RoundRecord
from federated.run.round_table import MOST_ROWS, NOT_TOLD, left_out, round_line, round_table
from federated.run.timing import Interval
from federated.site.home import SiteHome
from flows.coordinator_metrics import CoordinatorMetrics, count_round
from flows.site_metrics import SiteMetrics, count_stage, serving_metrics

COUNTS = CaseCounts({s: {"train": 8, "val": 2, "test": 2} for s in ("site-00", "site-01")})
SIZES = {"up": 300, "down": 800, "up_dense_float32": 4000}


def record(*, timed: bool = True, lost: str | None = None) -> RoundRecord:
    """A round that site-00 is in, and that site-01 was late for."""
    times = (10.0, 14.0) if timed else (None, None)
    stage = StageResult("site-00", "local_train", *times, None, 8, None, 100, 50, 1.5)
    sent = StageResult("site-00", "protect", *times, None, 8, None, 200, 0, 2.0)
    return RoundRecord(
        3, ["site-00"], {"site-01": "it was late"}, [stage, sent], [], Interval(0, 1),
        Evaluation({}, {}, {}, {}), 9.0, 1, timed, lost=lost,
    )  # fmt: skip


def numbers(text: bytes) -> dict[str, float]:
    """The samples of Prometheus' text, as ``name{a=b}``."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_a_rounds_table_has_a_row_for_each_site():
    in_sum, late = round_table(record(), COUNTS, 400)
    assert in_sum == {
        "site": "site-00", "training cases": 8, "bytes up": 300, "bytes down": 450,
        "seconds": 4.0, "ε so far": 2.0, "in the sum": True, "why not": "",
    }  # fmt: skip
    assert (late["site"], late["in the sum"], late["why not"]) == ("site-01", False, "it was late")
    (lost, _) = round_table(record(lost="nobody opened it"), COUNTS, 400)
    assert (lost["in the sum"], lost["why not"]) == (False, "nobody opened it")


def test_of_a_private_round_no_seconds_are_told():
    private = record(timed=False)
    assert round_table(private, COUNTS, 400)[0]["seconds"] == NOT_TOLD
    line = round_line(private, "run", "organ", SIZES, private.seconds())
    assert line["seconds"] == {}
    assert "10.0" not in json.dumps(line)


@pytest.fixture
def home() -> CoordinatorHome:
    """A coordinator's, of a consortium of two sites."""
    home = CoordinatorHome.default()
    home.make_identity()
    members = Enrolment()
    for name in COUNTS.sites:
        members = members.enrol(Identity(name, name.encode().ljust(32)).public)
    members.suspend("site-01").write(home.members_path)
    return home


def test_a_coordinators_numbers_are_those_of_its_files(home):
    metrics = CoordinatorMetrics(home)
    line = round_line(record(), "run", "organ", SIZES, {"local_train": 4.0, "total": None})
    for _ in range(2):
        count_round(home, line)
    assert numbers(metrics.text())["consilium_rounds_total{experiment=organ}"] == 2
    count_round(home, {**line, "lost": True, "summed": []})
    home.audit.add("arrived", sender="site-00", bytes=70)
    for seconds in (61, -300):
        home.audit.add("request refused", sender="site-00", reason=f"clock off by {seconds} s")
    home.audit.add("requests refused", sender="unknown", count=5)
    make_folders(home.exchange_path / "run")
    (home.exchange_path / "run" / "a.message").write_bytes(b"x" * 33)
    make_folders(home.seen_path)
    (home.seen_path / "site-00.json").write_text("{}")
    found = numbers(metrics.text())
    expected = {
        "consilium_rounds_total{experiment=organ}": 3,
        "consilium_rounds_lost_total{experiment=organ}": 1,
        "consilium_site_rounds_total{outcome=summed,site=site-00}": 2,
        "consilium_site_rounds_total{outcome=left_behind,site=site-01}": 3,
        "consilium_round_bytes_total{direction=up}": 900,
        "consilium_stage_seconds_total{stage=local_train}": 12,
        "consilium_site_epsilon{experiment=organ,site=site-00}": 2,
        "consilium_arrived_bytes_total{site=site-00}": 70,
        "consilium_refused_total{reason=clock off by N s}": 2,
        "consilium_refused_total{reason=more of these}": 5,
        "consilium_sites{standing=enrolled}": 1,
        "consilium_sites{standing=suspended}": 1,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["consilium_site_last_hello_timestamp_seconds{site=site-00}"] > 1e9
    # A new process counts the same from the same files.
    again = numbers(CoordinatorMetrics(home).text())
    assert {name: again[name] for name in expected} == expected
    assert again["consilium_exchange_bytes"] == 33


def test_lines_that_are_cut_off_or_strange_stop_nothing(home):
    metrics = CoordinatorMetrics(home)
    home.rounds_path.write_bytes(
        b'{"experiment": "organ"\n[1]\n\xff\n{"experiment": "organ"}\n{"ex'
    )
    assert "consilium_rounds_lost_total{experiment=organ}" not in numbers(metrics.text())
    line = round_line(record(), "run", "organ", SIZES, {})
    for strange in ({}, {**line, "epsilon": None}, {**line, "bytes": {"up": "many"}}, line):
        count_round(home, strange)
    assert numbers(metrics.text())["consilium_round_bytes_total{direction=up}"] == 300


def test_strangers_make_no_series_without_end(home):
    for number in range(200):
        letters = "".join(chr(ord("a") + int(digit)) for digit in str(number))
        home.audit.add("request refused", sender="unknown", reason=f"reason {letters}")
    found = numbers(CoordinatorMetrics(home).text())
    refused = {name: value for name, value in found.items() if "refused" in name}
    assert sum(refused.values()) == 200
    assert len(refused) <= 51


def test_a_sites_numbers_are_read_at_a_loopback_port(tmp_path):
    home = SiteHome(tmp_path / "site-00")
    make_folders(home.root, private=True)
    home.audit.add("uploaded", bytes=70)
    home.audit.add("downloaded", bytes=30)
    home.audit.add("refused", reason="old")
    count_stage(home, "local-train", 2.5, True)
    count_stage(home, "local-train", 0.5, False)
    with serving_metrics(home, 0) as port:
        url = f"http://127.0.0.1:{port}/metrics"
        answer = httpx.get(url, trust_env=False)
        rebound = httpx.get(url, headers={"Host": "evil.example"}, trust_env=False)
        assert httpx.get(url[:-8], trust_env=False).status_code == 404
    found = numbers(answer.content)
    expected = {
        "consilium_site_message_bytes_total{direction=out}": 70,
        "consilium_site_messages_total{direction=in}": 1,
        "consilium_site_refused_total{event=refused}": 1,
        "consilium_site_stages_total{outcome=done,stage=local-train}": 1,
        "consilium_site_stages_total{outcome=failed,stage=local-train}": 1,
        "consilium_site_stage_seconds_total{stage=local-train}": 3,
    }
    assert {name: found[name] for name in expected} == expected
    assert (rebound.status_code, rebound.text) == (400, "Invalid host.\n")
    assert numbers(SiteMetrics(home).text()) == found


def test_of_more_sites_than_a_person_reads_a_table_has_those_left_behind_and_says_so():
    names = [f"site-{number:04d}" for number in range(3 * MOST_ROWS)]
    late = names[::10]
    sites = [name for name in names if name not in late]
    stages = [StageResult(n, "protect", 10.0, 14.0, None, 8, None, 200, 0, None) for n in sites]
    many = replace(record(), sites=sites, dropped=dict.fromkeys(late, "it was late"), stages=stages)
    rows = round_table(many, COUNTS, 400)
    assert len(rows) == MOST_ROWS
    assert [row["site"] for row in rows] == sorted(row["site"] for row in rows)
    assert {row["site"] for row in rows if not row["in the sum"]} == set(late)
    assert all(row["bytes up"] == (200 if row["in the sum"] else 0) for row in rows)
    assert f"{MOST_ROWS} of {len(names)} sites are here" in left_out(many)
    assert left_out(record()) == ""
