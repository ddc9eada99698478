"""The consortium's own authority: what it signs, for how long, and who can read its key."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from federated.errors import ConsiliumError
from federated.exchange.https import certificates as module
from federated.exchange.https.certificates import Authority, client_context, given_certificates


def names(path: Path) -> list[str]:
    found = x509.load_pem_x509_certificate(path.read_bytes())
    told = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in told]


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    Authority(tmp_path / "tls").certificates(["fl.example.org"])
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert {path.name for path in (tmp_path / "tls").iterdir()} == {
        "authority.key", "authority.pem", "server.key", "server.pem",
    }  # fmt: skip
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "tls").iterdir())


def test_a_folder_that_others_can_open_is_refused(tmp_path: Path) -> None:
    Authority(tmp_path / "tls").certificate()
    (tmp_path / "tls").chmod(0o755)
    with pytest.raises(ConsiliumError, match="for its owner alone"):
        Authority(tmp_path / "tls").certificate()


def test_a_certificate_is_for_the_names_and_addresses_that_are_given(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tmp_path.chmod(0o700)
    found = authority.certificates(["fl.example.org", "10.0.0.7", "::1"])
    assert names(found.chain) == ["fl.example.org", "10.0.0.7", "::1"]
    before = found.chain.read_bytes()
    authority.certificates(["fl.example.org", "10.0.0.7", "::1"])
    assert found.chain.read_bytes() == before
    authority.certificates(["other.example.org"])
    assert names(found.chain) == ["other.example.org"]
    with pytest.raises(ConsiliumError, match="no host name"):
        authority.certificates(["ä" * 80])


def test_the_authority_stays_and_its_server_is_renewed_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "tls")
    found, trusted = authority.certificates(["x.org"]), authority.certificate()
    before = found.chain.read_bytes()
    assert not found.renew()

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(days=module.SERVER_DAYS - 29)

    monkeypatch.setattr(module, "datetime", Later)
    assert found.renew()
    assert found.chain.read_bytes() != before
    assert authority.certificate() == trusted
    found.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def test_a_site_trusts_the_authority_of_its_kit_alone_or_what_its_machine_does(
    tmp_path: Path,
) -> None:
    own = client_context(Authority(tmp_path / "tls").certificate())
    assert [dict(each["subject"][0])["commonName"] for each in own.get_ca_certs()] == [
        "Consilium authority"
    ]
    for context in (own, client_context("")):
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname
    with pytest.raises(ConsiliumError, match="authority is none"):
        client_context("no certificate")


def test_given_files_that_do_not_fit_are_refused_and_new_ones_are_noticed(tmp_path: Path) -> None:
    one = Authority(tmp_path / "one").certificates(["x.org"])
    two = Authority(tmp_path / "two").certificates(["x.org"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.raises(ConsiliumError, match="cannot be used"):
        given_certificates(one.chain, two.key).load_into(context)
    given = given_certificates(one.chain, one.key)
    given.load_into(context)
    assert not given.renew()
    one.chain.write_bytes(one.chain.read_bytes() + b"\n")
    assert given.renew()
    assert not given.renew()
    with pytest.raises(ConsiliumError, match="cannot be read"):
        given_certificates(tmp_path / "none.pem", one.key)
