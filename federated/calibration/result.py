"""What is known of a model's calibration after a round."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from federated.calibration.conformal import Sets, SiteSets
from federated.calibration.temperature import Tempered


@dataclass(frozen=True)
class Calibration:
    """A temperature and prediction sets, fitted on validation cases and measured on test cases.

    Attributes:
        tempered: the temperature; ``None`` where none was asked for.
        pooled: the sets of all sites' test cases, by the threshold of all sites' validation cases;
            ``None`` where none were asked for.
        sites: the sets of each site's cases, where what each site tells is known.
    """

    tempered: Tempered | None = None
    pooled: Sets | None = None
    sites: Mapping[str, SiteSets] = field(default_factory=dict)

    def numbers(self) -> dict[str, float | None]:
        """The numbers of it that are worth a curve over rounds, by name."""
        found: dict[str, float | None] = {}
        if self.tempered is not None:
            found["calibration/temperature"] = self.tempered.temperature
            for name, values in (("loss", self.tempered.losses), ("ece", self.tempered.ece)):
                found[f"test/{name}_calibrated"] = None if values is None else values[1]
        if self.pooled is not None:
            found["test/coverage"], found["test/set_size"] = self.pooled.coverage, self.pooled.size
        for site, sets in self.sites.items():
            found[f"{site}/test/coverage"] = sets.own.coverage
        return found

    def to_json(self) -> dict[str, Any]:
        """As plain values, for a record."""
        found: dict[str, Any] = {}
        if self.tempered is not None:
            found["temperature"] = self.tempered.to_json()
        if self.pooled is not None:
            found["conformal"] = {
                "alpha": self.pooled.alpha,
                "pooled": self.pooled.to_json(),
                "sites": {site: sets.to_json() for site, sets in self.sites.items()},
            }
        return found
