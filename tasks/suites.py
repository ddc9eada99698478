"""suites: what Great Expectations finds in the tables of sites' cases, and its pages.

A suite of a site of its own takes Great Expectations a tenth of a second, whatever few cases the
site has. So where there are many sites, their cases are judged as one table first, by rules that
judge each row by itself. A site with a row that breaks one is judged once more alone, as every site
is where there are few of them, and so is each site that a rule cannot be asked for in one table:
what is found of a site does not depend on how many others there are.
"""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from federated.configuration.experiment import Experiment
from federated.data.dataset import DatasetInfo
from federated.files import make_folders
from federated.settings.sections import Parties, Processes
from tasks.fork_server import has_fork_server

if TYPE_CHECKING:
    import pandas as pd

# Up to so many sites each has a suite, and a page, of its own.
MOST_ALONE = 50
# The process that will judge, where it was begun before it was known what.
_BEGUN: list[Future[Executor]] = []


@dataclass(frozen=True)
class BrokenRule:
    """A rule that a site's cases break, which of them do, and what was found there.

    ``rows`` are those of the site's table; it is empty where the rule is about the site as a whole.
    """

    rule: str
    said: str
    where: Sequence[str]
    rows: Sequence[int]


def broken_rules(
    experiment: Experiment, info: DatasetInfo, tables: "Mapping[str, pd.DataFrame]", docs: Path
) -> dict[str, list[BrokenRule]]:
    """Do the same as :func:`run_suites`, in a process of its own where there are workers.

    Great Expectations is 120 MB, which a run's process, or that of a site which is a party of its
    own, would have to its end.

    Raises:
        ConsiliumError: the process died.
    """
    if not _judges_apart(experiment):
        return run_suites(experiment, info, tables, docs)
    from tasks.pool import finished, open_worker

    with _BEGUN.pop().result() if _BEGUN else open_worker() as worker:
        broken: dict[str, list[BrokenRule]]
        (broken,) = finished([worker.submit(run_suites, experiment, info, tables, docs)])
    return broken


def begin_judging(experiment: Experiment) -> None:
    """Start the process that will judge the cases of a run, if there is one; nothing waits for it.

    It has two seconds of imports before it, in which the run's process reads the data. This is for
    a run of which it is certain, before any data are read, that nobody has judged them, and which
    judges them itself: in a consortium sites do. Where it is not needed after all,
    :func:`end_judging` ends it.
    """
    if _BEGUN or isinstance(experiment.runner, Parties) or not _judges_apart(experiment):
        return
    begun: Future[Executor] = Future()
    _BEGUN.append(begun)
    # The fork server answers once it has its own imports behind it. No daemon: this process may not
    # end before, or the one that it has asked for finds nothing to begin with, and says so.
    Thread(target=_begin, args=(begun,)).start()


def end_judging() -> None:
    """End a process that was begun and has nothing to judge, as where another run has judged."""
    while _BEGUN:
        _BEGUN.pop().add_done_callback(_shut_down)


def _shut_down(begun: Future[Executor]) -> None:
    if begun.exception() is None:
        begun.result().shutdown(wait=False)


def _begin(begun: Future[Executor]) -> None:
    try:
        # Of a process that is about to end this fails too, and nobody asks for what was begun.
        from tasks.pool import open_worker

        worker = open_worker()
        worker.submit(_import_rules)
    except Exception as error:
        begun.set_exception(error)
    else:
        begun.set_result(worker)


def _import_rules() -> None:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations  # noqa: F401

    import tasks.data_docs
    import tasks.expectations  # noqa: F401


def _judges_apart(experiment: Experiment) -> bool:
    if isinstance(experiment.runner, Parties):
        return True
    return isinstance(experiment.runner, Processes) and has_fork_server()


