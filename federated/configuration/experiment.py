"""An experiment: all its settings, typed and frozen; ``load.py`` reads and checks them."""

from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from federated.compression import AnyCompression
from federated.privacy import AnyPrivacy
from federated.protection import AnyProtection, Cohort
from federated.settings.base import Settings
from federated.settings.networks import AnyNetwork, SmallCNN
from federated.settings.sections import (
    Dask,
    DataSettings,
    EvaluationSettings,
    Parties,
    PlanningSettings,
    Processes,
    SelectionSettings,
    Serial,
    SitesSettings,
    StatisticsSettings,
    TrainingSettings,
    ValidationSettings,
)
from federated.strategies import AnyStrategy

# Arithmetic over the rounds of a run, as that of its ε, ends in seconds for so many.
MOST_ROUNDS = 100_000


class Experiment(Settings):
    """One resolved experiment, with a section for each part of it."""

    name: str
    seed: int = Field(default=0, ge=0, lt=2**31)
    rounds: int = Field(default=20, ge=1, le=MOST_ROUNDS)
    data: DataSettings = DataSettings()
    sites: SitesSettings = SitesSettings()
    validation: ValidationSettings = Field(default=ValidationSettings(), alias="validate")
    model: AnyNetwork = SmallCNN()
    training: TrainingSettings = TrainingSettings()
    selection: SelectionSettings = SelectionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    # Left out of what is written where it says nothing: plans of trainings stay as they are.
    statistics: StatisticsSettings = Field(
        default=StatisticsSettings(), exclude_if=lambda value: value == StatisticsSettings()
    )
    planning: PlanningSettings = Field(
        default=PlanningSettings(), exclude_if=lambda value: value == PlanningSettings()
    )
    strategy: AnyStrategy
    privacy: AnyPrivacy
    compression: AnyCompression
    protection: AnyProtection
    runner: Annotated[Serial | Processes | Dask | Parties, Field(discriminator="name")] = (
        Processes()
    )

    def cohort(self, sites: int | None = None) -> Cohort:
        """What the protection has to hold, with ``sites`` sites or as many as are configured."""
        count = self.sites.count if sites is None else sites
        return Cohort(self.sites.selected_of(count), count, self.rounds, self.compression.bits)

    def largest_cohort(self) -> Cohort:
        """What the protection has to hold in its largest sum.

        That is one over all sites where sites tell sums of their evaluation; otherwise it is over
        those selected in a round.
        """
        cohort = self.cohort()
        return replace(cohort, selected=cohort.sites) if self.evaluation.share == "sums" else cohort

    def to_json(self) -> dict[str, Any]:
        """The resolved experiment as plain values, which ``read_experiment`` of load.py reads."""
        return self.model_dump(mode="json", by_alias=True)
