"""SecAgg+'s graph is drawn over the sites that have advertised keys, so those who drop out before
that make the colluding a larger share of everyone's neighbours.
"""

from math import log2

import pytest
from scipy.stats import hypergeom

from federated.protection.secagg.bounds import SIGMA, Shares, fit_graph

SHARES = [(0.1, 0.2), (0.2, 0.2), (0.2, 0.3), (0.3, 0.3), (0.3, 0.35)]


@pytest.mark.parametrize(("dropout", "corrupted"), SHARES)
@pytest.mark.parametrize("sites", [60, 100, 200, 500, 1000])
def test_the_colluding_cover_nobody_where_others_dropped_out_before(sites, dropout, corrupted):
    shares = Shares(dropout, corrupted)
    graph = fit_graph(sites, shares)
    if graph is None:
        return
    left = sites - shares.gone(sites)
    drawn = min(graph.neighbours, left - 1)
    tail = hypergeom.sf(graph.threshold - 1, left - 1, shares.colluding(sites), drawn)
    assert tail == 0 or log2(left) + log2(tail) <= -SIGMA


@pytest.mark.parametrize(("dropout", "corrupted"), [*SHARES, (0.15, 0.05)])
@pytest.mark.parametrize("sites", [60, 100, 200, 300, 500, 1000])
def test_who_drops_out_holds_none_of_its_own_shares(sites, dropout, corrupted):
    shares = Shares(dropout, corrupted)
    graph = fit_graph(sites, shares)
    if graph is None:
        return
    gone, most = shares.gone(sites), graph.neighbours - graph.threshold
    lost = gone * hypergeom.sf(most, sites - 1, gone - 1, graph.neighbours)
    lost += (sites - gone) * hypergeom.sf(most + 1, sites - 1, gone, graph.neighbours)
    assert lost == 0 or log2(lost) <= -SIGMA
