"""With its ledger elsewhere, a site's home may be made first for the heads that it keeps."""

from federated.privacy.hash_chain import Head
from federated.privacy.kept_heads import keep_head


def test_it_is_open_to_its_owner_alone(tmp_path, consilium_home):
    keep_head(tmp_path / "elsewhere.jsonl", Head(1, "a" * 64), "a run")
    assert consilium_home.stat().st_mode & 0o077 == 0
