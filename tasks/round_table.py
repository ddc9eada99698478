"""round-table: a round as a table among the artifacts of Prefect."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact

# What Prefect takes in a key, and how long.
NOT_IN_KEYS, LONGEST_KEY = re.compile(r"[^a-z0-9]+"), 100


def key_of(kind: str, experiment: str) -> str:
    """The key of artifacts of a kind, such as ``rounds``: one for all runs of an experiment."""
    return f"{kind}-{NOT_IN_KEYS.sub('-', experiment.lower())}"[:LONGEST_KEY].strip("-")


def show_round(
    experiment: str,
    run: str,
    round_number: int,
    rows: Sequence[Mapping[str, Any]],
    links: str = "",
) -> None:
    """Keep a round's table beside its flow run; all rounds of an experiment have one key.

    It is for people to look at: where Prefect does not take it, the run goes on without.

    Args:
        experiment: the experiment's name.
        run: the run's id.
        round_number: the round.
        rows: a row for each site.
        links: where the rest of the run is, as Markdown.
    """
    try:
        create_table_artifact(
            table=[dict(row) for row in rows],
            key=key_of("rounds", experiment),
            description=f"Round {round_number} of run {run}. ε is by RDP, an upper bound. {links}",
        )
    except Exception as error:
        get_run_logger().warning("round %s has no table in Prefect: %s", round_number, error)
