"""Rounds of a consortium in which no site did anything, as while its exchange cannot be reached.

Such a round is lost, and the run goes on. So that it does not go through all of its rounds without
anybody, it waits for a site before the next one, and ends after some such rounds in succession.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from federated.errors import ConsiliumError
from federated.settings.sections import Parties
from flows.progress import tell
from flows.site_stages import Run
from tasks.parties_pool import PartiesPool

# In seconds, between two looks at whether a site is there.
LOOK = 0.5


def nobody_was_there(record: Mapping[str, Any], selected: Sequence[str]) -> bool:
    """Whether a round was lost because every site that was selected dropped out of it."""
    return bool(record["lost"]) and set(selected) <= set(record["dropped"])


class Absence:
    """How many rounds in succession had nobody, in one attempt at a run.

    Args:
        runner: of the run.
        sites: those that take part in it.
        away: says why a site is not waited for, and ``None`` where it is.
    """

    def __init__(
        self, runner: Parties, sites: Sequence[str], away: Callable[[str], str | None]
    ) -> None:
        self._runner, self._sites, self._away = runner, sites, away
        self._rounds = 0

    def note(self, record: Mapping[str, Any], selected: Sequence[str], named: str) -> None:
        """Note what became of a round, by its record.

        Args:
            record: the round's.
            selected: the sites that were selected in it.
            named: the experiment and the run, as ``consilium resume`` takes them.

        Raises:
            ConsiliumError: ``runner.patience`` rounds in succession had nobody.
        """
        self._rounds = self._rounds + 1 if nobody_was_there(record, selected) else 0
        if self._rounds < self._runner.patience:
            return
        reasons = "; ".join(f"{site}: {why}" for site, why in record["dropped"].items())
        raise ConsiliumError(
            f"The run ends after round {record['round']}: in {self._rounds} rounds in succession "
            f"(runner.patience) no site did its part, and the model is that of before. {reasons}. "
            f"Once sites are there again: consilium resume {named}"
        )

    def wait(self) -> None:
        """After a round without anybody, wait until a site is there, ``runner.deadline`` at most.

        A site is there that has said hello lately and is not left behind.
        """
        if not self._rounds or self._somebody():
            return
        tell("no site is there; the run waits for one")
        until = time.monotonic() + self._runner.deadline
        while not self._somebody() and time.monotonic() < until:
            time.sleep(LOOK)

    def _somebody(self) -> bool:
        return any(self._away(site) is None for site in self._sites)


def absence_of(run: Run) -> Absence | None:
    """What notes the rounds of a run without anybody; ``None`` where sites are no parties."""
    runner, pool = run.experiment.runner, run.pool
    if not isinstance(runner, Parties) or not isinstance(pool, PartiesPool):
        return None
    return Absence(runner, run.sites, pool.presence.away)
