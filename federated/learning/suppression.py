"""Which tables of counts a site may tell so that no count below a minimum can be read.

A table sorts a site's cases into its cells. Several tables together sort them into the cells of
all: two cases are in one group if no table tells them apart. Whatever sums and differences are
taken of cells, of totals and of several tables, what they count are whole groups. So if every group
has at least ``minimum`` cases, every number of cases that can be worked out is 0 or at least
``minimum``; this is k-anonymity with the tables as what is known. Cells alone would not do: of two
tables whose cells are all large, a difference may be small.

A table is told whole or not at all. Withholding one cell would let it be read from the total, and
withholding two lets their sum be.

That a table is withheld tells something too: that some group would be smaller than ``minimum``.
With a minimum of 2 that is a group of one case, which is why 3 is the least
(``tests/federated/learning/test_suppression.py`` looks at all small sites).

This is about counts. Sums of real numbers go with the counts of the cases that they are over; who
knows of a model that it predicts only a few different values can divide such a sum up among them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_MINIMUM = 3


@dataclass(frozen=True)
class Table:
    """Arrays that are told together, and the cell of each case ``(n, any)`` that they count.

    ``names`` are those of the arrays; cases are in the same cell if their rows are equal.
    """

    names: tuple[str, ...]
    cells: npt.NDArray[np.integer]


def told(tables: Sequence[Table], minimum: int) -> list[Table]:
    """The tables that may be told.

    They are tried in their order: one is told if together with those told before it leaves no group
    of fewer than ``minimum`` cases. With a minimum of 0 all are told.
    """
    found: list[Table] = []
    for table in tables:
        known = [each.cells for each in found]
        if not minimum or smallest_group([*known, table.cells]) >= minimum:
            found.append(table)
    return found


def withheld(tables: Sequence[Table], minimum: int) -> frozenset[str]:
    """The names of the arrays of tables that may not be told."""
    names = {name for table in told(tables, minimum) for name in table.names}
    return frozenset(name for table in tables for name in table.names if name not in names)


def smallest_group(cells: Sequence[npt.NDArray[np.integer]]) -> float:
    """The number of cases in the smallest group that cells tell apart; infinite without a case."""
    if not len(cells[0]):
        return np.inf
    rows = np.concatenate([each.reshape(len(each), -1) for each in cells], axis=1)
    # A row as one value: np.unique sorts rows column by column, and takes many times as long.
    row = np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))
    return min(Counter(np.ascontiguousarray(rows).view(row).ravel().tolist()).values())
