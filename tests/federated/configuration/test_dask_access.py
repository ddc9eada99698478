"""Whoever reaches a Dask scheduler runs code at the sites, so its address is checked when read."""

import pytest

from federated.configuration.load import resolve
from federated.errors import ConsiliumError
from federated.settings.sections import Dask
from tests.conftest import TINY_PARAMS

FILES = {"ca_file": "ca.pem", "cert_file": "cert.pem", "key_file": "key.pem"}


def read(**runner: object):
    return resolve(
        "tiny", TINY_PARAMS["defaults"] | {"runner": {"name": "dask", **runner}}, ""
    ).runner


ALLOWED = ("tcp://127.0.0.1:8786", "127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786")


@pytest.mark.parametrize("address", ALLOWED)
def test_a_loopback_address_needs_no_certificate(address):
    assert read(address=address) == Dask(address=address)


@pytest.mark.parametrize("address", ["tls://scheduler.example:8786", "tls://127.0.0.1:8786"])
def test_under_tls_any_address_goes_with_all_three_files(address):
    assert read(address=address, **FILES).address == address
    for missing in FILES:
        some = {name: path for name, path in FILES.items() if name != missing}
        with pytest.raises(ConsiliumError, match=f"needs runner.{missing} too"):
            read(address=address, **some)


REFUSED = (
    "tcp://scheduler.example:8786",
    "scheduler.example:8786",
    "tcp://10.0.0.5:8786",
    "tcp://0.0.0.0:8786",
    "tcp://[::]:8786",
    "tcp://127.0.0.1.example:8786",
    "tcp://localhost.example:8786",
    "tcp://127.0.0.1@scheduler.example:8786",
    "tcp://127.0.0.1:1@10.0.0.5:8786",
    "tcp://2130706433:8786",
    "tcp://127.0.0.1",
    "ws://127.0.0.1:8786",
    "wss://scheduler.example:8786",
    "ucx://10.0.0.5:8786",
    "inproc://10.0.0.5/1/1",
    "http://127.0.0.1:8786",
    "tls://",
    "tls://:8786",
    "tcp://127.0.0.1:port",
    "tcp://[127.0.0.1:8786",
    "",
)


@pytest.mark.parametrize("files", [{}, FILES], ids=["no files", "files"])
@pytest.mark.parametrize("address", REFUSED)
def test_any_other_address_is_refused(address, files):
    said = "neither tls:// nor a loopback address, and whoever reaches a Dask scheduler runs code"
    with pytest.raises(ConsiliumError, match=said):
        read(address=address, **files)


def test_certificates_without_tls_are_refused():
    with pytest.raises(ConsiliumError, match=r"has no TLS, so runner.key_file would protect"):
        read(address="tcp://127.0.0.1:8786", key_file="key.pem")


def test_a_cluster_of_the_runs_own_needs_no_certificate_and_takes_none():
    assert read() == Dask()
    assert read(workers=3).workers == 3
    with pytest.raises(ConsiliumError, match=r"runner\.ca_file are for a cluster at"):
        read(ca_file="ca.pem")
    with pytest.raises(ConsiliumError, match=r"runner\.workers=3 is for a cluster that the run"):
        read(workers=3, address="tcp://127.0.0.1:8786")
