"""Which subgroups a site has told of, of each data set: one set of groups, for ever.

Of two sets of groups the differences are groups of their own: who is told how many patients are 40
and older, and in another run how many are 41 and older, knows how many are 40. So a site whose
policy withholds small counts tells of one set of groups alone, in whatever run, and writes it down
before it does. As the ledger this belongs to who holds the data.
"""

from typing import Any

from federated.configuration.experiment import Experiment
from federated.errors import RefusalError, unreadable
from federated.files import PRIVATE, locked, read_json, write_json
from federated.secrets.home import private_folder
from federated.site.home import SiteHome


def refuse_other_subgroups(home: SiteHome, experiment: Experiment) -> None:
    """Refuse a run that asks for other subgroups than the site has told of before.

    Raises:
        ConsiliumError: it does, or what the site has written down cannot be read.
    """
    _compare(home, experiment, write=False)


def note_subgroups(home: SiteHome, experiment: Experiment) -> None:
    """Write down which subgroups the site is about to tell of.

    Raises:
        ConsiliumError: it has told of others, or what it has written down cannot be read.
    """
    _compare(home, experiment, write=True)


def _compare(home: SiteHome, experiment: Experiment, *, write: bool) -> None:
    settings = experiment.evaluation
    if settings.subgroups is None or not home.policy().settings.min_count:
        return
    groups = settings.model_dump(mode="json")["subgroups"]
    # In their order, in which they are tried.
    asked = {"subgroups": list(map(list, groups.items())), "min_count": settings.min_count}
    dataset, path = experiment.data.dataset, home.subgroups_path
    with locked(private_folder(path.parent) / f"{home.name}.lock"):
        try:
            known: dict[str, Any] = dict(read_json(path)) if path.is_file() else {}
        except (OSError, ValueError, TypeError) as error:
            raise unreadable(path, error) from error
        before = known.setdefault(dataset, asked)
        if before != asked:
            raise RefusalError(
                f"{home.name} does not tell of these subgroups of {dataset}: it has told of others "
                f"before, {_written(before)}, and now {_written(asked)} is asked for. Of two sets "
                "of groups the differences are groups of few patients. Ask for the same groups "
                "with the same evaluation.min_count; or whoever runs the site may allow others by "
                f"taking {dataset} out of {path}, knowing what was told."
            )
        if write:
            write_json(path, known, PRIVATE)


def _written(told: dict[str, Any]) -> str:
    try:
        groups = ", ".join(f"{name} {list(bounds)}" for name, bounds in told["subgroups"])
        return f"{groups:.300} with evaluation.min_count={told['min_count']}"
    except (KeyError, TypeError, ValueError):
        return f"{told!r:.300}"
