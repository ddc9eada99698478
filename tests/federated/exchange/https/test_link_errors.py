"""What a person at a site is told when the coordinator cannot be reached, or does not let it in."""

import shutil
import socket
from pathlib import Path

import pytest

from federated.errors import ConsiliumError
from federated.exchange.https.certificates import Authority
from federated.exchange.https.client import Link
from federated.exchange.https.link_errors import LinkError
from federated.exchange.identity import COORDINATOR
from tests.federated.exchange.https.bad_link import ConnectProxy, HttpRelay, TcpRelay
from tests.federated.exchange.https.world import World, reserved_port, running, wait_for
from tests.federated.exchange.parties import SITES, identity

SITE = SITES[0]


def error(world: World, url: str = "", **more: object) -> LinkError:
    with world.link(**more) as link:
        if url:
            link._caller.url = url
        with pytest.raises(LinkError) as found:
            link.pull()
    return found.value


def test_a_name_that_nobody_knows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    found = error(world, "https://coordinator.invalid:8443")
    assert found.cause == "name"
    assert "coordinator.invalid:8443" in str(found)
    assert "HTTPS_PROXY" in str(found)


def test_nobody_listens(world: World) -> None:
    with reserved_port() as port:
        found = error(world, port=port)
    assert (found.cause, found.lasts) == ("connection", False)
    assert f"Nobody listens at 127.0.0.1:{port}" in str(found)


def test_a_certificate_of_another_authority(world: World, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    found = error(world, authority=other.certificate())
    assert (found.cause, found.lasts) == ("trust", True)
    assert "Nothing was sent" in str(found)
    assert world.refused() == []


def test_a_server_in_between_with_a_certificate_of_its_own(world: World, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other").certificates(["127.0.0.1"])
    with HttpRelay(world.port, other, world.authority) as relay:
        assert error(world, port=relay.port).cause == "trust"
        assert relay.requests == 0


def test_a_certificate_for_another_name(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.root / "tls", tmp_path / "other")
    certificates = Authority(tmp_path / "other").certificates(["fl.example.org"])
    with HttpRelay(world.port, certificates, world.authority) as relay:
        found = error(world, port=relay.port)
    assert found.cause == "trust"
    assert "127.0.0.1" in str(found)


def test_a_site_that_is_not_enrolled_or_has_another_key(world: World) -> None:
    stranger = identity(SITE)
    found = error(world, identity=stranger)
    assert (found.cause, found.lasts) == ("unknown", True)
    assert stranger.public.fingerprint in str(found)


def test_a_site_that_is_suspended(world: World) -> None:
    world.enrol(world.office.members().suspend(SITE))
    found = error(world)
    assert (found.cause, found.lasts) == ("suspended", True)


def test_a_proxy_that_refuses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with ConnectProxy(allows=False) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@127.0.0.1:{proxy.port}")
        found = error(world)
    assert found.cause == "proxy"
    assert f"The proxy 127.0.0.1:{proxy.port}" in str(found)
    assert "secret" not in str(found)


def test_a_proxy_that_is_not_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with reserved_port() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        found = error(world)
    assert found.cause == "connection"
    assert f"Nobody listens at 127.0.0.1:{port}" in str(found)
    assert "HTTPS_PROXY" in str(found)


def test_a_connection_that_breaks_off(world: World) -> None:
    with TcpRelay(world.port, break_every=1) as relay:
        found = error(world, port=relay.port)
    assert (found.cause, found.lasts) == ("broken", False)


def test_another_server(world: World) -> None:
    found = error(world, f"https://127.0.0.1:{world.port}/elsewhere")
    assert (found.cause, found.lasts) == ("other server", True)
    assert "HTTP 404" in str(found)


def test_an_address_without_tls_is_refused(world: World) -> None:
    with pytest.raises(ConsiliumError, match="has to begin with https"):
        Link(
            world.parties[SITE], world.consortium, "http://x", "", world.mirror(SITE),
            world.audit(SITE),
        )  # fmt: skip


def test_a_link_that_is_down_is_said_once_and_goes_on_when_it_is_up_again(world: World) -> None:
    said: list[str] = []
    members = world.office.members()
    world.enrol(members.suspend(SITE))
    world.exchange.post(world.message(COORDINATOR, b"1"))
    with running(world.link(say=said.append)):
        wait_for(lambda: len(said) >= 2)  # of fetching and of greeting
        tried = world.refused(SITE).count("suspended")
        wait_for(lambda: world.refused(SITE).count("suspended") > tried)
        world.enrol(members)
        wait_for(lambda: world.arrived(SITE))
        wait_for(lambda: [e for e in world.audit(SITE).lines() if e["event"] == "link up"])
    # The site has nothing to bring, and so is not refused there.
    assert len(said) == 2
    assert all("has suspended" in text for text in said)
