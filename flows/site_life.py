"""The life of a site of a consortium: how its home is made, checked, started and paused.

A site's home lies below ``CONSILIUM_HOME``, in ``site/NAME``. Its key is made there and never
leaves it.
"""

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from federated.errors import ConsiliumError, unreadable
from federated.exchange.https.calls import Caller
from federated.exchange.https.client import Greeting, Link, hello
from federated.exchange.https.link_errors import LinkError, proxy_for
from federated.exchange.journal import JournalledExchange
from federated.exchange.kit import Kit, write_request
from federated.exchange.policy import read_policy
from federated.files import PRIVATE, make_folders, read_json, require_writable, write_json
from federated.provenance import code_digest, own_program, own_versions
from federated.secrets.home import consilium_home, private_folder
from federated.settings.names import refuse_site_name
from federated.site.home import SiteHome
from flows.ending import be_quiet
from flows.login import kept_login
from flows.ports import listen_at

# What runs import is not needed to make, check or pause a site, and takes seconds to import.
if TYPE_CHECKING:
    from flows.site_service import SiteService

LEAST_DISK_GB = 5
# In seconds: a clock that is off by less is nobody's concern.
MOST_CLOCK = 5.0
STATUS_EVERY = 2.0

CLOSED = """\
# What this site takes part in. What this file does not name is refused: as it stands, everything.
# docs/parties.md explains each key. Take away the # of a line to allow what it says.
#datasets: [adrenalmnist3d]      # or any
#experiments: [adrenal]
#protections: [secagg_plus, rlwe_secagg, packed_bfv]
#privacies: [none, dp_sgd, site_level]
#participants: any               # or the fingerprints of the other sites
#max_epsilon: unbounded
#max_delta: 1.0e-3
#min_noise_multiplier: 0
#min_sites: 2
#min_corrupted: 0
#max_rounds: 100
#max_epochs: 5
#max_steps: 10000
#max_model_values: 50000000
#max_megabytes: 10000
#evaluation: statistics          # or sums, metrics
#min_count: 0
#calibration: refused            # or allowed
#subgroups: refused              # or allowed
#own_model: refused
#statistics: nothing             # or noised, sums
approval: required               # consilium site approve RUN
code: same
"""


@dataclass(frozen=True)
class Finding:
    """Something that was checked: whether it is as it should be, and what was found."""

    good: bool
    text: str


def make_site(
    name: str, kit_file: Path, data: Path, policy_file: Path | None, *, generated: bool = False
) -> SiteHome:
    """Make the home of a site, with its key; what is there already stays.

    Args:
        name: the site's.
        kit_file: the coordinator's kit.
        data: the folder that the site's data sets lie in.
        policy_file: what the site takes part in; nothing where it is left out.
        generated: whether the data are generated ones, to try a consortium: results say so.

    Raises:
        ConsiliumError: the kit or the policy cannot be used, there are no data, the home is another
            coordinator's, or others can open it.
    """
    refuse_site_name(name)
    kit = Kit.read(kit_file)
    if policy_file is not None:
        read_policy(policy_file)
    if not data.is_dir():
        raise ConsiliumError(
            f"There is no folder {data}. Name the folder below which the site's data sets lie, as "
            "data.root of params.yaml does (--data)."
        )
    root = consilium_home() / "site" / name
    home = SiteHome(private_folder(root, root))
    if home.coordinator_path.is_file() and home.coordinator() != kit.coordinator:
        raise ConsiliumError(
            f"{home.root} is a site of another consortium, {home.coordinator().fingerprint}, and "
            f"the kit {kit_file} is of {kit.coordinator.fingerprint}. A site of two consortia has "
            "another name in each, below the same CONSILIUM_HOME: so its one ledger counts what "
            "both have learnt of its records."
        )
    home.know(kit.coordinator)
    kit.write(home.kit_path, PRIVATE)
    told = {"data": str(data.resolve())} | ({"generated": True} if generated else {})
    write_json(home.settings_path, told, PRIVATE)
    if policy_file is not None:
        home.write_policy(policy_file.read_text(encoding="utf-8"))
    elif not home.policy_path.is_file():
        home.write_policy(CLOSED)
    home.identity()
    return home


def request_file(home: SiteHome, folder: Path) -> Path:
    """Write a site's request for enrolment into a folder, and return the file."""
    require_writable(folder, "of the request", private=False)
    path = folder / f"{home.name}.enrolment.json"
    write_request(home.identity().public, path)
    return path


