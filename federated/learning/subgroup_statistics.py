"""What a site tells of its test cases at the end of a run, split by subgroups, and what follows.

Beside the arrays of all cases together there is, for each attribute, each array once for every
group ``(groups, …)``, and which groups are told: those that are not have zeros. So the form, and
the size, follow from the plan of the run and not from a site's cases.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from federated.data.dataset import DatasetInfo
from federated.data.subgroups import Places, group_names
from federated.learning.segmentation_statistics import PATIENTS
from federated.learning.statistics import CASES, EvaluationStatistics, Form, Part, add
from federated.learning.subgroup_suppression import told_groups
from federated.learning.suppression import told as told_tables
from federated.learning.task_statistics import Measured, TaskStatistics
from federated.settings.subgroups import Subgroups
from federated.update import Arrays

# Which groups of an attribute a site tells of.
TOLD = "told"
# What sums of float64 may be off by rounding, of their size.
ROUNDING = 1e-6
# Sums over patients, each of whose cases are meaned: of one with cases in two groups they do not
# add up.
OVER_PATIENTS = frozenset({"sums", "products"})


@dataclass(frozen=True)
class FinalTask:
    """What a run asks for at its end.

    Attributes:
        kind: the statistics that are told.
        before: those that were told of the same model after its round.
        info: of the data set.
        subgroups: the attributes with their bounds; none where no groups are asked for.
        minimum: ``evaluation.min_count``.
    """

    kind: TaskStatistics
    before: TaskStatistics
    info: DatasetInfo
    subgroups: Subgroups = field(default_factory=dict)
    minimum: int = 0

    @property
    def plain(self) -> Form:
        """The arrays of all cases, and of each group."""
        return self.kind.form(self.info)

    @property
    def form(self) -> Form:
        """All arrays: those of all cases, and those of the groups of each attribute."""
        plain = self.plain
        found = dict(plain)
        for attribute, names in self.groups.items():
            found[_array(attribute, TOLD)] = Part((len(names),), most=1)
            for name, part in plain.items():
                shape = (len(names), *(() if name == CASES else part.shape))
                # Each case is in one group.
                each = 1 if name == CASES else part.each_case
                key = _array(attribute, name)
                found[key] = replace(part, shape=shape, occurs=False, each_case=each)
        return found

    @property
    def summed_form(self) -> Form:
        """The arrays of a sum over sites, in which every site tells of every group."""
        flags = {_array(attribute, TOLD) for attribute in self.subgroups}
        return {name: part for name, part in self.form.items() if name not in flags}

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The names of the groups of each attribute."""
        return {name: group_names(bounds) for name, bounds in self.subgroups.items()}


def _array(attribute: str, name: str) -> str:
    return f"{attribute}.{name}"


def final_of(
    asked: FinalTask, predictions: Arrays, places: Mapping[str, Places]
) -> EvaluationStatistics:
    """What a site tells of its predictions, and of each group that no small count follows from.

    Args:
        asked: what the run asks for.
        predictions: of the site's test cases; of each array the first axis counts them.
        places: the group of each case ``(n,)``, by attribute.
    """
    kind, info, minimum = asked.kind, asked.info, asked.minimum
    before = told_tables(asked.before.tables(predictions, info, minimum), minimum)
    own = kind.tables(predictions, info, minimum)
    tables = told_tables([*before, *own], minimum)
    gone = {name for table in own for name in table.names}
    gone -= {name for table in tables for name in table.names}
    found = dict(kind.of(predictions, info).without(gone).arrays)
    sizes = {attribute: len(names) for attribute, names in asked.groups.items()}
    telling = told_groups(
        {attribute: places[attribute] for attribute in sizes},
        sizes,
        [table.cells for table in tables],
        minimum,
        predictions[PATIENTS] if PATIENTS in asked.plain and PATIENTS not in gone else None,
    )
    form = asked.form
    for attribute, told in telling.items():
        parts = [
            kind.of(_of_group(predictions, places[attribute] == group), info)
            if told[group]
            else kind.of_nothing(info)
            for group in range(sizes[attribute])
        ]
        found[_array(attribute, TOLD)] = told.astype(np.int64)
        for name in asked.plain:
            if name not in gone:
                key = _array(attribute, name)
                stacked = np.stack([part.arrays[name] for part in parts])
                found[key] = stacked.reshape(form[key].shape)
    arrays = {
        name: array.astype(np.float64) if form[name].real else array
        for name, array in found.items()
    }
    return EvaluationStatistics(arrays, frozenset(form) - frozenset(arrays))


def _of_group(predictions: Arrays, chosen: np.ndarray) -> Arrays:
    return {name: array[chosen] for name, array in predictions.items()}


def _whole(asked: FinalTask, told: EvaluationStatistics) -> EvaluationStatistics:
    """The statistics of all cases."""
    plain = asked.plain
    arrays = {name: told.arrays[name] for name in plain if name in told.arrays}
    return EvaluationStatistics(arrays, frozenset(plain) - frozenset(arrays))


def _of_place(
    asked: FinalTask, told: EvaluationStatistics, attribute: str, place: int
) -> EvaluationStatistics | None:
    """The statistics of one group; ``None`` where they are not told."""
    flags = told.arrays.get(_array(attribute, TOLD))
    if flags is None or not flags[place]:
        return None
    plain = asked.plain
    arrays = {
        name: told.arrays[_array(attribute, name)][place].reshape(part.shape)
        for name, part in plain.items()
        if _array(attribute, name) in told.arrays
    }
    return EvaluationStatistics(arrays, frozenset(plain) - frozenset(arrays))


