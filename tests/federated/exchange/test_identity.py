"""Keys of parties, and the lists of whom a party knows."""

import stat
from pathlib import Path

import pytest

from federated.errors import ConsiliumError
from federated.exchange.enrolment import Enrolment
from federated.exchange.identity import PublicIdentity, own_identity
from tests.federated.exchange.parties import identity


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "identity.key"
    first = own_identity("clinic", path, path.parent)
    again = own_identity("clinic", path, path.parent)
    assert first.public == again.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_key_that_others_can_open_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "home" / "identity.key"
    own_identity("clinic", path, path.parent)
    path.chmod(0o644)
    with pytest.raises(ConsiliumError, match="for its owner alone"):
        own_identity("clinic", path, path.parent)


def test_a_damaged_key_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "home" / "identity.key"
    own_identity("clinic", path, path.parent)
    path.write_bytes(b"short")
    with pytest.raises(ConsiliumError, match="damaged"):
        own_identity("clinic", path, path.parent)
    assert path.read_bytes() == b"short"


def test_a_signature_is_that_of_the_content_and_the_key() -> None:
    one, other = identity("one"), identity("other")
    signature = one.sign(b"content")
    assert one.public.verifies(signature, b"content")
    assert not one.public.verifies(signature, b"contents")
    assert not other.public.verifies(signature, b"content")
    assert not one.public.verifies(b"", b"content")


def test_a_fingerprint_is_read_out_in_eight_groups() -> None:
    groups = identity("one").public.fingerprint.split()
    assert [len(group) for group in groups] == [4] * 8
    assert identity("one").public.fingerprint != identity("one").public.fingerprint


@pytest.mark.parametrize(
    "value",
    [None, [], {"name": "x"}, {"name": "x", "key": 3}, {"name": "x", "key": "zz"},
     {"name": "x", "key": "00"}, {"name": "../x", "key": "00" * 32},
     {"name": "x", "key": "00" * 32, "more": 1}],
)  # fmt: skip
def test_what_is_no_public_identity_is_refused(value: object) -> None:
    with pytest.raises(ConsiliumError):
        PublicIdentity.from_json(value, "the request")


def test_a_list_of_members_is_read_as_it_was_written(tmp_path: Path) -> None:
    one, other = identity("one").public, identity("other").public
    members = Enrolment().enrol(one).enrol(other).suspend("other")
    members.write(tmp_path / "members.json")
    again = Enrolment.read(tmp_path / "members.json")
    assert again == members
    assert [again.standing(name) for name in ("one", "other", "nobody")] == [
        "enrolled",
        "suspended",
        None,
    ]
    assert again.remove("other").standing("other") is None


def test_a_second_key_under_one_name_is_refused() -> None:
    members = Enrolment().enrol(identity("one").public)
    with pytest.raises(ConsiliumError, match="enrolled with another key"):
        members.enrol(identity("one").public)


def test_a_second_name_for_one_key_is_refused() -> None:
    one = identity("one").public
    with pytest.raises(ConsiliumError, match="one site out of two names"):
        Enrolment().enrol(one).enrol(PublicIdentity("two", one.key))


@pytest.mark.parametrize("text", ["", "{", "3", '[{"name": "x"}]', '[{"standing": "king"}]'])
def test_a_damaged_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "members.json").write_text(text)
    with pytest.raises(ConsiliumError):
        Enrolment.read(tmp_path / "members.json")
    with pytest.raises(ConsiliumError, match="not enrolled"):
        Enrolment().suspend("x")