def run_suites(
    experiment: Experiment, info: DatasetInfo, tables: "Mapping[str, pd.DataFrame]", docs: Path
) -> dict[str, list[BrokenRule]]:
    """The rules that the cases of each table break; ``docs`` gets the pages that tell of it.

    Args:
        experiment: whose rules are checked.
        info: what is known of the data set.
        tables: of each site's cases, and of files that belong to no site.
        docs: the folder of the pages, which is made anew.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    from federated.data.tables import NO_SITE
    from tasks.expectations import expectations

    judge, broken = _Judge(docs), {site: list[BrokenRule]() for site in tables}
    alone = list(tables)
    of_sites = {site: table for site, table in tables.items() if site != NO_SITE and len(table)}
    if len(of_sites) > MOST_ALONE:
        suspects = _suspects(judge, experiment, info, of_sites)
        alone = [site for site in tables if site not in of_sites or site in suspects]
    for site in alone:
        rules = expectations(experiment, info, of_a_site=site != NO_SITE)
        found = judge.results(site, rules, tables[site])
        broken[site] = [_broken(result, tables[site]) for result in found if not result.success]
    judge.write_pages()
    return broken


class _Judge:
    """Great Expectations, with what it has judged, of which it writes pages into a folder."""

    def __init__(self, docs: Path) -> None:
        import great_expectations as gx

        from tasks.data_docs import site

        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = {"globally": False, "metric_calculations": False}
        shutil.rmtree(docs, ignore_errors=True)
        # A site's folder of a run is closed to others, whoever makes it first.
        make_folders(docs)
        self._context.add_data_docs_site(site_name="consilium", site_config=site(docs))
        self._source = self._context.data_sources.add_pandas("cases")

    def results(self, name: str, rules: Sequence[Any], table: "pd.DataFrame") -> Sequence[Any]:
        """What each of some rules finds in a table; ``name`` is that of its page."""
        import great_expectations as gx

        context = self._context
        batch = self._source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = gx.ExpectationSuite(name=name, expectations=list(rules))
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=name, data=batch, suite=context.suites.add(suite))
        )
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name=name,
                validation_definitions=[definition],
                result_format={"result_format": "COMPLETE"},
            )
        )
        (result,) = checkpoint.run(batch_parameters={"dataframe": table}).run_results.values()
        found: Sequence[Any] = result.results
        return found

    def write_pages(self) -> None:
        """Write the pages of all that was judged."""
        self._context.build_data_docs(site_names=["consilium"])


def _suspects(
    judge: _Judge,
    experiment: Experiment,
    info: DatasetInfo,
    tables: "Mapping[str, pd.DataFrame]",
) -> Iterable[str]:
    """The sites whose cases break a rule, or may, judged in one table; no site's is empty."""
    import numpy as np
    import pandas as pd

    from tasks.expectations import AT_SITE, CASES, DIGEST, expectations_of_many

    names = list(tables)
    if (asked := expectations_of_many(experiment, info)) is None:
        return names
    row_rules, site_rules = asked
    owners = np.repeat(names, [len(table) for table in tables.values()])
    whole = pd.concat(tables.values(), ignore_index=True)
    if DIGEST in whole:
        whole[AT_SITE] = [f"{s} {v}" for s, v in zip(owners, whole[DIGEST], strict=True)]
    trained = [int((table["split"] == "train").sum()) for table in tables.values()]
    of_each = pd.DataFrame({"site": names, CASES: trained})
    title = f"{len(names)} sites together"
    found = [
        (owners, judge.results(title, row_rules, whole)),
        (np.array(names), judge.results(f"{title}, a row each", site_rules, of_each)),
    ]
    suspects: set[str] = set()
    for whose, results in found:
        for result in results:
            if result.success:
                continue
            rows = result.result.get("unexpected_index_list")
            if rows is None or result.exception_info.get("raised_exception"):
                return names
            suspects.update(map(str, whose[list(rows)]))
    return suspects


def _broken(result: Any, table: "pd.DataFrame") -> BrokenRule:
    """The rule, which cases break it, and what they have instead."""
    from tasks.expectations import OF_MASKS

    rule = result.expectation_config.notes
    of_mask = result.expectation_config.kwargs.get("column") in OF_MASKS
    if result.exception_info.get("raised_exception"):
        return BrokenRule(rule, str(result.exception_info["exception_message"]), (), ())
    rows = result.result.get("unexpected_index_list")
    if rows is None:
        return BrokenRule(rule, f"there are {result.result.get('observed_value')}", (), ())
    found = [value for value in result.result.get("partial_unexpected_list") or () if value != ""]
    said = "broken by 1 case" if len(rows) == 1 else f"broken by {len(rows)} cases"
    if found:
        example = f"{found[0]:.4g}" if isinstance(found[0], float) else found[0]
        said += f", for example {example}"
    return BrokenRule(rule, said, [_where(table, row, of_mask) for row in rows], list(rows))


def _where(table: "pd.DataFrame", row: int, of_mask: bool) -> str:
    """The file that a broken rule is about."""
    mask = str(table.loc[row, "mask_path"]) if of_mask else ""
    return mask or str(table.loc[row, "where"])
