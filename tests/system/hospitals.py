"""A consortium of hospitals: PostgreSQL, a coordinator and three sites, each a user of its own.

One site's link is bad, the second one's clock is five minutes behind, and the third one sits behind
a proxy. What passes is kept, to be searched.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from federated.configuration.load import load_experiment
from federated.exchange.https.certificates import Authority
from federated.exchange.kit import Kit
from federated.run.coordinator_home import CoordinatorHome
from federated.run.folder import RunFolder
from federated.site.home import SiteHome
from flows.consortium_up import HOST, deal_files
from flows.coordinator_life import Address, enrol, make_coordinator
from flows.site_life import make_site, request_file
from tasks.new_database import cache_folder
from tests.conftest import PROJECT
from tests.federated.exchange.https.bad_link import BadLink, ConnectProxy, TcpRelay
from tests.ports import free_port
from tests.system import postgres
from tests.system.users import User, users

SITES = ("site-00", "site-01", "site-02")
BAD, LATE_CLOCK, PROXIED = SITES
MOST_S = 600
# A name that the proxy alone finds: calls to this machine's own names never go through one.
NAMED = "coordinator.invalid"
BEHIND_S = 300
# As a clock is that nobody has set: for all of Python that asks for the time in this process.
CLOCK = f"""
import time
real = time.time
time.time = lambda: real() - {BEHIND_S}
"""
POLICY = (PROJECT / "docs" / "consortium.md").read_text(encoding="utf-8")
POLICY = POLICY.split("```yaml\n")[1].split("```")[0]


class Keeping(TcpRelay):
    """A relay that keeps what passes."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.kept = bytearray()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, is_up: bool
    ) -> None:
        while content := await source.read(2**16):
            self.kept += content
            sink.write(content)
            await sink.drain()


class KeepingBadLink(BadLink):
    """A bad link that ends TLS, and keeps what requests and answers are without it."""

    def __init__(self, *given: object, **named: object) -> None:
        super().__init__(*given, **named)
        self.kept = bytearray()

    async def ask(self, request: bytes, bodiless: bool) -> bytes:
        answer = await super().ask(request, bodiless)
        self.kept += request + answer
        return answer


@dataclass
class Party:
    """A party: its user, and the processes that it has started."""

    user: User
    environment: dict[str, str]
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.user.folder

    @property
    def log(self) -> str:
        """What its newest process has said."""
        return (self.folder / f"{len(self.started) - 1}.log").read_text(errors="replace")

    def start(self, *arguments: str, **more: str) -> "subprocess.Popen[bytes]":
        """Start a command of `consilium` as this party."""
        program = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
        with (self.folder / f"{len(self.started)}.log").open("wb") as log:
            process = subprocess.Popen(
                self.user.command(*program), cwd=self.folder, env=self.environment | more,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    def wait_for_line(self, text: str) -> None:
        """Wait until the newest process has said something."""
        wait_for(lambda: text in self.log, lambda: self.log, self.started[-1])

    def kill(self) -> None:
        """End the newest process and all that it has started, as a power cut would."""
        kill_group(self.started[-1])


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)


def wait_for(what, told=lambda: "it", process=None) -> None:
    until = time.monotonic() + MOST_S
    while not what():
        assert time.monotonic() < until, told()
        assert process is None or process.poll() is None, told()
        time.sleep(0.05)


@dataclass
class Consortium:
    """What a test needs of it: the parties, by name, and what passes between them."""

    root: Path
    coordinator: Party
    sites: Mapping[str, Party]
    port: int
    bad: KeepingBadLink
    relay: Keeping
    proxy: ConnectProxy
    arrays: Mapping[str, np.ndarray]
    cluster: postgres.Cluster
    servers: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> CoordinatorHome:
        return CoordinatorHome(self.coordinator.folder / "consilium" / "coordinator")

    def home_of(self, site: str) -> SiteHome:
        return SiteHome(self.sites[site].folder / "consilium" / "site" / site)

    @property
    def newest(self) -> RunFolder:
        return RunFolder((self.coordinator.folder / "runs" / "adrenal" / "latest").resolve())

    def start_coordinator(self) -> None:
        """Start its servers; what is in the way of a user's password is no argument."""
        self.coordinator.start("coordinator", "start", CONSILIUM_DATABASE=self.cluster.address)
        self.coordinator.wait_for_line("coordinator at ")
        self.serving = self.coordinator.started[-1]

    def start_site(self, site: str) -> None:
        self.sites[site].start("site", "start")
        self.sites[site].wait_for_line("policy")

    def begin(self, *words: str) -> "subprocess.Popen[bytes]":
        """Begin or go on with a run at the coordinator."""
        if not self.servers:
            self.coordinator.start("coordinator", "start", "--env").wait(MOST_S)
            lines = [x for x in self.coordinator.log.splitlines() if x.startswith("export ")]
            pairs = [line.removeprefix("export ").split("=", 1) for line in lines]
            self.servers = {name: value.strip("'") for name, value in pairs}
        return self.coordinator.start(*words, **self.servers)

    def end(self, run: "subprocess.Popen[bytes]") -> None:
        """Wait for the end of a run that is to end well."""
        assert run.wait(MOST_S) == 0, self.coordinator.log


