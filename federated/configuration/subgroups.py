"""Which subgroups an experiment may ask for, and whether its data say what they are."""

from collections.abc import Iterator

from federated.configuration.experiment import Experiment
from federated.configuration.explain import closest
from federated.data.dataset import Dataset, LocatedFile
from federated.data.family_of import task_name
from federated.data.folders.described.table_roles import ATTRIBUTES, DESCRIPTION
from federated.data.partitioning import AnyDataset
from federated.data.subgroups import meant_twice
from federated.errors import ConsiliumError


def reasons_of_final_evaluation(experiment: Experiment) -> Iterator[str]:
    """Refuse what sites cannot tell at the end of a run of an experiment."""
    evaluation, data = experiment.evaluation, experiment.data
    if not evaluation.evaluates_at_end:
        return
    asked = "evaluation.subgroups" if evaluation.subgroups else "evaluation.uncertainty=flips"
    if evaluation.share == "metrics":
        yield (
            f"{asked} follows from counts and sums over cases, and evaluation.share=metrics sends "
            "none. Set evaluation.share=statistics, or sums with a protection that adds them."
        )
    goal = task_name(data.dataset, data.described)
    if evaluation.uncertainty == "flips" and goal != "segmentation":
        yield (
            f"evaluation.uncertainty=flips is for masks, and data.dataset={data.dataset} is for "
            f"{goal}. Leave it out."
        )
    if evaluation.subgroups is not None:
        yield from _reasons_of_subgroups(experiment)


def _reasons_of_subgroups(experiment: Experiment) -> Iterator[str]:
    asked, data = experiment.evaluation.subgroups, experiment.data
    assert asked is not None
    described = data.described
    if described is None or described.layout != "table":
        kind = "is no set of your own" if described is None else f"has layout={described.layout}"
        yield (
            f"evaluation.subgroups={{{', '.join(asked)}}} are groups by what a table says of each "
            f"case, and data.dataset={data.dataset} {kind}: it has no table of its cases. Leave "
            "evaluation.subgroups out, or use a data set with cases.csv (docs/own-data.md)."
        )
        return
    if data.source == "phantom":
        yield _of_nobody(experiment)
    stated = [name.lower() for name in described.columns.attributes]
    taken = {name.lower() for name in described.columns.named()} - set(stated)
    known = [*stated, *(name for name in ATTRIBUTES if name not in {*stated, *taken})]
    for name, bounds in asked.items():
        if name.lower() not in known:
            yield (
                f"evaluation.subgroups has {name!r:.80}, which is no attribute of data.dataset="
                f"{data.dataset}: these are {', '.join(known)}.{closest(name.lower(), known)} Name "
                f"one of them, or name the column in {DESCRIPTION} under columns.attributes."
            )
        if (twice := meant_twice(name, bounds)) is not None:
            yield (
                f"evaluation.subgroups has {twice!r:.80} for {name}, and before it a value that "
                "means the same. Leave one of them out."
            )


def _of_nobody(experiment: Experiment) -> str:
    return (
        f"evaluation.subgroups are groups of patients, and the images of {experiment.data.dataset} "
        "are generated (phantom), of nobody. Leave evaluation.subgroups out, or set "
        "data.source=files."
    )


def refuse_without_attributes(
    experiment: Experiment, dataset: AnyDataset, located: LocatedFile
) -> None:
    """Refuse subgroups that the data say nothing of, before anything is trained.

    Raises:
        ConsiliumError: they are generated, or a column that is asked for is in no table.
    """
    asked = experiment.evaluation.subgroups
    if asked is None:
        return
    where = f"Experiment {experiment.name} cannot be used with its data: "
    if located.source == "phantom":
        raise ConsiliumError(where + _of_nobody(experiment))
    if isinstance(dataset, Dataset):
        origins = dataset.origins or {}
        told = [origin.attributes for split in origins.values() for origin in split]
    else:
        told = [case.attributes for split in dataset.cases.values() for case in split]
    columns = {name for attributes in told for name, _ in attributes}
    missing = [name for name in asked if name.lower() not in columns]
    if missing:
        raise ConsiliumError(
            f"{where}evaluation.subgroups has {', '.join(missing):.200}, and the table of "
            f"{located.path} has no such column. Add it, or leave it out of evaluation.subgroups."
        )
