"""Certificates for TLS: a certificate authority of the consortium's own, or files that were given.

The authority's key (EC P-256) lies at the coordinator, for its owner alone, and signs nothing but
the coordinator's server. A site is given the authority's certificate with what else it is given of
the coordinator, and trusts that one alone; where it is given none, it trusts those that its machine
does.
"""

import ipaddress
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from federated.errors import ConsiliumError, unreadable
from federated.files import PRIVATE, atomic_path
from federated.secrets.home import private_folder

AUTHORITY_DAYS, SERVER_DAYS = 3650, 365
# A server's certificate is renewed when it ends within so many days.
RENEW_DAYS = 30
# A clock that is behind sees a certificate that is not valid yet.
EARLIER = timedelta(days=1)


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Certificates:
    """What a server shows.

    Attributes:
        chain: the file of its certificate, and of those between it and the authority.
        key: the file of its private key.
        renew: makes others in the same files where they end soon, and says whether it has.
    """

    chain: Path
    key: Path
    renew: Callable[[], bool] = _never

    def load_into(self, context: ssl.SSLContext) -> None:
        """Have a server show them from its next connection on.

        Raises:
            ConsiliumError: a file cannot be read, or the key is another one's.
        """
        try:
            context.load_cert_chain(self.chain, self.key)
        except OSError as error:
            raise ConsiliumError(
                f"The certificate {self.chain} with the key {self.key} cannot be used "
                f"({error.strerror or error}). Both have to be PEM, the key without a password and "
                "that of the first certificate in the file."
            ) from error


def given_certificates(chain: Path, key: Path) -> Certificates:
    """Files that somebody else renews, such as those of a public authority."""
    loaded = [_written(chain), _written(key)]

    def renew() -> bool:
        now = [_written(chain), _written(key)]
        is_new, loaded[:] = now != loaded, now
        return is_new

    return Certificates(chain, key, renew)


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise unreadable(path, error) from error


@dataclass(frozen=True)
class Authority:
    """The consortium's certificate authority in a folder of the coordinator's home."""

    folder: Path

    @property
    def _key_path(self) -> Path:
        return self.folder / "authority.key"

    @property
    def certificate_path(self) -> Path:
        """The file of the authority's certificate, which sites are given."""
        return self.folder / "authority.pem"

    def certificate(self) -> str:
        """The authority's certificate as PEM; it is made, with its key, if it is not there.

        Raises:
            ConsiliumError: others can open the folder, or the files are damaged.
        """
        return _pem(self._own()[1])

    def certificates(self, names: Sequence[str]) -> Certificates:
        """What a server shows that is called by these host names and addresses.

        Raises:
            ConsiliumError: others can open the folder, a file is damaged, or a name is none.
        """
        found = Certificates(
            self.folder / "server.pem", self.folder / "server.key", lambda: self._issue(names)
        )
        self._issue(names)
        return found

    def _own(self) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        private_folder(self.folder, self.folder)
        if not self.certificate_path.exists():
            self._make()
        return _read_key(self._key_path), _read_certificate(self.certificate_path)

    def _make(self) -> None:
        key = _read_key(self._key_path) if self._key_path.exists() else _new_key(self._key_path)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Consilium authority")])
        usage = _usage(key_cert_sign=True, crl_sign=True)
        built = _builder(name, name, key, key, AUTHORITY_DAYS)
        certificate = (
            built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        _write(self.certificate_path, _pem(certificate).encode())

    def _issue(self, names: Sequence[str]) -> bool:
        """Make the server's certificate where there is none for these names that lasts."""
        authority, signer = self._own()
        chain, path = self.folder / "server.pem", self.folder / "server.key"
        wanted = [_general_name(name) for name in names]
        if chain.exists() and path.exists():
            old = _read_certificate(chain)
            told = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            lasts = old.not_valid_after_utc - datetime.now(UTC) > timedelta(days=RENEW_DAYS)
            if lasts and list(told) == wanted and old.issuer == signer.subject:
                return False
        key = _read_key(path) if path.exists() else _new_key(path)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Consilium coordinator")])
        built = _builder(name, signer.subject, key, authority, SERVER_DAYS)
        certificate = (
            built.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(wanted), critical=False)
            .sign(authority, hashes.SHA256())
        )
        _write(chain, _pem(certificate).encode())
        return True


def client_context(authority: str) -> ssl.SSLContext:
    """What a site trusts: one authority's certificate (PEM) alone; if empty, what the machine does.

    Raises:
        ConsiliumError: it is no certificate.
    """
    try:
        context = ssl.create_default_context(cadata=authority or None)
    except (ssl.SSLError, ValueError) as error:
        raise ConsiliumError(
            "The certificate of the coordinator's authority is none. Have the coordinator send "
            "what the site needs of it again."
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name.encode("idna").decode("ascii"))
    except ValueError as error:
        raise ConsiliumError(
            f"{name!r:.120} is no host name and no address, and a server's certificate needs one. "
            "Name the server as sites call it, as in fl.example.org or 10.0.0.7."
        ) from error


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path, PRIVATE) as temporary:
        temporary.write_bytes(content)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise unreadable(path, error) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConsiliumError(f"The key {path} is of another kind. Put back the one that was there.")
    return key


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
