"""ComBat from sums over sites is ComBat of all cases, and takes away what a site adds alone."""

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.planning.combat import learned_effect, site_effect, without_site
from federated.planning.feature_sums import (
    STEPS,
    FeatureScheme,
    feature_sums,
    pooled_model,
)

SCHEME = FeatureScheme(
    tuple((f"f{n}", (-40.0, 60.0)) for n in range(6)),
    (("age", (0.0, 120.0)), ("stage", (1.0, 4.0))),
)
SIZES = (30, 12, 45)
AGE_EFFECT = 0.15


def made(seed=0, sizes=SIZES, shift=(0.0, 6.0, -5.0), scale=(1.0, 1.8, 0.6), covariates=2):
    """Features and covariates of each site: an effect of age, and of the site."""
    rng = np.random.default_rng(seed)
    found = []
    for place, n in enumerate(sizes):
        age = rng.uniform(20 + 15 * place, 70 + 15 * place, n)
        stage = rng.integers(1, 5, n).astype(float)
        clean = 3 + AGE_EFFECT * (age[:, None] - 50) * np.linspace(0.5, 1.5, 6)
        noise = scale[place] * rng.standard_normal((n, 6))
        own = shift[place] * (1 + 0.2 * rng.standard_normal(6))
        x = np.column_stack([age, stage])[:, :covariates]
        found.append(np.column_stack([clean + own + noise, x]))
    return found


def federated(scheme, sites):
    sums = sum(feature_sums(scheme, values, f"s{n}") for n, values in enumerate(sites))
    model = pooled_model(scheme, sums)
    return [harmonised(model, values) for values in sites]


def harmonised(model, values):
    return without_site(model, learned_effect(model, values, "s"), values, "s")


def central(sites, p):
    """ComBat by its formulas, of all cases in one place, feature by feature (float64).

    Johnson et al. 2007; the regression is ordinary least squares with an indicator of each site.
    """
    y = np.concatenate([values[:, :p] for values in sites])
    x = np.concatenate([values[:, p:] for values in sites])
    site = np.concatenate([[place] * len(values) for place, values in enumerate(sites)])
    design = np.column_stack([(site[:, None] == np.arange(len(sites))).astype(float), x])
    fit = np.linalg.lstsq(design, y, rcond=None)[0]
    shares = np.array([len(values) for values in sites]) / len(y)
    alpha = shares @ fit[: len(sites)]
    sigma = np.sqrt(((y - design @ fit) ** 2).mean(axis=0))
    expected = alpha + x @ fit[len(sites) :]
    z = (y - expected) / sigma
    result = np.empty_like(y)
    for place in range(len(sites)):
        own = z[site == place]
        n = len(own)
        gammas, deltas = own.mean(axis=0), own.var(axis=0, ddof=1)
        bar, tau = gammas.mean(), gammas.var(ddof=1)
        m, s = deltas.mean(), deltas.var(ddof=1)
        a, b = (2 * s + m**2) / s, (m * s + m**3) / s
        for g in range(p):
            gamma, delta = gammas[g], deltas[g]
            for _ in range(500):
                gamma = (n * tau * gammas[g] + delta * bar) / (n * tau + delta)
                delta = (b + 0.5 * ((own[:, g] - gamma) ** 2).sum()) / (n / 2 + a - 1)
            z[site == place, g] = (own[:, g] - gamma) / np.sqrt(delta)
        result[site == place] = (z * sigma + expected)[site == place]
    return np.split(result, np.cumsum([len(values) for values in sites])[:-1])


@pytest.mark.numerical
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("covariates", [0, 1, 2])
def test_the_federated_result_is_that_of_all_cases_in_one_place(seed, covariates):
    scheme = FeatureScheme(SCHEME.features, SCHEME.covariates[:covariates])
    sites = made(seed, covariates=covariates)
    for ours, theirs in zip(federated(scheme, sites), central(sites, 6), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-8)


def test_effects_of_sites_are_gone_and_that_of_a_covariate_is_kept():
    sites = made(7, (200, 200, 200))
    before = [values[:, :6] for values in sites]
    after = federated(SCHEME, sites)

    def residuals(features):
        expected = [3 + AGE_EFFECT * (v[:, 6, None] - 50) * np.linspace(0.5, 1.5, 6) for v in sites]
        return [f - e for f, e in zip(features, expected, strict=True)]

    def gap(features):
        return np.ptp([r.mean(axis=0) for r in residuals(features)], axis=0).max()

    def ratio(features):
        spreads = np.array([r.std(axis=0) for r in residuals(features)])
        return (spreads.max(axis=0) / spreads.min(axis=0)).max()

    assert gap(before) > 9
    assert gap(after) < 0.3
    assert ratio(before) > 2.5
    assert ratio(after) < 1.15
    age = np.concatenate([values[:, 6] for values in sites])
    slopes = np.polyfit(age, np.concatenate(after), 1)[0]
    np.testing.assert_allclose(slopes, AGE_EFFECT * np.linspace(0.5, 1.5, 6), atol=0.01)
    # Sites have patients of different ages: without the covariate its effect goes with the site.
    bare = FeatureScheme(SCHEME.features)
    without = federated(bare, [values[:, :6] for values in sites])
    assert (np.polyfit(age, np.concatenate(without), 1)[0] < slopes - 0.01).all()


