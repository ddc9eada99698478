"""How far a run is, on a terminal and on the coordinator's page."""

import json

import pytest
from rich.console import Console

from federated.configuration.load import resolve
from federated.errors import ConsiliumError
from federated.run.coordinator_home import CoordinatorHome
from federated.run.folder import RunFolder
from federated.run.runs import latest_run, new_run, point_latest, reopen_run, worked_on
from federated.run.status import SiteStatus, run_status, sites_of
from flows.coordinator_life import status_lines as coordinator_lines
from flows.pausing import pause, unpause
from flows.status_page import status_of_coordinator, status_page
from flows.watching import status_lines, watch, watched_run
from tests.conftest import TINY_PARAMS


def record(number, seconds=2.0, **other):
    return {
        "round": number,
        "sites": ["site-00"],
        "dropped": {"site-01": "late <b>by far</b>"},
        "absent": {},
        "lost": None,
        "metrics": {"val": {"auc": 0.75, "loss": None}},
        "epsilon_rdp": {"site-00": 0.5 * number},
        "seconds": {"total": seconds, "local_train": 1.5, "unmask": 0.0},
        **other,
    }


TOLD = {"site-00": {"budget": 3.0, "epsilon_ledger": 1.25}}


def status(records, state="works", told=TOLD):
    return run_status("organ", "20260101", state, 6, records, sites_of(records, told))


def text_of(found) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    for part in status_lines(found):
        console.print(part, highlight=False, markup=False)
    return console.export_text()


def test_the_time_left_follows_from_the_newest_rounds():
    assert status([record(1, 4.0), record(2, 2.0)]).seconds_left == pytest.approx(12.0)
    many = [record(1, 1000.0), *(record(n, 1.0) for n in range(2, 7))]
    assert run_status("organ", "x", "works", 9, many, []).seconds_left == pytest.approx(3.0)
    assert status([]).seconds_left is None
    assert status([record(n) for n in range(1, 7)], "done").seconds_left == 0


def test_of_a_private_run_no_time_is_told():
    private = status([record(1) | {"seconds": {"total": None, "local_train": None}}])
    assert private.seconds_left is None
    assert private.stages == {}
    assert "time left not told" in text_of(private)
    assert " s" not in text_of(private).split("\n")[0].replace("time left not told", "")


def test_of_a_run_that_was_stopped_the_command_that_goes_on_with_it_is_told():
    stopped = status([record(1)], "stopped")
    command = "stopped, 1 of 6 rounds done, goes on with `consilium resume organ 20260101`"
    assert command in " ".join(text_of(stopped).split())
    assert "consilium resume organ 20260101" in status_page([], [stopped])
    assert "consilium resume" not in text_of(status([record(1)]))


def test_a_site_has_what_is_left_of_its_budget_and_why_it_is_left_out():
    first, second = status([record(1), record(2)]).sites
    assert first == SiteStatus("site-00", 2, "", 1.0, 1.75)
    assert (second.summed, second.spent, second.left) == (0, None, None)
    lost = status([record(1, lost="nobody opened it")]).sites
    assert [site.summed for site in lost] == [0, 0]


def test_both_renderings_have_the_same_facts():
    found = status([record(1), record(2)])
    terminal, page = text_of(found), status_page(["site-00  enrolled"], [found])
    for fact in ("organ 20260101", "2 of 6 rounds done", "about 0 min 08 s left", "auc 0.750",
                 "local_train 1.5 s", "site-01", "1.75"):  # fmt: skip
        assert fact in terminal, fact
        assert fact in page, fact
    assert "unmask" not in terminal + page


def test_the_page_changes_under_nobody_who_has_not_asked_for_it():
    page = status_page([], [status([record(1)])], "2026-11-27 04:00:00 UTC")
    assert "http-equiv" not in page
    assert "As of 2026-11-27 04:00:00 UTC" in page
    assert 'href="/status/anew"' in page
    anew = status_page([], [status([record(1)])], anew=True)
    assert '<meta http-equiv="refresh" content="15">' in anew
    assert '<a href="/status">Stop that</a>' in anew


def test_what_a_site_says_is_text_on_the_page_and_in_the_terminal():
    said = "<script>alert(1)</script>\x1b[2J"
    found = status([record(1, dropped={"site-01": said})])
    page = status_page([f"site-09 {said}"], [found])
    assert "<script" not in page
    assert "\x1b" not in page + text_of(found)
    assert "&lt;script&gt;" in page