def site_home(named: Path | None) -> SiteHome:
    """The home that is named, or the one below ``CONSILIUM_HOME``.

    Raises:
        ConsiliumError: there is none, or several.
    """
    if named is not None:
        found = [named.resolve()]
    else:
        found = sorted(path.parent for path in (consilium_home() / "site").glob("*/kit.json"))
    if len(found) != 1:
        many = ", ".join(path.name for path in found)
        there = f"several sites have their homes there ({many})" if found else "there is none"
        raise ConsiliumError(
            f"A site's home is looked for in {consilium_home() / 'site'}, and {there}. Name one "
            "with --home, or make one with `consilium site init NAME --kit FILE --data DIR`."
        )
    home = SiteHome(found[0])
    if not home.kit_path.is_file():
        raise ConsiliumError(
            f"{home.root} is no home of a site of a consortium: it has no {home.kit_path.name}. "
            "Make one with `consilium site init NAME --kit FILE --data DIR`."
        )
    return home


def data_of(home: SiteHome) -> Path:
    """The folder that a site's data sets lie in.

    Raises:
        ConsiliumError: its settings cannot be read, or it is not there.
    """
    settings = home.settings()
    if "data" not in settings:
        raise unreadable(home.settings_path, KeyError("data"))
    folder = Path(str(settings["data"]))
    if not folder.is_dir():
        raise ConsiliumError(
            f"The folder of this site's data, {folder}, is not there any more. Put it back, or "
            "name another one by calling `consilium site init` again."
        )
    return folder


def check_site(home: SiteHome) -> Iterator[Finding]:
    """What a site needs to take part, looked at without taking part.

    Raises:
        ConsiliumError: the home itself cannot be used.
    """
    kit, me = Kit.read(home.kit_path), home.identity().public
    yield Finding(True, f"site {home.name}, fingerprint {me.fingerprint}")
    yield Finding(True, f"coordinator {kit.url}, fingerprint {kit.coordinator.fingerprint}")
    yield _name_resolution(kit.url)
    yield from _reached(home, kit)
    yield from _machine(home)
    yield from _data(home)
    yield from _policy(home)


def _name_resolution(url: str) -> Finding:
    parts = urlsplit(url)
    if proxy := proxy_for(url):
        return Finding(True, f"the proxy {proxy} is asked for {parts.hostname}")
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError as error:
        return Finding(False, f"the name {parts.hostname} is not known here: {error.strerror}")
    return Finding(True, f"{parts.hostname} is {found[0][4][0]}")


def _reached(home: SiteHome, kit: Kit) -> Iterator[Finding]:
    said: list[str] = []
    caller = Caller(
        home.identity(), kit.coordinator.consortium, kit.url, kit.authority, home.audit, said.append
    )
    greeting = Greeting(own_versions(), code_digest(), "checks whether it could take part")
    try:
        told = hello(caller, greeting, check=True)
    except LinkError as error:
        yield Finding(False, str(error))
        return
    finally:
        caller.close()
    off = float(told.get("time", 0)) - time.time()
    yield Finding(True, "the coordinator answers over TLS, and this site is enrolled")
    yield Finding(
        abs(off) <= MOST_CLOCK,
        f"this clock is {abs(off):.1f} s {'behind' if off > 0 else 'ahead of'} the coordinator's"
        + ("" if abs(off) <= MOST_CLOCK else ": set it (NTP)"),
    )
    theirs = told.get("versions", {})
    for name, mine in own_versions().items():
        other = str(theirs.get(name, mine))
        text = f"{name} {mine}" + ("" if other == mine else f", and {other} at the coordinator")
        yield Finding(other == mine, text)
    same = theirs.get("code", code_digest()) == code_digest()
    yield Finding(
        same,
        f"the same program: {own_program()}"
        if same
        else f"another program than the coordinator's: here it is {own_program()}; `consilium "
        "coordinator status` says which one is wanted",
    )


def _machine(home: SiteHome) -> Iterator[Finding]:
    import torch

    free = shutil.disk_usage(home.root).free / 1e9
    yield Finding(free >= LEAST_DISK_GB, f"{free:.0f} GB free for {home.root}")
    if torch.cuda.is_available():
        yield Finding(True, f"GPU {torch.cuda.get_device_name(0)}")
    else:
        yield Finding(True, "no GPU: training runs on the processor")


def _data(home: SiteHome) -> Iterator[Finding]:
    from flows.site_cases import own_rules
    from flows.site_data import data_lines

    try:
        folder = data_of(home)
    except ConsiliumError as error:
        yield Finding(False, str(error))
        return
    for good, text in data_lines(
        folder,
        home.policy().settings.datasets,
        home.name,
        home.root / "validation",
        own_rules(home),
    ):
        yield Finding(good, text)


