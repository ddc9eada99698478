"""A round as a table for a person, with a row for each site, and as a line for those who count.

Neither tells more than the round's record does: of a private run there are no times.
"""

from collections.abc import Mapping
from typing import Any

from federated.data.partition import CaseCounts
from federated.run.result import StageResult
from federated.run.round_record import RoundRecord
from federated.run.timing import covered

NOT_TOLD = "not told"
# In characters of a reason in a cell.
LONGEST_REASON = 300
# Of more sites than a person reads, a table has those that were left out, and the first.
MOST_ROWS = 100


def round_table(record: RoundRecord, counts: CaseCounts, down: int) -> list[dict[str, Any]]:
    """The rows of a round: each site with its training cases, bytes, seconds, and ε.

    Args:
        record: the round's.
        counts: how many cases each site has.
        down: the bytes of the sum that each site fetches at the end of the round.

    Returns:
        A row for each site that was in the round's sum or was left behind, in order; of more than
        :data:`MOST_ROWS` sites those that were left behind, and then the first. Seconds are those
        in which the site worked, and ε is what it has spent in the run so far, by RDP.
    """
    left_behind, summed = sorted(record.dropped), sorted({*record.sites} - record.dropped.keys())
    shown = sorted([*left_behind, *summed][:MOST_ROWS])
    told: dict[str, list[StageResult]] = {name: [] for name in shown}
    for stage in record.told:
        if stage.site in told:
            told[stage.site].append(stage)
    return [_row(record, counts, down, name, own) for name, own in told.items()]


def left_out(record: RoundRecord) -> str:
    """That a round's table does not have all sites, and where they are; ``""`` where it has."""
    sites = len({*record.sites, *record.dropped})
    if sites <= MOST_ROWS:
        return ""
    return (
        f"{MOST_ROWS} of {sites} sites are here, those that were left behind first; which sites "
        f"were in the round, and why others were not, is in round-{record.round_number:03d}/"
        "round.json of the run."
    )


def _row(
    record: RoundRecord, counts: CaseCounts, down: int, site: str, told: list[StageResult]
) -> dict[str, Any]:
    """The row of a site, with what it has told of its stages."""
    spent = [stage.epsilon for stage in told if stage.epsilon is not None]
    why = record.dropped.get(site)
    return {
        "site": site,
        "training cases": counts.cases(site, "train") if site in counts.sites else None,
        "bytes up": sum(stage.sent for stage in told),
        "bytes down": down + sum(stage.received for stage in told),
        "seconds": _seconds(told) if record.timed else NOT_TOLD,
        "ε so far": max(spent) if spent else None,
        "in the sum": site in record.sites and record.lost is None,
        "why not": (why or (record.lost if site in record.sites else None) or "")[:LONGEST_REASON],
    }


def _seconds(told: list[StageResult]) -> float | str:
    known = [stage.when for stage in told if stage.when]
    return round(covered(known), 3) if known else NOT_TOLD


def round_line(
    record: RoundRecord,
    run: str,
    experiment: str,
    sizes: Mapping[str, int],
    seconds: Mapping[str, float | None],
) -> dict[str, Any]:
    """A round as plain values for those who count rounds.

    Args:
        record: the round's.
        run: the run's id.
        experiment: its name.
        sizes: what :meth:`RoundRecord.sizes` gave, in bytes.
        seconds: what :meth:`RoundRecord.seconds` gave.
    """
    spent = {stage.site: stage.epsilon for stage in record.told if stage.epsilon is not None}
    return {
        "run": run,
        "experiment": experiment,
        "round": record.round_number,
        "summed": list(record.sites) if record.lost is None else [],
        "left_behind": sorted(record.dropped),
        "lost": record.lost is not None,
        "bytes": {"up": sizes["up"], "down": sizes["down"]},
        "seconds": {name: value for name, value in seconds.items() if value is not None},
        "epsilon": spent,
    }
