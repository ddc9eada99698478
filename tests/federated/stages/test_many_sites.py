"""What a site costs does not grow with how many others there are: calls are counted, no seconds."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import federated.exchange.message
import federated.exchange.policy
from federated import files
from federated.data.partition import CaseCounts
from federated.exchange import kinds
from federated.exchange.enrolment import Enrolment
from federated.exchange.identity import PublicIdentity
from federated.exchange.plan import RoundPlan, RunPlan
from federated.privacy.accounting import Release
from federated.rounds.context import RunContext
from federated.settings.names import LONGEST
from federated.settings.sections import MOST_SITES
from federated.site.home import SiteRun
from federated.stages.compress import compress_site
from federated.stages.coordinator import begin_round
from federated.stages.local_train import train_site
from federated.stages.protect import protect_site
from federated.stages.report import reports
from federated.stages.take_part import take_part
from tests.federated.staged_run import Staged, begin, small_experiment

FEW, MANY = 3, 12


class Counted:
    """How often some functions are called while it counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Counter[str] = Counter()
        for owner, name in (
            (PublicIdentity, "verifies"),
            (federated.exchange.message, "_opened"),
            (RunPlan, "from_bytes"),
            (RoundPlan, "from_bytes"),
            (Enrolment, "enrol"),
            (RunContext, "selected"),
            (SiteRun, "style_path"),
            (files, "make_folders"),
            (federated.exchange.policy.SitePolicy, "model_validate"),
        ):
            monkeypatch.setattr(owner, name, self._noting(getattr(owner, name), owner, name))

    def _noting(self, function, owner, name):
        def noted(*given, **named):
            self.calls[f"{getattr(owner, '__name__', '')}.{name}".rpartition("exchange.")[2]] += 1
            return function(*given, **named)

        # A static or a class method is called through its class, and is handed no class.
        bound = isinstance(vars(owner).get(name), staticmethod | classmethod) or hasattr(
            function, "__self__"
        )
        return staticmethod(noted) if bound else noted

    def during(self, what) -> Counter[str]:
        before = self.calls.copy()
        what()
        return self.calls - before


@pytest.fixture
def counted(monkeypatch) -> Counted:
    return Counted(monkeypatch)


def run_of(sites: int, data: Path, runs: Path) -> Staged:
    experiment = small_experiment(data, sites={"count": sites, "partition": "iid", "min_cases": 1})
    return begin(experiment, runs)


def each_of_a_round(run: Staged, counted: Counted) -> Iterator[Counter[str]]:
    """What each site but the first calls to take part, and to do its part of a round."""
    run.resume()
    begin_round(run.coordinator, 1)
    for number, site in enumerate(run.sites):

        def works(site=site) -> None:
            take_part(run.call(site))
            for stage in (train_site, compress_site, protect_site):
                stage(run.call(site), 1)

        calls = counted.during(works)
        # The first reads for all in its process what is the same for all.
        if number:
            yield calls


def test_what_a_site_reads_checks_and_parses_does_not_grow_with_the_sites(data, tmp_path, counted):
    few = list(each_of_a_round(run_of(FEW, data, tmp_path / "few"), counted))
    many = list(each_of_a_round(run_of(MANY, data, tmp_path / "many"), counted))
    assert len(many) == MANY - 1
    assert all(calls == few[0] for calls in [*few, *many])
    # Each site reads each message for itself,
    assert few[0]["message._opened"] >= 8
    # and what follows from the bytes alone is worked out once in a process: also whether a
    # signature is that of a key.
    once = ("PublicIdentity.verifies", "RunPlan.from_bytes", "RoundPlan.from_bytes")
    for each in (*once, "SitePolicy.model_validate"):
        assert few[0][each] == 0, each
    assert few[0]["RunContext.selected"] == few[0]["SiteRun.style_path"] == 0


def test_a_site_with_other_words_in_its_policy_goes_by_these(data, tmp_path):
    run = run_of(FEW, data, tmp_path / "runs")
    closed, open_ = run.sites[:2]
    path = run.home(closed).policy_path
    path.write_text(path.read_text().replace("max_rounds: 1000000000", "max_rounds: 1"))
    run.home(open_)
    with pytest.raises(Exception, match=rf"{closed} does not take part.*line \d+ of site-policy"):
        run.resume()
    take_part(run.call(open_))


def test_what_the_coordinator_reads_of_a_site_does_not_grow_with_the_sites(data, tmp_path, counted):
    found = []
    for sites in (FEW, MANY):
        run = run_of(sites, data, tmp_path / str(sites))
        begin_round(run.coordinator, 1)
        for site in run.sites:
            for stage in (train_site, compress_site, protect_site):
                stage(run.call(site), 1)
        calls = counted.during(partial(reports, run.coordinator, 1, "protect", run.sites))
        found.append({name: number / sites for name, number in calls.items()})
    assert found[0] == found[1]
    assert found[0]["PublicIdentity.verifies"] == found[0]["message._opened"] == 1


def longest_names() -> list[str]:
    """As many names as a run can have sites, each as long as JSON can make it."""
    letter = "\N{DESERET CAPITAL LETTER LONG I}"
    assert letter.isalpha()
    digits = len(str(MOST_SITES))
    return [
        f"{number:0{digits}d}" + letter * ((LONGEST - digits) // len(letter.encode()))
        for number in range(MOST_SITES)
    ]


def test_a_plan_of_as_many_sites_as_there_can_be_fits_into_a_message(data):
    names = longest_names()
    experiment = small_experiment(data, sites={"count": MOST_SITES, "min_cases": 1})
    keys = {name: PublicIdentity(name, number.to_bytes(32)) for number, name in enumerate(names)}
    cases = {"train": 10**9, "val": 10**9, "test": 10**9}
    release = Release(1.0123456789012345, 0.12345678901234567, 10**9)
    plan = RunPlan(
        experiment,
        "0" * 64,
        keys,
        CaseCounts(dict.fromkeys(names, cases)),
        dict.fromkeys(names, release),
        1,
    )
    assert len(plan.to_bytes()) < kinds.MOST_PLAN
    rounds = dict.fromkeys(names, 10**9)
    of_round = RoundPlan("0" * 64, 10**9, tuple(names), "0" * 64, rounds, 10**9, "0" * 64)
    assert len(of_round.to_bytes()) < kinds.MOST_PLAN