def _policy(home: SiteHome) -> Iterator[Finding]:
    policy = home.policy()
    settings = policy.settings
    told = settings.model_dump(mode="json", exclude_defaults=True)
    allowed = ", ".join(f"{key}={value}" for key, value in told.items()) or "nothing"
    named = {"datasets": settings.datasets, "experiments": settings.experiments}
    missing = [key for key, allowed_of_it in named.items() if not allowed_of_it]
    yield Finding(not missing, f"policy {policy.path}: {allowed}")
    if missing:
        unnamed = " and ".join(missing)
        yield Finding(False, f"the policy names no {unnamed}, so that it refuses every run")


@contextmanager
def site_prefect(
    home: SiteHome, port: int, say: Callable[[str], None]
) -> Iterator[tuple[str, Path]]:
    """The site's own Prefect, with its pages, at a loopback port until the block ends.

    It keeps what it knows in ``PREFECT_HOME``. Its login is kept in the site's home.

    Args:
        home: the site's.
        port: where it listens; any free port if 0.
        say: tells a person something.

    Yields:
        The address of its API, and the file of the login.

    Raises:
        ConsiliumError: the port is taken, or it does not come up.
    """
    from prefect.settings import temporary_settings

    from flows.lasting_server import LastingServer
    from flows.server import client_settings

    path = home.root / "prefect-login"
    login = kept_login(path)
    listening = listen_at(port, "the site's Prefect", "--prefect-port")
    pages = {"PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home.root / "prefect-pages")}
    server = LastingServer(listening, login, pages, say)
    try:
        server.wait_until_healthy()
        with temporary_settings(updates=client_settings(server.api, login)):
            yield server.api, path
    finally:
        server.end()


def run_site(home: SiteHome, say: Callable[[str], None], stop: threading.Event) -> None:
    """Take part in the consortium until it is asked to stop.

    Args:
        home: the site's.
        say: tells a person something.
        stop: is set when it is time to end.

    Raises:
        ConsiliumError: the home cannot be used, or another process works in it.
    """
    from flows.site_service import SiteService

    kit, data = Kit.read(home.kit_path), data_of(home)
    home.policy()
    make_folders(home.exchange_path, private=True)
    exchange = JournalledExchange(home.exchange_path)
    service = SiteService(home, data, exchange, say)
    link = Link(
        home.identity(), kit.coordinator.consortium, kit.url, kit.authority, exchange, home.audit,
        say=say,
    )  # fmt: skip
    versions, code = own_versions(), code_digest()
    say(f"site {home.name} of {kit.url}; policy {home.policy_path}; data {data}")

    def greeting() -> Greeting:
        return Greeting(versions, code, _state(home, service))

    with link:
        threads = [
            threading.Thread(target=link.run, args=(stop, greeting), daemon=True),
            threading.Thread(target=service.run, daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            while not stop.is_set():
                _write_status(home, _state(home, service))
                stop.wait(STATUS_EVERY)
        finally:
            stop.set()
            be_quiet()
            service.stop()
            for thread in threads:
                thread.join(10)
            _write_status(home, "stopped")


def _state(home: SiteHome, service: "SiteService") -> str:
    return "paused" if home.paused_path.is_file() else service.doing()


def _write_status(home: SiteHome, state: str) -> None:
    with suppress(OSError, ConsiliumError):
        write_json(home.status_path, {"time": time.time(), "state": state}, PRIVATE)


def status_lines(home: SiteHome) -> Iterator[str]:
    """Lines with what the process at a site does, and its last messages."""
    yield f"site {home.name}, fingerprint {home.identity().public.fingerprint}"
    try:
        told: dict[str, Any] = read_json(home.status_path)
        ago = time.time() - float(told["time"])
        there = "is not running" if told["state"] == "stopped" or ago > 60 else told["state"]
        yield f"{there} (as of {ago:.0f} s ago)"
    except (OSError, ValueError, KeyError, TypeError):
        yield "has never been started: consilium site start"
    if home.paused_path.is_file():
        yield "paused by a person: consilium site resume"
    for line in home.audit.lines()[-8:]:
        rest = ", ".join(f"{k} {v}" for k, v in line.items() if k not in ("time", "event"))
        yield f"{line['time']}  {line['event']}: {rest}"[:200]


def set_paused(home: SiteHome, paused: bool) -> str:
    """Have a site do nothing, or let it go on; return what to tell."""
    if not paused:
        home.paused_path.unlink(missing_ok=True)
        return f"{home.name} takes part again"
    home.paused_path.touch(PRIVATE)
    return (
        f"{home.name} does nothing more until `consilium site resume`; what is being computed is "
        "finished first"
    )
