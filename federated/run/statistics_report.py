"""What is told of statistics over the sites: a JSON value, and the same as a page for people."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from federated.planning.fingerprint import Fingerprint
from federated.planning.harmonisation import harmonisation_lines, harmonisation_of
from federated.planning.heterogeneity import Distances, quantity_skew
from federated.planning.summary import AXES, summary_of

NOT_TOLD = "not told"
# A median that noise may move by more of the cases than this is nobody's.
LARGEST_ERROR = 0.1


@dataclass(frozen=True)
class Statistics:
    """What a run for statistics came to.

    Attributes:
        experiment: the experiment's name.
        data_source: where the data are from; ``phantom`` for generated ones.
        protection: by which the counts were summed.
        told: what sites have told: ``noised`` counts, exact ``sums`` or their own in the ``clear``.
        epsilon: of one patient, with its ``delta``; ``None`` for counts without noise.
        delta: of that.
        min_count: counts of fewer cases are not told; 0 for all.
        found: what was counted of the cases of all sites in the sum.
        classes: the names of the classes, in order.
        modalities: the names of the images of a case.
        cases: how many training cases each site has that is in the sum.
        absent: the sites that are not in it, and why.
        distances: how far each site is from all, where it tells that.
        rank_error: by which part of the cases noise moves the rank of a median, as a deviation.
    """

    experiment: str
    data_source: str
    protection: str
    told: str
    epsilon: float | None
    delta: float
    min_count: int
    found: Fingerprint
    classes: Sequence[str]
    modalities: Sequence[str]
    cases: Mapping[str, int]
    absent: Mapping[str, str]
    distances: Mapping[str, Distances | None]
    rank_error: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The statistics as plain values; the counts as quantiles, shares and histograms."""
        total = sum(self.cases.values())
        return {
            "experiment": self.experiment,
            "data_source": self.data_source,
            "protection": self.protection,
            "told": self.told,
            "privacy": None
            if self.epsilon is None
            else {"unit": "patient", "epsilon": self.epsilon, "delta": self.delta},
            "rank_error": self.rank_error,
            "min_count": self.min_count,
            "all_sites": summary_of(self.found, self.classes, self.modalities, self.min_count),
            "sites": {
                site: {
                    "cases": cases,
                    "share": cases / total if total else None,
                    "distances": None if told is None else asdict(told),
                }
                for site, cases in self.cases.items()
                for told in [self.distances.get(site)]
            },
            **harmonisation_of(self.found, self.modalities, self.min_count),
            "quantity_skew": quantity_skew(list(self.cases.values())),
            "absent": dict(self.absent),
        }


