"""What a person asks fl-round for, whether on the command line or as a deployment's parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

# What a request is read with takes seconds to import, in which Prefect's server starts.
if TYPE_CHECKING:
    from federated.configuration.experiment import Experiment
    from federated.run.folder import RunFolder


@dataclass(frozen=True)
class RunRequest:
    """A new run of an experiment, or one to go on with.

    Attributes:
        experiment: a name under ``experiments`` of the parameter file.
        overrides: ``section.key=value`` items, of a new run alone.
        rounds: how many rounds in all, instead of the experiment's own number.
        resume: a run id, or ``latest``; the run's own configuration is used.
        prepared: a folder that fl-prepare or DVC made, instead of preparing the data anew.
        params: the parameter file.
        runs: the folder that holds all runs.
        transfer: such items for transfer learning, which lie below ``overrides``.
    """

    experiment: str
    overrides: Sequence[str] = ()
    rounds: int | None = None
    resume: str | None = None
    prepared: Path | None = None
    params: Path = Path("params.yaml")
    runs: Path = Path("runs")
    transfer: Sequence[str] = ()

    def check_words(self) -> None:
        """Refuse what is plainly wrong, within a moment: no such file, experiment, or item.

        Raises:
            ConsiliumError: there is none, or the file cannot be read.
        """
        from federated.configuration.params_file import (
            experiment_values,
            parse_overrides,
            read_params,
        )

        parse_overrides(self.overrides)
        if self.resume is None:
            experiment_values(read_params(self.params), self.experiment, self.params)

    def resolve(self) -> "Experiment":
        """The resolved configuration of the run; nothing is written for a new one.

        Raises:
            ConsiliumError: anything in the request that cannot be used.
        """
        from federated.configuration.load import load_experiment
        from federated.configuration.params_file import rounds_items
        from federated.run.prepared import PreparedFolder
        from federated.stages.statistics import refuse_inexact

        if self.resume is not None:
            return self.open()[1]
        items = {
            "--transfer": self.transfer,
            "--set": self.overrides,
            "--rounds": rounds_items(self.rounds),
        }
        # Of prepared data it is settled what they were prepared for.
        plans = self.prepared is None
        experiment = load_experiment(self.experiment, items, self.params, plans)
        if experiment.planning.auto:
            # Better now than after the data are there.
            refuse_inexact(experiment)
        if self.prepared is not None:
            source = PreparedFolder(self.prepared)
            source.check_fits(experiment)
            source.excluded_sites()
            source.data()
        return experiment

    def open(self) -> "tuple[RunFolder, Experiment]":
        """The folder of the run, which is made for a new one, and its configuration.

        Raises:
            ConsiliumError: anything in the request that cannot be used.
        """
        from federated.run.runs import new_run, reopen_run

        if self.resume is not None:
            return reopen_run(self.runs, self.experiment, self.resume, self.rounds)
        experiment = self.resolve()
        return new_run(self.runs, experiment), experiment
