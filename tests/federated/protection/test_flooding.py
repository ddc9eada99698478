"""A decrypted CKKS sum does not give its key away (Li and Micciancio, Eurocrypt 2021)."""

from math import log2, sqrt

import numpy as np
import pytest

from federated.errors import ConsiliumError
from federated.protection import CKKS, Cohort, ckks
from federated.protection.coefficients import coefficients_of, slots_of
from federated.protection.flooding import NOISE_BOUND, Flooding
from federated.protection.keys import new_run_key
from federated.protection.seal import load_ciphertexts, seal_context, through_file
from federated.protection.seal_bytes import unpacked
from federated.secrets.home import private_folder
from federated.site.key_store import KeyStore
from federated.update import CompressedUpdate

seal = pytest.importorskip("tenseal.sealapi")

# So coarse that a double holds every digit of what is decrypted: without noise, nothing hides it.
COARSE = CKKS(statistical_security=30, precision=1.0, largest=1.0)
COHORT = Cohort(selected=3, sites=3, rounds=2, bits=None)
DEGREE = 2048


@pytest.fixture
def key():
    parameters = COARSE.parameters(DEGREE, COHORT)
    assert (parameters.degree, len(parameters.coefficient_bits)) == (DEGREE, 1)
    assert parameters.modulus_bits < 50
    return new_run_key(parameters).opened()


@pytest.fixture
def without_noise(monkeypatch):
    """Openers as they were before they flooded."""
    monkeypatch.setattr(ckks, "flood", lambda parameters: lambda ciphertext: None)


def one_round(key, seed):
    """What the coordinator has of a round: its own sum, and the numbers that a site opened."""
    running = COARSE.open_sum(DEGREE, 1, key.public)
    rng = np.random.default_rng(seed)
    for number in range(COHORT.selected):
        values = (rng.uniform(-0.1, 0.1, DEGREE) / 3).astype(np.float32)
        update = CompressedUpdate(f"site-{number}", 1, 10, 1 / 3, DEGREE, values)
        COARSE.add(running, COARSE.protect(update, key))
    total = COARSE.close(running)
    return total, COARSE.reveal(total, key)


def words(write, count):
    """The last ``count`` 64-bit words of what SEAL writes."""
    raw = unpacked(through_file(write), 1 << 20)
    return np.frombuffer(raw[-8 * count :], "<u8").astype(object)