def test_nothing_that_a_site_says_is_markup():
    said = "cannot read [/data/x.nii] [red]it[/red] :smile:"
    found = status([record(1) | {"dropped": {"site-01": said}}])
    assert said in " ".join(text_of(found).split())


def test_records_of_older_versions_are_shown():
    old = {k: v for k, v in record(1).items() if k not in ("absent", "lost", "epsilon_rdp")}
    assert [site.summed for site in sites_of([old], {})] == [1, 0]


@pytest.fixture
def damaged(tmp_path):
    """A run whose first record is cut off, beside one that is whole."""
    folders = [new_run(tmp_path, resolve("tiny", TINY_PARAMS["defaults"], "")) for _ in range(2)]
    for folder in folders:
        folder.record_path(1).parent.mkdir()
        folder.record_path(1).write_text(json.dumps(record(1)))
    path = folders[0].record_path(1)
    path.write_text(path.read_text()[:30])
    return folders


def test_a_run_that_cannot_be_read_is_on_the_page_with_the_reason(damaged, tmp_path):
    broken, whole = damaged
    page = status_of_coordinator(CoordinatorHome(tmp_path / "home"), tmp_path)
    assert f"tiny {whole.run_id}</h3><p>stopped: 1 of 2 rounds done" in page
    assert f"tiny {broken.run_id}</h3><p>The record of round 1, " in page
    (whole.root / "config.json").write_text("[]")
    page = status_of_coordinator(CoordinatorHome(tmp_path / "home"), tmp_path)
    assert f"tiny {whole.run_id}</h3><p>" in page
    assert f"{whole.root}/config.json" in page


def begin_with(folder, site):
    """Put into a run's folder what it is made from, as a run does that has begun."""
    inputs = {"path": "x", "source": "files", "md5": "", "excluded_sites": []}
    cases = {site: {"train": 1, "val": 1, "test": 1}}
    folder.partition_path.write_text(json.dumps({"draws": 0, "moved": 0, "cases": cases}))
    folder.inputs_path.write_text(json.dumps(inputs))


@pytest.mark.parametrize("content", ["[]", '{"budget": "much", "epsilon_ledger": []}', "{"])
def test_what_a_site_has_told_of_its_budget_and_is_nothing_is_not_told(damaged, tmp_path, content):
    _, whole = damaged
    begin_with(whole, "site-00")
    whole.ledger_path("site-00").parent.mkdir()
    whole.ledger_path("site-00").write_text(content)
    page = status_of_coordinator(CoordinatorHome(tmp_path / "home"), tmp_path)
    assert f"tiny {whole.run_id}</h3><p>stopped" in page


def test_to_watch_a_run_that_cannot_be_read_says_which_file_it_is(damaged):
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    with pytest.raises(ConsiliumError, match=r"round 1, .*round\.json, cannot be read"):
        watch(console, damaged[0], once=True)
    # Whatever it is that is wrong with it.
    (damaged[1].root / "inputs.json").mkdir()
    damaged[1].paused_path.mkdir()
    damaged[1].record_path(1).write_text(json.dumps(record(1) | {"absent": {"a": []}}))
    watch(console, damaged[1], once=True)


def test_the_coordinators_status_names_a_run_that_cannot_be_read(damaged, consilium_home, tmp_path):
    home = CoordinatorHome.default()
    home.make_identity()
    address = {"names": ["localhost"], "host": "127.0.0.1", "port": 1, "url": "https://localhost:1"}
    home.settings_path.write_text(json.dumps(address))
    broken, whole = damaged
    (broken.root / "config.json").write_text("{")
    with worked_on(broken), worked_on(whole):
        said = "\n".join(coordinator_lines(home, tmp_path))
    assert f"run tiny {whole.run_id}: 1 of 2 rounds done" in said
    assert f"{broken.root}/config.json" in said


def begun_run(runs, run_id: str, *, latest: bool) -> RunFolder:
    """A run of which nothing is there but its configuration."""
    made = new_run(runs, resolve("tiny", TINY_PARAMS["defaults"], ""))
    made.root.rename(made.root.with_name(run_id))
    folder = RunFolder(made.root.with_name(run_id))
    if latest:
        point_latest(folder)
    return folder