def adrenal(cases: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The first cases of each split of the real set; the test is skipped where it is missing."""
    path = PROJECT.parent / "shared" / "data" / "medmnist" / "adrenalmnist3d.npz"
    if not path.is_file():
        pytest.skip(f"the real AdrenalMNIST3D is not at {path}")
    with np.load(path) as real:
        return {name: real[name][: cases[name.split("_")[0]]] for name in real.files}


@contextmanager
def hospitals(root: Path, empty_prefect: Path) -> Iterator[Consortium]:
    """Start all of it; everything ends with the block."""
    arrays = adrenal({"train": 150, "val": 40, "test": 40})
    place = root / "whole" / "medmnist"
    place.mkdir(parents=True)
    np.savez(place / "adrenalmnist3d.npz", **arrays)
    params = yaml.safe_load((PROJECT / "params.yaml").read_text())
    params["experiments"] = {"adrenal": params["experiments"]["adrenal"]}
    params["experiments"]["adrenal"] |= {"rounds": 3}
    params["experiments"]["adrenal"]["sites"] = {"count": len(SITES), "min_cases": 20}
    params["experiments"]["adrenal"]["training"] |= {"device": "cpu"}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    experiment = load_experiment(
        "adrenal", [f"data.root={root / 'whole'}", "data.source=files"], root / "params.yaml"
    )
    with ExitStack() as stack:
        cluster = stack.enter_context(postgres.cluster())
        known = stack.enter_context(users(root, ("coordinator", *SITES)))
        parties = {
            name: Party(user, _environment(user, empty_prefect)) for name, user in known.items()
        }
        coordinator = parties.pop("coordinator")
        shutil.copy(root / "params.yaml", coordinator.folder)
        deal_files(experiment, {site: party.folder / "data" for site, party in parties.items()})
        port = free_port()
        home = CoordinatorHome(coordinator.folder / "consilium" / "coordinator")
        kit = make_coordinator(home, Address((HOST, NAMED), HOST, port, f"https://{HOST}:{port}"))
        certificates = Authority(home.tls_path).certificates([HOST, NAMED])
        bad = stack.enter_context(
            KeepingBadLink(port, certificates, kit.authority, seed=0, rate=0.15)
        )
        relay = stack.enter_context(Keeping(port))
        proxy = stack.enter_context(ConnectProxy())
        urls = {
            BAD: f"https://{HOST}:{bad.port}",
            LATE_CLOCK: f"https://{HOST}:{relay.port}",
            PROXIED: f"https://{NAMED}:{port}",
        }
        for site, party in parties.items():
            _make_site(party, site, replace(kit, url=urls[site]), root)
            enrol(home, root / f"{site}.enrolment.json", None)
        clock = parties[LATE_CLOCK].folder / "clock"
        clock.mkdir()
        (clock / "sitecustomize.py").write_text(CLOCK)
        parties[LATE_CLOCK].environment["PYTHONPATH"] = f"{clock}{os.pathsep}{PROJECT}"
        parties[PROXIED].environment["HTTPS_PROXY"] = f"http://{HOST}:{proxy.port}"
        for party in (coordinator, *parties.values()):
            stack.callback(_end, party)
            party.user.own()
        made = Consortium(
            root, coordinator, parties, port, bad, relay, proxy, arrays, cluster
        )  # fmt: skip
        made.start_coordinator()
        for site in SITES:
            made.start_site(site)
        yield made


def _environment(user: User, empty_prefect: Path) -> dict[str, str]:
    prefect = user.folder / "prefect"
    prefect.mkdir()
    shutil.copy(empty_prefect, prefect / "prefect.db")
    cache = user.folder / "cache"
    shutil.copytree(cache_folder(), cache)
    kept = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("PREFECT_API", "MLFLOW_T", "CONSILIUM_", "PYTEST"))
    }
    return kept | {
        "HOME": str(user.folder),
        "CONSILIUM_HOME": str(user.folder / "consilium"),
        "CONSILIUM_CACHE": str(cache),
        "PREFECT_HOME": str(prefect),
        "PYTHONPATH": str(PROJECT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def _make_site(party: Party, site: str, kit: Kit, root: Path) -> None:
    policy, file = root / "site-policy.yaml", root / f"{site}.kit.json"
    policy.write_text(POLICY)
    kit.write(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONSILIUM_HOME", party.environment["CONSILIUM_HOME"])
        request_file(make_site(site, file, party.folder / "data", policy), root)


def _end(party: Party) -> None:
    for process in party.started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in party.started:
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        kill_group(process)