def recovered_key(totals, results, parameters):
    """s from c0 + c1·s = m + e, of which all but s is known: in SEAL's form, a division a point.

    Of several rounds, their ciphertexts and their results are added, which is what a final model
    less the first one tells.
    """
    context = seal_context(parameters)
    modulus = seal.CoeffModulus.Create(DEGREE, list(parameters.coefficient_bits))[0].value()
    evaluator, summed = seal.Evaluator(context), None
    for total in totals:
        (ciphertext,) = load_ciphertexts(context, total.body, 1, parameters.largest_bytes)
        if summed is None:
            summed = ciphertext
        else:
            evaluator.add_inplace(summed, ciphertext)
    data = words(summed.save, 2 * DEGREE)
    opened = np.rint(np.sum(results, axis=0, dtype=float) * 2.0**parameters.plain_bits)
    opened = (opened + modulus // 2) % modulus - modulus // 2
    plaintext = seal.Plaintext()
    seal.CKKSEncoder(context).encode(slots_of(opened).tolist(), 1.0, plaintext)
    decrypted = words(plaintext.save, DEGREE)
    inverse = [pow(int(value), -1, modulus) if value else 0 for value in data[DEGREE:]]
    return (decrypted - data[:DEGREE]) * np.array(inverse, object) % modulus


def share_right(key, rounds, as_read=lambda numbers: numbers):
    seen = [one_round(key, seed) for seed in range(rounds)]
    totals, results = zip(*seen, strict=True)
    found = recovered_key(totals, [as_read(one) for one in results], key.public.parameters)
    return float(np.mean(found == words(key.key.save, DEGREE)))


READ_AS = pytest.mark.parametrize(
    "as_read",
    [lambda numbers: numbers, lambda numbers: numbers.astype(np.float32)],
    ids=["float64", "float32"],
)


class TestKeyRecovery:
    """The audit's finding C1: an honest run gave the coordinator the sites' secret key."""

    @pytest.mark.parametrize("rounds", [1, 3])
    def test_the_key_follows_from_a_decrypted_sum_without_noise(self, key, without_noise, rounds):
        assert share_right(key, rounds) == 1.0

    @READ_AS
    @pytest.mark.parametrize("rounds", [1, 3])
    def test_the_key_does_not_follow_from_a_flooded_sum(self, key, rounds, as_read):
        assert share_right(key, rounds, as_read) < 0.01

    def test_the_mean_of_all_the_openings_that_are_allowed_hides_the_key_too(self, key):
        """Each opening of one sum has noise of its own; all together still hide that of 3 sites."""
        total, _ = one_round(key, 0)
        flooding, parameters = key.public.parameters.flooding, key.public.parameters
        opened = [COARSE.reveal(total, key) for _ in range(flooding.openings)]
        assert len({one.tobytes() for one in opened}) == flooding.openings
        mean = np.mean(opened, axis=0)
        found = recovered_key([total], [mean], parameters)
        assert np.mean(found == words(key.key.save, DEGREE)) < 0.01
        left = np.std(opened, axis=0, ddof=1).mean() * 2.0**parameters.plain_bits
        assert left / sqrt(flooding.openings) > 2**15 * NOISE_BOUND * COHORT.selected


def test_what_is_added_is_as_wide_as_the_bound_asks_for(key, monkeypatch):
    """Measured on the decrypted polynomial itself, against the same sum opened without noise."""
    parameters = key.public.parameters
    total, _ = one_round(key, 0)
    noised = COARSE.reveal(total, key)
    monkeypatch.setattr(ckks, "flood", lambda parameters: lambda ciphertext: None)
    noise = (noised - COARSE.reveal(total, key)) * 2.0**parameters.plain_bits
    sigma = parameters.flooding.sigma
    assert sigma < np.std(noise) * 1.06
    assert np.std(noise) < sigma * 1.1
    # K·21 in each of n coefficients, of 12 openings, at 30 bits.
    assert sigma == pytest.approx(3 * 21 * sqrt(2048) * sqrt(12 * 12) * 2**15)


def test_the_bound_is_that_of_the_paper():
    """q·t²/(2σ²) = 2^−s/24, with t the largest Euclidean norm of the noise of an opening."""
    made = Flooding(security=40, openers=10, rounds=60, sites=10, coefficients=8192)
    assert made.openings == 2 * 60 * 10
    norm = 21 * 10 * sqrt(8192)
    assert made.openings * norm**2 / (2 * made.sigma**2) == pytest.approx(2**-40 / 24)
    # Pinsker: an advantage of at most √(divergence / 2).
    assert -log2(sqrt(2**-40 / 48)) == pytest.approx(made.advantage_bits)


def test_fresh_ciphertexts_of_seal_keep_to_the_bound(key):
    """The static worst case that flooding is measured by."""
    parameters = key.public.parameters
    context = seal_context(parameters)
    encryptor, encoder = seal.Encryptor(context, key.key), seal.CKKSEncoder(context)
    decryptor, largest = seal.Decryptor(context, key.key), 0.0
    for _ in range(20):
        zero, opened, ciphertext = seal.Plaintext(), seal.Plaintext(), seal.Ciphertext()
        encoder.encode([0j] * (DEGREE // 2), 1.0, zero)
        encryptor.encrypt_symmetric(zero, ciphertext)
        decryptor.decrypt(ciphertext, opened)
        noise = coefficients_of(np.array(encoder.decode_complex(opened)))
        assert 3.0 < noise.std() < 3.6
        largest = max(largest, np.abs(noise).max())
    assert 10 < largest <= NOISE_BOUND


def test_a_key_opens_as_often_as_its_noise_is_made_for_and_no_more(key, tmp_path):
    public, store = key.public, KeyStore(private_folder(tmp_path / "run", tmp_path), tmp_path)
    allowed = public.parameters.flooding.openings_each
    assert allowed == 2 * COHORT.rounds
    assert [store.count_opening(public) for _ in range(allowed)] == [1, 2, 3, 4]
    with pytest.raises(
        ConsiliumError, match=r"has opened 4 sums.*consilium keys erase NAME --run run"
    ):
        store.count_opening(public)
    # Also where the site has lost the key since, and the same one is sealed to it again.
    store.erase()
    with pytest.raises(ConsiliumError, match="has opened 4 sums"):
        store.count_opening(public)
    counted = store.place / "openings.json"
    assert counted.stat().st_mode & 0o777 == 0o600


def test_more_openings_sites_or_security_make_more_noise():
    base = COARSE.parameters(DEGREE, COHORT).flooding.sigma
    for cohort, times in (
        (Cohort(3, 3, 8, None), 2.0),
        (Cohort(3, 12, 2, None), 2.0),
        (Cohort(6, 6, 2, None), 2 * sqrt(2)),
    ):
        parameters = COARSE.parameters(DEGREE, cohort)
        assert parameters.flooding.sigma * sqrt(DEGREE / parameters.degree) == pytest.approx(
            base * times
        )
    finer = COARSE.model_copy(update={"statistical_security": 32})
    assert finer.parameters(DEGREE, COHORT).flooding.sigma == pytest.approx(2 * base)


def test_coefficients_and_slots_are_each_others_inverse():
    numbers = np.random.default_rng(0).normal(size=1024)
    np.testing.assert_allclose(coefficients_of(slots_of(numbers)), numbers, atol=1e-12)