def test_no_number_of_the_sum_is_of_one_site_alone_and_all_are_within_their_bounds():
    sites = made(1)
    parts = [feature_sums(SCHEME, values, "s") for values in sites]
    for values, part in zip(sites, parts, strict=True):
        assert part.shape == (SCHEME.size,)
        assert part.min() >= 0
        assert part.max() <= SCHEME.most(len(values))
    # Whichever two sites the cases of a sum are at: shifting a site's features as a scanner does
    # changes what is summed of them in nothing but the total.
    moved = [sites[0], sites[1] + np.array([3.0] * 6 + [0, 0]), sites[2]]
    other = [feature_sums(SCHEME, values, "s") for values in moved]
    changed = np.flatnonzero(np.abs(sum(parts) - sum(other)) > 2**8)
    np.testing.assert_array_equal(changed, np.arange(1, 7))


def test_one_feature_has_no_others_to_be_shrunk_towards():
    standard = np.random.default_rng(0).normal(2, 3, (40, 1))
    effect = site_effect(standard, "s")
    np.testing.assert_allclose(effect.location, standard.mean(axis=0))
    np.testing.assert_allclose(effect.variance, standard.var(axis=0, ddof=1))


def test_a_site_with_one_case_or_none_is_refused():
    for n in (0, 1):
        with pytest.raises(ConsiliumError, match=f"north has {n} cases"):
            feature_sums(SCHEME, made()[0][:n], "north")


def test_a_feature_that_does_not_vary_at_a_site_is_refused_before_and_after_the_covariates():
    values = made()[0]
    values[:, 2] = 4.0
    with pytest.raises(ConsiliumError, match="same f2"):
        feature_sums(SCHEME, values, "north")
    with pytest.raises(ConsiliumError, match="does not vary once"):
        site_effect(np.column_stack([values[:, 0], np.full(len(values), 2.0)]), "north")


def test_collinear_covariates_are_named():
    scheme = FeatureScheme(SCHEME.features, (*SCHEME.covariates, ("months", (0.0, 1440.0))))
    sites = [np.column_stack([values, 12 * values[:, 6]]) for values in made()]
    with pytest.raises(ConsiliumError, match=r"(age, months|months, age) follow from one another"):
        federated(scheme, sites)


def test_a_covariate_that_is_the_site_is_refused():
    scheme = FeatureScheme(SCHEME.features, (*SCHEME.covariates, ("country", (0.0, 5.0))))
    sites = [
        np.column_stack([values, np.full(len(values), float(place))])
        for place, values in enumerate(made())
    ]
    with pytest.raises(ConsiliumError, match="country does not vary within any site"):
        federated(scheme, sites)


def test_a_feature_that_is_its_covariate_is_refused():
    sites = [np.column_stack([v[:, :5], v[:, 6] / 4, v[:, 6:]]) for v in made()]
    with pytest.raises(ConsiliumError, match="f5 follow from the covariates"):
        federated(SCHEME, sites)


def test_a_range_too_wide_for_its_values_is_refused():
    wide = FeatureScheme((*SCHEME.features[:5], ("f5", (-1e6, 1e6))), SCHEME.covariates)
    with pytest.raises(ConsiliumError, match=r"f5 varies by .* less than a thousandth"):
        federated(wide, made())


@pytest.mark.parametrize("value", [np.nan, np.inf, -40.1, 60.1])
def test_a_value_out_of_its_range_is_refused_with_the_range(value):
    values = made()[0]
    values[3, 4] = value
    with pytest.raises(ConsiliumError, match=r"f4=.*range of f4 is -40 to 60"):
        feature_sums(SCHEME, values, "north")
    with pytest.raises(ConsiliumError, match="shape"):
        feature_sums(SCHEME, values[:, :5], "north")


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s[:-1],
        lambda s: -s,
        lambda s: np.where(np.arange(len(s)) == 9, 10**17, s),
        lambda s: np.where(np.arange(len(s)) == 0, 1, s),
    ],
)
def test_a_sum_that_no_features_have_is_refused(change):
    sums = sum(feature_sums(SCHEME, values, "s") for values in made())
    assert sums[9] < 100 * STEPS
    with pytest.raises(ConsiliumError, match="sum of the sites' features is refused"):
        pooled_model(SCHEME, change(sums))


def test_other_cases_of_a_site_are_harmonised_by_what_its_training_cases_say():
    sites = made(2)
    model = pooled_model(SCHEME, sum(feature_sums(SCHEME, values, "s") for values in sites))
    effect = learned_effect(model, sites[1], "s")
    whole = without_site(model, effect, sites[1], "s")
    np.testing.assert_array_equal(without_site(model, effect, sites[1][:1], "s"), whole[:1])
    assert without_site(model, effect, np.zeros((0, 8)), "s").shape == (0, 6)