def shown(runs, experiment=None) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    watch(console, watched_run(runs, experiment), once=True)
    return console.export_text()


@pytest.mark.parametrize("experiment", ["tiny", None])
def test_a_run_that_is_still_starting_is_the_one_that_is_watched(tmp_path, experiment):
    old = begun_run(tmp_path, "20260101-000000-aaaa", latest=True)
    new = begun_run(tmp_path, "20260102-000000-bbbb", latest=False)
    with worked_on(new):
        assert f"tiny {new.run_id}: starts, 0 of 2 rounds done" in shown(tmp_path, experiment)
        assert "nobody works" not in shown(tmp_path, experiment)
        begin_with(new, "site-00")
        assert f"tiny {new.run_id}: works, 0 of 2 rounds done" in shown(tmp_path, experiment)
    # It has broken off: what `latest` points to is the newest that one can go on with.
    assert latest_run(tmp_path, "tiny").run_id == old.run_id
    assert "nobody works on it now" in shown(tmp_path, experiment)


def test_a_run_that_is_gone_on_with_is_watched_and_not_a_newer_one(tmp_path):
    old = begun_run(tmp_path, "20260101-000000-aaaa", latest=False)
    begun_run(tmp_path, "20260102-000000-bbbb", latest=True)
    with worked_on(old):
        assert watched_run(tmp_path, "tiny").run_id == old.run_id


def test_a_run_that_is_still_starting_is_paused_and_let_go_on(tmp_path):
    old = begun_run(tmp_path, "20260101-000000-aaaa", latest=True)
    with pytest.raises(ConsiliumError, match=f"Nobody works on run {old.run_id}"):
        pause(tmp_path, "tiny", "latest")
    new = begun_run(tmp_path, "20260102-000000-bbbb", latest=False)
    with worked_on(new):
        said = pause(tmp_path, "tiny", "latest")
        assert f"run {new.run_id} of tiny stops" in said
        # A command that can be copied: also where runs lie in another folder than usual.
        assert said.endswith(f"consilium resume tiny {new.run_id} --runs {tmp_path}")
        assert (new.paused_path.is_file(), old.paused_path.is_file()) == (True, False)
        assert "paused" in shown(tmp_path, "tiny")
        found = unpause(tmp_path, "tiny", "latest")
        assert found
        assert (found.run_id, new.paused_path.is_file()) == (new.run_id, False)
        # Nothing is paused any more: whoever says `resume` means the one that was stopped.
        assert unpause(tmp_path, "tiny", "latest") is None


class TestAnUnknownName:
    """What is said where there is no run of a name."""

    def told(self, project, name):
        with pytest.raises(ConsiliumError) as caught:
            watched_run(project / "runs", name)
        return str(caught.value)

    @pytest.fixture
    def organ(self, project):
        made = resolve("organ", TINY_PARAMS["defaults"], "")
        folder = new_run(project / "runs", made)
        point_latest(folder)
        return folder

    def test_near_to_one_with_runs_it_is_that(self, project, organ):
        said = self.told(project, "orgn")
        assert "Did you mean 'organ'? Look at its newest run with: consilium watch organ." in said
        assert "There are runs of: organ;" in said
        assert "consilium run orgn" not in said

    def test_near_to_an_experiment_it_is_how_to_run_that(self, project, organ):
        said = self.told(project, "tinny")
        assert "Did you mean 'tiny', an experiment without a run?" in said
        assert "consilium run tiny;" in said

    def test_near_to_nothing_no_unknown_experiment_is_proposed(self, project, organ):
        said = self.told(project, "nope")
        assert "There are runs of: organ." in said
        assert "consilium run nope" not in said
        assert "consilium run NAME, where NAME is one of tiny" in said

    def test_of_an_experiment_it_is_how_to_run_it(self, project):
        assert "Start one with: consilium run tiny;" in self.told(project, "tiny")

    def test_the_id_of_a_run_is_known(self, project, organ):
        said = self.told(project, organ.run_id)
        assert "It is the id of a run of 'organ': give the experiment's name, organ." in said

    def test_an_id_that_is_none_is_told_the_nearest(self, project, organ):
        with pytest.raises(ConsiliumError, match=f"Did you mean '{organ.run_id}'"):
            reopen_run(project / "runs", "organ", organ.run_id[:-1], None)
