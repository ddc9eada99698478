"""A record is its values: who has it twice at a site adds two terms to a step's sum, not one."""

from federated.privacy.accounting import Release, epsilon
from federated.privacy.ledger import Ledger, Spending

TWICE, ONCE = "a" * 64, "b" * 64


def test_it_spends_as_a_patient_of_two_cases(tmp_path):
    ledger = Ledger(tmp_path / "holder.jsonl")
    mechanism = ("poisson sampled gaussian", "record", 1.0, 1.0, 1, 1.0, 1, "run", "e", "site-00")
    ledger.spend(Spending(*mechanism), [TWICE, TWICE, ONCE])
    # Without it the sum moves by twice the clipping norm.
    true = epsilon([Release(0.5, 1.0, 1)], 1e-5, "rdp")
    assert ledger.histories([TWICE], "record").worst(1e-5, "rdp") >= true
