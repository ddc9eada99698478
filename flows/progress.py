"""What a person sees while rounds run: a live display on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from prefect import get_run_logger
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from federated.errors import LONGEST_ERROR, printable
from federated.learning import metrics_in
from federated.learning.classification_metrics import Metrics

# In columns, at the end of each line that is drawn over.
ROOM = 3


class Listener(Protocol):
    """What is told what happens in a run."""

    def notice(self, text: str) -> None:
        """Show something that a person should know."""

    def stage_begun(self, stage: str) -> None:
        """Show that something begins that is no round, and may take a while."""

    def round_started(self, round_number: int, rounds: int, sites: list[str]) -> None:
        """Show that a round begins with these sites."""

    def site_done(self, site: str, stage: str, text: str) -> None:
        """Show that a site finished a stage."""

    def round_done(
        self, round_number: int, rounds: int, metrics: Metrics, seconds: float | None
    ) -> None:
        """Show that a round is complete, with the metrics of the validation split, if any."""


def describe(round_number: int, rounds: int, metrics: Metrics, seconds: float | None) -> str:
    """A round in one line, with the seconds that it took where these may be told."""
    shown = ", ".join(
        f"{name} {metrics[name]:.3f}"
        for name in metrics_in("round")
        if metrics.get(name) is not None
    )
    found = f"validation {shown}" if metrics else "not evaluated"
    took = "" if seconds is None else f" ({seconds:.1f} s)"
    return f"round {round_number}/{rounds}: {found}{took}"


def counted(number: int, noun: str) -> str:
    """A number with its noun, as ``1 round`` or ``2 rounds``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class PlainLines:
    """One line for each stage that is no round, and for each round."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def notice(self, text: str) -> None:
        """See :class:`Listener`."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stage_begun(self, stage: str) -> None:
        """See :class:`Listener`."""
        self.notice(f"{stage} …")

    def round_started(self, round_number: int, rounds: int, sites: list[str]) -> None:
        """See :class:`Listener`."""
        if round_number == 1:
            self.notice(f"{counted(rounds, 'round')} at {counted(len(sites), 'site')}")

    def site_done(self, site: str, stage: str, text: str) -> None:
        """See :class:`Listener`; nothing is shown."""
        pass

    def round_done(
        self, round_number: int, rounds: int, metrics: Metrics, seconds: float | None
    ) -> None:
        """See :class:`Listener`."""
        self.notice(describe(round_number, rounds, metrics, seconds))


class _Bars(Progress):
    """Bars that leave room for the ``^C`` that a terminal writes after them.

    Where it did not fit it stood on a line of its own, so that at the end one line too few was
    removed, and a bar stayed there.
    """

    def get_renderable(self) -> RenderableType:
        """The bars, as Rich draws them."""
        return _Narrower(super().get_renderable())


@dataclass(frozen=True)
class _Narrower:
    """Something that is drawn a little narrower than the terminal is."""

    inner: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.inner, options.update_width(options.max_width - ROOM))


class LiveDisplay(PlainLines):
    """A bar for the rounds, one for the sites of this round, and a line for each finished round."""

    def __init__(self, console: Console, progress: Progress) -> None:
        super().__init__(console)
        self.progress = progress
        self.rounds = progress.add_task("rounds", total=None)
        self.sites = progress.add_task("sites", total=None, visible=False)

    def stage_begun(self, stage: str) -> None:
        """See :class:`Listener`."""
        self.progress.update(self.rounds, description=stage)
        self.progress.refresh()  # what follows may keep the thread busy that draws

    def round_started(self, round_number: int, rounds: int, sites: list[str]) -> None:
        """See :class:`Listener`."""
        self.progress.update(
            self.rounds, description="rounds", total=rounds, completed=round_number - 1
        )
        self.progress.reset(
            self.sites, total=len(sites), description=f"round {round_number}", visible=True
        )

    def site_done(self, site: str, stage: str, text: str) -> None:
        """See :class:`Listener`."""
        advance = 1 if stage == "local-train" else 0
        description = f"{site} {stage} {text}"
        self.progress.update(self.sites, advance=advance, description=description)

    def round_done(
        self, round_number: int, rounds: int, metrics: Metrics, seconds: float | None
    ) -> None:
        """See :class:`Listener`."""
        self.progress.update(self.rounds, completed=round_number)
        super().round_done(round_number, rounds, metrics, seconds)


_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def listener() -> Listener | None:
    """The listener that is told, if there is one; a deployed flow has its run's log alone."""
    return _listener.get()


def begins(stage: str) -> None:
    """Show what begins now, on the display if there is one.

    It is not in the log of the flow run: there it would have a time, and of a private run no time
    of a stage is told.
    """
    shown = _listener.get()
    if shown:
        shown.stage_begun(stage)


def tell(text: str) -> None:
    """Tell a person something, on the display if there is one and in the flow run's log.

    Part of it may be a site's: whatever would command a terminal is shown, and does nothing.
    """
    text = printable(text, LONGEST_ERROR, keep="\n")
    get_run_logger().info(text)
    shown = _listener.get()
    if shown:
        shown.notice(text)


@contextmanager
def shown_on(console: Console) -> Iterator[None]:
    """Show progress on a console while the block runs."""
    if not console.is_terminal:
        token = _listener.set(PlainLines(console))
        try:
            yield
        finally:
            _listener.reset(token)
        return
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn())
    with _Bars(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        token = _listener.set(LiveDisplay(console, progress))
        try:
            yield
        finally:
            _listener.reset(token)
