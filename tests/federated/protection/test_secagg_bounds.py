"""How many neighbours and shares SecAgg+ needs, against exact probabilities and the paper."""

from itertools import product
from math import comb, inf, log2, prod

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.protection import Cohort, SecAggPlus
from federated.protection.secagg.bounds import (
    Graph,
    Shares,
    broken,
    fit_graph,
    quorum,
    threshold_for,
    unconnected,
    uncovered,
    unrecoverable,
)
from federated.protection.secagg.graph import draw_graph, parts


class TestBounds:
    @pytest.mark.parametrize("sites", [2, 3, 5, 10, 20, 21])
    def test_few_sites_all_mask_with_each_other(self, sites):
        assert fit_graph(sites, Shares(0.1, 0.1)).neighbours == sites - 1

    @pytest.mark.parametrize("sites", [30, 100, 300])
    @pytest.mark.parametrize("shares", [Shares(0.1, 0.1), Shares(0.2, 0.2), Shares(0.3, 0.1)])
    def test_what_is_chosen_does_what_it_has_to_and_one_step_less_does_not(self, sites, shares):
        found = fit_graph(sites, shares)
        assert broken(sites, found, shares) is None
        assert found.threshold > shares.colluding(sites) or found.neighbours < sites - 1
        if found.neighbours > 20:
            assert found.neighbours % 2 == 0 or found.neighbours == sites - 1
            fewer = found.neighbours - 2
            thresholds = range(1, fewer + 2)
            assert all(broken(sites, Graph(fewer, t), shares) for t in thresholds)

    @pytest.mark.parametrize(
        ("sites", "degree", "share"), [(12, 2, 0.1), (14, 4, 0.2), (16, 4, 0.2)]
    )
    def test_the_bound_on_falling_apart_is_above_how_often_it_happens(self, sites, degree, share):
        shares = Shares(share, share)
        bad, rng = shares.gone(sites) + shares.colluding(sites), np.random.default_rng(0)
        names, apart, tries = [f"s{n:02d}" for n in range(sites)], 0, 4000
        for number in range(tries):
            graph = draw_graph(names, degree, 0, number)
            left = rng.permutation(names)[bad:].tolist()
            apart += len(parts(graph, left)) > 1
        assert apart / tries < 2 ** unconnected(sites, degree, shares)
        assert apart > 0 or degree > 2

    @pytest.mark.parametrize(
        ("sites", "neighbours", "gone"), [(100, 4, 30), (100, 20, 30), (100, 30, 30), (10, 8, 8)]
    )
    def test_the_bound_on_falling_apart_is_that_of_two_stretches_of_a_circle(
        self, sites, neighbours, gone
    ):
        bad = prod((gone - place) / (sites - place) for place in range(neighbours))
        shares = Shares((gone - 3) / sites, 3 / sites)
        assert unconnected(sites, neighbours, shares) == pytest.approx(log2(sites**2 / 2 * bad))

    def test_a_graph_cannot_fall_apart_where_all_mask_with_all_or_too_few_may_be_gone(self):
        assert unconnected(11, 10, Shares(0.6, 0.5)) == -inf
        assert unconnected(100, 31, Shares(0.2, 0.1)) == -inf

    @pytest.mark.parametrize(
        "graph",
        [
            *(Graph(4, 1), Graph(30, 16)),
            *(Graph(30, 21), Graph(30, 30)),
            *(Graph(30, 31), Graph(30, 32)),  # all holders have to stay, and more than all
            *(Graph(99, 51), Graph(99, 70)),
        ],
    )
    @pytest.mark.parametrize(
        "shares", [Shares(0.2, 0.1), Shares(0.1, 0.3), Shares(0.4, 0.55), Shares(0.01, 0.01)]
    )
    def test_the_bounds_on_holders_are_tails_of_who_is_drawn_as_a_neighbour(self, graph, shares):
        def tail(others, marked, least):
            drawn = min(graph.neighbours, others)
            ways = sum(
                comb(marked, many) * comb(others - marked, drawn - many)
                for many in range(max(0, least), min(marked, drawn) + 1)
            )
            return ways / comb(others, drawn)

        def exponent(probability):
            return pytest.approx(log2(probability)) if probability else -inf

        gone, colluding = round(100 * shares.dropout), round(100 * shares.corrupted)
        most = max(tail(others, colluding, graph.threshold) for others in (99, 99 - gone))
        assert uncovered(100, graph, shares) == exponent(100 * most)
        lost = graph.neighbours + 1 - graph.threshold
        staying = (100 - gone) * tail(99, gone, lost + 1)
        assert unrecoverable(100, graph, shares) == exponent(
            staying + gone * tail(99, gone - 1, lost)
        )

    def test_holders_are_always_enough_where_nobody_drops_out(self):
        assert unrecoverable(100, Graph(30, 31), Shares(0.0, 0.1)) == -inf

    @pytest.mark.parametrize(
        ("sites", "graph", "shares", "exponent"),
        [
            (200, Graph(114, 58), Shares(0.02, 0.3), -40.06),
            (200, Graph(64, 44), Shares(0.02, 0.3), -40.86),
            (100, Graph(44, 30), Shares(0.02, 0.3), -39.65),
            (200, Graph(36, 19), Shares(0.1, 0.1), -39.2),
        ],
    )
    def test_a_graph_is_refused_where_it_fails_more_often_than_2_to_the_minus_40(
        self, sites, graph, shares, exponent
    ):
        assert uncovered(sites, graph, shares) == pytest.approx(exponent, abs=0.01)
        said = broken(sites, graph, shares)
        if exponent <= -40:
            assert said is None
        else:
            assert f"may collude, with a probability of up to 2^{exponent:.0f}" in said

    def test_what_fails_for_certain_is_said_to_fail_with_a_probability_of_one(self):
        assert broken(20, Graph(19, 11), Shares(0.1, 0.9)).endswith("of up to 2^0")

    @pytest.mark.parametrize(
        ("threshold", "fits"), [(5, False), (6, True), (10, True), (11, False)]
    )
    def test_a_threshold_is_more_than_half_of_the_holders_and_at_most_all(self, threshold, fits):
        said = broken(10, Graph(9, threshold), Shares(0.0, 0.0))
        assert fits == (said is None)
        assert fits or "has to be from 6, more than half of a site's 10 holders, to 10" in said

    @pytest.mark.parametrize(("neighbours", "nearest"), [(29, 20), (30, 21), (31, 22), (2, 2)])
    def test_the_threshold_is_two_thirds_of_the_holders_rounded_up(self, neighbours, nearest):
        assert threshold_for(neighbours + 1, neighbours, Shares(0.0, 0.0)) == nearest

    @pytest.mark.parametrize("shares", [Shares(0.3, 0.2), Shares(0.1, 0.6), Shares(0.45, 0.45)])
    @pytest.mark.parametrize("neighbours", [40, 58, 59])
    def test_where_two_thirds_do_not_fit_the_threshold_is_the_nearest_that_does(
        self, shares, neighbours
    ):
        fitting = [
            threshold
            for threshold in range(1, neighbours + 2)
            if broken(60, Graph(neighbours, threshold), shares) is None
        ]
        wanted = -(-2 * (neighbours + 1) // 3)
        nearest = min(fitting, key=lambda t: (abs(t - wanted), t), default=None)
        assert threshold_for(60, neighbours, shares) == nearest

    def test_a_sparse_graph_has_twenty_neighbours_or_more(self):
        assert fit_graph(22, Shares(0.0, 0.0)).neighbours == 20
        assert fit_graph(23, Shares(0.0, 0.0)).neighbours == 20

    @pytest.mark.parametrize(("sites", "shares"), [(50, Shares(0.2, 0.2)), (70, Shares(0.1, 0.2))])
    def test_a_sparse_graph_has_as_many_neighbours_before_a_site_as_behind(self, sites, shares):
        assert threshold_for(sites, 21, shares) is not None
        assert fit_graph(sites, shares).neighbours == 22

    @pytest.mark.parametrize(
        ("sites", "corrupted"), [(2, 0), (3, 0.34), (10, 0.1), (10, 0.4), (300, 0.1)]
    )
    def test_two_quorums_have_more_sites_in_common_than_collude_and_one_less_has_not(
        self, sites, corrupted
    ):
        shares = Shares(0.0, corrupted)
        asked, colluding = quorum(sites, shares), shares.colluding(sites)
        assert 2 * asked - sites > colluding >= 2 * (asked - 1) - sites

    def test_a_quorum_that_cannot_stay_is_refused(self):
        """With a sparse graph, where the threshold alone would not see to it."""
        assert broken(300, Graph(280, 185), Shares(0.29, 0.4)) is None
        said = broken(300, Graph(280, 185), Shares(0.31, 0.4))
        assert said.startswith("211 of 300 sites have to sign that they were told the same, and ")
        assert said.endswith("as few as 207 may stay")
        assert quorum(300, Shares(0.31, 0.4)) == 211

    def test_what_is_given_of_a_graph_is_kept_or_there_is_none(self):
        shares = Shares(0.1, 0.1)
        assert fit_graph(30, shares, 29, 25) == Graph(29, 25)
        assert fit_graph(30, shares, 29, 15) is None
        assert fit_graph(30, shares, threshold=20).threshold == 20
        assert fit_graph(30, shares, neighbours=4) is None

    def test_a_graph_falls_apart_only_where_two_stretches_are_gone(self):
        """What the bound rests on, for every set of sites that may be gone of a circle of nine."""
        names = [f"s{number}" for number in range(9)]
        graph = draw_graph(names, 4, 0, 1)
        for gone in product((False, True), repeat=9):
            left = {name for name, is_gone in zip(names, gone, strict=True) if not is_gone}
            if len(parts(graph, left)) > 1:
                assert sum(gone) >= 4

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"threshold": 5}, "has to be from 6, more than half"),
            ({"threshold": 10, "dropout": 0.3}, "fewer than 10 of a site's 10 holders may stay"),
            ({"threshold": 6, "corrupted": 0.6}, "6 of a site's 10 holders may collude"),
            ({"neighbours": 4, "dropout": 0.3}, "the graph of 4 neighbours may fall apart"),
        ],
    )
    def test_settings_that_do_not_keep_to_the_shares_are_refused(self, settings, said):
        with pytest.raises(ConsiliumError, match=said):
            SecAggPlus(**settings).check(Cohort(10, 10, 1, 8))
