"""What a model's file says of its calibration: how probabilities are scaled, and what a set is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from federated.calibration.temperature import TEMPERATURES, Probabilities, tempered
from federated.errors import ConsiliumError

Probability = Annotated[float, Field(ge=0, le=1)]
# A file's header has room for so many characters of sites and their thresholds.
MOST_OF_SITES = 4000


@dataclass(frozen=True)
class ModelCalibration:
    """A temperature and thresholds of prediction sets, as they are kept with a model.

    Attributes:
        temperature: what logits are divided by; 1 where none was fitted.
        alpha: the share of cases whose set may miss the true class; ``None`` without sets.
        threshold: the least probability of a class in a set, before the temperature, by the
            validation cases of all sites; ``None`` without sets.
        sites: the same by each site's own validation cases, where these are known.
    """

    # For whoever reads it from a file: it may have no key but these.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    temperature: Annotated[float, Field(ge=TEMPERATURES[0], le=TEMPERATURES[-1])] = 1.0
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    threshold: Probability | None = None
    sites: Mapping[Annotated[str, Field(min_length=1, max_length=200)], Probability] = field(
        default_factory=dict
    )

    def fault(self) -> str:
        """What does not go together in it; ``""`` where all does."""
        if (self.alpha is None) != (self.threshold is None):
            return "a threshold of prediction sets goes with their alpha"
        if self.sites and self.threshold is None:
            return "sites have thresholds, and all together have none"
        return ""

    @staticmethod
    def of_record(told: Mapping[str, Any] | None) -> "ModelCalibration | None":
        """That of a round's record; ``None`` where the record has none.

        Thresholds of so many sites that a file has no room for them are left out, all of them.
        """
        if not told:
            return None
        temperature = told.get("temperature", {}).get("temperature", 1.0)
        sets = told.get("conformal")
        if sets is None:
            return ModelCalibration(temperature)
        sites = {site: found["own"]["threshold"] for site, found in sets["sites"].items()}
        if len(str(sites)) > MOST_OF_SITES:
            sites = {}
        return ModelCalibration(temperature, sets["alpha"], sets["pooled"]["threshold"], sites)

    def note(self, site: str | None) -> str:
        """What whoever asked for a site's own sets has to know; ``""`` where there is nothing."""
        if site is None or self.threshold is None or self.sites:
            return ""
        return (
            f"Sets are by the threshold of all sites together and not by that of {site!r:.80}: the "
            "model's file has none of single sites."
        )

    def scaled(self, probabilities: Probabilities) -> Probabilities:
        """Probabilities ``(n, classes)`` at the model's temperature."""
        return tempered(probabilities, self.temperature)

    def least(self, site: str | None = None) -> tuple[float, str | None] | None:
        """The threshold of a set, and whose it is; ``None`` where the model has no sets.

        Args:
            site: whose threshold is taken. Where it is left out, or the model has none of single
                sites, it is that of all sites together, whose name is ``None``.

        Raises:
            ConsiliumError: there are thresholds of sites, and none of this one.
        """
        if self.threshold is None:
            return None
        if site is None or not self.sites:
            return self.threshold, None
        if site not in self.sites:
            raise ConsiliumError(
                f"The model has thresholds of prediction sets of {', '.join(self.sites):.300}, and "
                f"none of {site!r:.80}. Name one of these, or leave --site out for that of all "
                "sites together."
            )
        return self.sites[site], site

    def sets(
        self, probabilities: Probabilities, site: str | None = None
    ) -> npt.NDArray[np.bool_] | None:
        """Which classes are in each set ``(n, classes)``; ``None`` where the model has no sets.

        Args:
            probabilities: ``(n, classes)``, before the temperature.
            site: whose threshold is taken, see :meth:`least`.

        Raises:
            ConsiliumError: there are thresholds of sites, and none of this one.
        """
        found = self.least(site)
        return None if found is None else probabilities >= found[0]