def final_contradictions(asked: FinalTask, told: EvaluationStatistics) -> Iterator[str]:
    """Why it can be told of no cases: of all of them, of a group, or of groups beside each other.

    Args:
        asked: what the run asks for.
        told: what a site has sent, of the form.
    """
    whole = _whole(asked, told)
    yield from asked.kind.contradictions(whole, asked.info)
    if told.withheld and not asked.minimum:
        yield f"{min(told.withheld)!r} is missing, and nothing is to be withheld"
    for attribute, names in asked.groups.items():
        flags = told.arrays.get(_array(attribute, TOLD))
        if flags is None or (flags > 1).any():
            yield f"{attribute} does not say which groups are told"
            return
        for name in asked.plain:
            if (name in whole.arrays) != (_array(attribute, name) in told.arrays):
                yield f"{name!r} is told of all cases, or of the groups of {attribute}, alone"
                return
        if not flags.all() and not asked.minimum:
            hidden = names[int(np.flatnonzero(flags == 0)[0])]
            yield f"{attribute} {hidden} is hidden, and nothing is to be withheld"
        yield from _wrong_groups(asked, told, attribute, names)
        yield from _wrong_sums(asked, told, whole, attribute)


def _wrong_groups(
    asked: FinalTask, told: EvaluationStatistics, attribute: str, names: Sequence[str]
) -> Iterator[str]:
    keys = [key for name in asked.plain if (key := _array(attribute, name)) in told.arrays]
    for place, name in enumerate(names):
        own = _of_place(asked, told, attribute, place)
        if own is not None:
            for reason in asked.kind.contradictions(own, asked.info):
                yield f"{attribute} {name}: {reason}"
        elif any(told.arrays[key][place].any() for key in keys):
            yield f"{attribute} {name} is said to be hidden, and is told"


def _wrong_sums(
    asked: FinalTask, told: EvaluationStatistics, whole: EvaluationStatistics, attribute: str
) -> Iterator[str]:
    """Groups are parts of all cases: together they are these, or less where some are hidden."""
    all_told = bool(told.arrays[_array(attribute, TOLD)].all())
    for name, array in whole.arrays.items():
        total = told.arrays[_array(attribute, name)].sum(axis=0).reshape(array.shape)
        if name in OVER_PATIENTS:
            continue
        if name == PATIENTS:
            # A patient may have cases in several groups.
            if all_told and (total < array).any():
                yield f"the groups of {attribute} have fewer {name} than all together"
            continue
        room = ROUNDING * (1 + np.abs(array)) if array.dtype.kind == "f" else 0
        if (total > array + room).any() or (all_told and (total < array - room).any()):
            counts = f": {total.ravel()[0]:.6g} and {array.ravel()[0]:.6g}" * (array.size == 1)
            yield f"{name!r} of the groups of {attribute} is not that of all cases{counts}"
    cases = told.arrays[_array(attribute, CASES)]
    left = whole.cases - int(cases.sum())
    if 0 < left < asked.minimum or ((cases > 0) & (cases < asked.minimum)).any():
        yield f"{attribute} tells of fewer than {asked.minimum} cases, which are to be withheld"


@dataclass(frozen=True)
class Group:
    """A subgroup of the test cases of all sites that tell of it.

    ``statistics`` are ``None`` where no site does. ``hidden_by`` are the sites that hide it.
    """

    name: str
    statistics: EvaluationStatistics | None
    measured: Measured | None
    told_by: tuple[str, ...]
    hidden_by: tuple[str, ...]


@dataclass(frozen=True)
class FinalSums:
    """What sites have told at the end of a run, over all of them: all cases, and each group."""

    whole: EvaluationStatistics
    measured: Measured
    groups: Mapping[str, Sequence[Group]]


def final_over_sites(asked: FinalTask, sent: Mapping[str, EvaluationStatistics]) -> FinalSums:
    """The sums over sites of what each has ``sent``; of a group over those that tell of it."""
    whole = add((_whole(asked, own) for own in sent.values()), asked.plain)
    groups = {
        attribute: [_group(asked, sent, name, attribute, place) for place, name in enumerate(names)]
        for attribute, names in asked.groups.items()
    }
    return FinalSums(whole, asked.kind.measure(whole, asked.info), groups)


def final_of_sum(asked: FinalTask, total: EvaluationStatistics, sites: Sequence[str]) -> FinalSums:
    """What follows of a sum, in ``summed_form``, over some sites that all tell of every group."""
    told = {
        _array(attribute, TOLD): np.ones(len(names), np.int64)
        for attribute, names in asked.groups.items()
    }
    known = EvaluationStatistics({**total.arrays, **told})
    found = final_over_sites(asked, {"all sites": known})
    return replace(
        found,
        groups={
            attribute: [replace(group, told_by=tuple(sites)) for group in groups]
            for attribute, groups in found.groups.items()
        },
    )


def _group(
    asked: FinalTask,
    sent: Mapping[str, EvaluationStatistics],
    name: str,
    attribute: str,
    place: int,
) -> Group:
    """One group over the sites.

    Args:
        asked: what the run asks for.
        sent: what each site has told.
        name: the group's.
        attribute: whose it is.
        place: among the groups of the attribute.
    """
    own = {site: _of_place(asked, told, attribute, place) for site, told in sent.items()}
    telling = {site: part for site, part in own.items() if part is not None}
    hidden = tuple(site for site in own if site not in telling)
    if not telling:
        return Group(name, None, None, (), hidden)
    total = add(telling.values(), asked.plain)
    return Group(name, total, asked.kind.measure(total, asked.info), tuple(telling), hidden)