def numbers_of(value: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers of a report that are tracked, by name."""
    found = {
        "statistics/cases": float(value["all_sites"]["cases"]),
        "statistics/sites": float(len(value["sites"])),
        "statistics/quantity_skew": float(value["quantity_skew"]),
    }
    for site, told in value["sites"].items():
        for name, distance in (told["distances"] or {}).items():
            if distance is not None:
                found[f"{site}/statistics/{name}"] = float(distance)
    return found


def page_of(value: Mapping[str, Any]) -> str:
    """A report as Markdown; what is not told says so."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Mapping[str, Any]) -> Iterator[str]:
    all_sites, privacy = value["all_sites"], value["privacy"]
    yield f"# Statistics of {value['experiment']} over {len(value['sites'])} sites"
    yield ""
    if value["data_source"] == "phantom":
        yield "**Generated images (phantom): no number says anything about patients.**"
        yield ""
    yield (
        f"Training cases: {all_sites['cases']}. Summed with `{value['protection']}`; "
        f"{TOLD[value['told']]}"
    )
    if privacy:
        yield f"ε {privacy['epsilon']:g} at δ {privacy['delta']:g} for one patient of a site."
        yield f"{noise_note(value)}"
    if value["min_count"]:
        yield (
            f"Numbers of fewer than {value['min_count']} cases are not told; and of those that "
            "add up to all cases, as of classes or ages, none where one of them is so small."
        )
    yield ""
    yield from table_of(all_sites)
    yield ""
    yield f"How exact these are: {HOW_EXACT}"
    yield ""
    yield "## Sites"
    yield ""
    yield (
        "Distances to all sites together: of the shares of classes (Jensen-Shannon, 0 to 1), of "
        "how much is labelled and of intensities (1-Wasserstein; these in standard deviations). A "
        "dash: there is none in these data, as no spacing in pictures."
    )
    yield ""
    yield "| site | cases | share | labels | sizes | appearance | spacing |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for site, told in value["sites"].items():
        yield f"| {' | '.join([site, *site_cells(told)])} |"
    yield ""
    silent = [site for site, told in value["sites"].items() if told["distances"] is None]
    if silent:
        yield (
            f"How far they are {', '.join(silent)} do not tell: by their policy, since they have "
            "too few cases, or since they have told how far they are from other counts before."
        )
        yield ""
    yield from harmonisation_lines(value)
    yield f"Quantity skew (coefficient of variation of cases): {value['quantity_skew']:.3f}"
    for site, why in value["absent"].items():
        yield f"\n{site} is not in the sum: {why}"


TOLD = {
    "noised": "each site's counts have noise of its own.",
    "sums": "the counts are exact, and only their sum was opened.",
    "clear": "the counts are exact, and **nothing hides those of each site from the coordinator**.",
}
HOW_EXACT = (
    "values are counted in bins, and told as the shortest number in their bin. Whole intensities "
    "from -255 to 255, as the 256 values of a picture's pixels, have a bin each and are told as "
    "they are; others, and spacings, are known to half a per cent. The histogram of intensities is "
    "in statistics.json: of whole numbers each of its bars holds as many values."
)
DISTANCES = ("labels", "sizes", "appearance_in_deviations", "spacing")


def noise_note(value: Mapping[str, Any]) -> str:
    """A sentence on what noise does to the quantiles of a report."""
    error = value["rank_error"]
    said = f"Noise moves the rank of a median by about {error:.0%} of the cases"
    if error > LARGEST_ERROR:
        return f"{said}: **no quantile here says anything of these cases.**"
    return f"{said}."


def site_cells(told: Mapping[str, Any]) -> list[str]:
    """The cells of a site's line: cases, share, and its distances where it tells them."""
    share = "-" if told["share"] is None else f"{told['share']:.3f}"
    distances = told["distances"]
    if distances is None:
        return [str(told["cases"]), share, *[NOT_TOLD] * len(DISTANCES)]
    values = [distances[name] for name in DISTANCES]
    return [str(told["cases"]), share, *("-" if v is None else f"{v:.3f}" for v in values)]


def table_of(all_sites: Mapping[str, Any]) -> Iterator[str]:
    """The table of all sites' cases together, in Markdown."""
    yield "| of all sites | 5 % | 25 % | median | 75 % | 95 % |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    names = {
        "spacing_mm": "spacing, mm",
        "field_of_view_mm": "field of view, mm",
        "shape": "voxels",
    }
    for key, named in names.items():
        for axis, quantiles in all_sites.get(key, {}).items():
            flat = key == "shape" and axis in AXES[2]
            name = "pixels" if flat else named
            yield f"| {name}, {axis} | {' | '.join(_cells(quantiles.values()))} |"
    for modality, told in all_sites["intensities"].items():
        found = told["percentiles"] or {}
        shown = [found.get(key) for key in ("0.05", "0.25", "0.5", "0.75", "0.95")]
        yield f"| intensity, {modality} | {' | '.join(_cells(shown))} |"
    for name, quantiles in all_sites.get("part_of_voxels", {}).items():
        yield f"| part of voxels, {name} | {' | '.join(_cells(quantiles.values()))} |"
    yield ""
    for key in ("classes", "age", "sex", "scanner"):
        if counts := all_sites.get(key):
            cells = (f"{n} {NOT_TOLD if c is None else c}" for n, c in counts.items())
            yield f"- {key}: {', '.join(cells)}"


def _cells(values: Any) -> list[str]:
    return [NOT_TOLD if value is None else f"{value:.4g}" for value in values]
