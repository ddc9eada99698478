"""Starting flows from the command line: server, check of the input, progress, result."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from flows.request import RunRequest


def run_rounds(request: "RunRequest") -> Path:
    """Run fl-round and say where to look; return the run's folder."""

    def start() -> Path:
        from flows.round import fl_round

        folder = fl_round(
            request.experiment,
            overrides=[*request.transfer, *request.overrides],
            rounds=request.rounds,
            resume=request.resume,
            prepared=str(request.prepared) if request.prepared else None,
            params=str(request.params),
            runs=str(request.runs),
        )
        return Path(folder)

    def check() -> None:
        from tasks.pool import begin_workers
        from tasks.validate import begin_validation

        experiment = request.resolve()
        begin_workers(experiment)
        if not (request.prepared or request.resume):
            begin_validation(experiment)
        import flows.round  # noqa: F401 - it takes a second, which the server takes too

    folder = run_flow(check, start)
    say_result(folder)
    return folder


def run_profiled(request: "RunRequest", transfer: bool, out: Path) -> Path:
    """Run fl-round under the profiler, and say where time went; return the run's folder.

    ``transfer`` is whether the run starts from the backbone that the parameter file names.
    """
    from federated.files import read_json
    from federated.run.runs import latest_run
    from flows.profiling import profile, write_breakdown

    request.resolve()  # mistakes are told before anything is started
    words = ["run", request.experiment, *(["--transfer"] if transfer else [])]
    for item in request.overrides:
        words += ["--set", item]
    if request.rounds is not None:
        words += ["--rounds", str(request.rounds)]
    if request.prepared:
        words += ["--prepared", str(request.prepared)]
    words += ["--params", str(request.params), "--runs", str(request.runs)]
    usage = profile(words, out)
    folder = latest_run(request.runs, request.experiment)
    for line in write_breakdown(read_json(folder.summary_path), usage, out):
        Console().print(line, highlight=False, markup=False, soft_wrap=True)
    Console().print(f"flame graph: {out / 'flame.svg'}", highlight=False, soft_wrap=True)
    return folder.root


def run_flow(check: Callable[[], object], start: Callable[[], Path]) -> Path:
    """Run a flow with a progress display; return the folder that it returns.

    ``check`` finds mistakes in the input. While the server starts, it runs, and so does the search
    for what this machine lacks.
    """
    from flows.preflight import require_servers_and_folders
    from flows.server import configured_api, start_embedded_server

    console = Console()
    configured = configured_api()
    begins = f"asking Prefect at {configured}" if configured else "starting Prefect"
    if not console.is_terminal:
        console.print(f"{begins} …", highlight=False, markup=False, soft_wrap=True)
    with console.status(begins):
        wait_until_ready = start_embedded_server()
        check()
        require_servers_and_folders(configured)
        from flows.progress import shown_on
        from flows.written import written_down
        from tasks.track import import_client

        import_client()
        wait_until_ready()

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    with written_down(say), shown_on(console):
        return start()


def say_result(folder: Path) -> None:
    """Print what a finished run reached, and where to look."""
    from flows.describe import result_lines

    for line in result_lines(folder):
        Console().print(line, highlight=False, markup=False, soft_wrap=True)
