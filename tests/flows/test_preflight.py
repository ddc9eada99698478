"""Servers that do not answer, proxies, and folders that cannot be written: named, and soon."""

import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
import requests
from prefect.settings import (
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_URL,
    PREFECT_HOME,
    temporary_settings,
)

from federated.errors import ConsiliumError
from federated.exchange.https.certificates import Authority
from flows.preflight import require_servers_and_folders
from flows.proxies import spare_loopback
from tasks.reachable import LONGEST_S, require_answer
from tests.conftest import PROJECT
from tests.flows.test_cli import call, one_paragraph

# Of the field's 297 s.
SOON_S = 15


@pytest.fixture
def refused(capsys, monkeypatch):
    """Call the command line and return its one paragraph."""

    def ask(*arguments):
        code, _, error = call(capsys, monkeypatch, *arguments)
        assert code == 1
        return one_paragraph(error)

    return ask


@pytest.fixture(autouse=True)
def asked_afresh(monkeypatch):
    require_answer.cache_clear()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@contextmanager
def answering(status, seen=None, certificates=None):
    """A server that answers everything with a status, under TLS where it has certificates."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            if seen is not None:
                seen.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificates.load_into(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http{'s' if certificates else ''}://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def nobody():
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def silent():
    """An address at which connections are taken and nothing is said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class TestProxies:
    def test_loopback_is_spared_and_what_stands_there_stays(self):
        environment = {"HTTP_PROXY": "http://p:1", "NO_PROXY": "a.example, 127.0.0.1"}
        spare_loopback(environment)
        assert environment["NO_PROXY"] == environment["no_proxy"]
        assert environment["NO_PROXY"].split(",") == ["a.example", "127.0.0.1", "localhost", "::1"]

    def test_both_spellings_are_kept(self):
        environment = {"https_proxy": "http://p:1", "NO_PROXY": "a", "no_proxy": "b"}
        spare_loopback(environment)
        assert set(environment["NO_PROXY"].split(",")) == {
            "a",
            "b",
            "localhost",
            "127.0.0.1",
            "::1",
        }

    def test_everything_stays_spared(self):
        environment = {"ALL_PROXY": "http://p:1", "no_proxy": "*"}
        spare_loopback(environment)
        assert environment["NO_PROXY"] == environment["no_proxy"] == "*"

    def test_without_a_proxy_nothing_changes(self):
        environment = {"NO_PROXY": "a"}
        spare_loopback(environment)
        assert environment == {"NO_PROXY": "a"}

    def test_no_call_to_this_machine_reaches_the_proxy(self, monkeypatch):
        seen = []
        with answering(503, seen) as proxy, answering(200) as server:
            monkeypatch.setenv("HTTP_PROXY", proxy)
            assert httpx.get(server).status_code == 503
            seen.clear()
            monkeypatch.setenv("no_proxy", "")
            monkeypatch.setenv("NO_PROXY", "")
            spare_loopback(os.environ)
            assert httpx.get(server).status_code == 200
            assert requests.get(server, timeout=9).status_code == 200
        assert seen == []

    def test_the_command_line_spares_it_for_all_that_it_starts(self, environment):
        ask = "import flows.cli, os; print(os.environ['NO_PROXY'], os.environ['no_proxy'])"
        environment |= {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "a.example"}
        said = subprocess.run(
            [sys.executable, "-c", ask],
            env=environment,
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert said.stdout.split() == ["a.example,localhost,127.0.0.1,::1"] * 2


class TestServers:
    @pytest.mark.parametrize("which", ["nobody", "silent"])
    def test_a_server_that_does_not_answer_is_named_soon(self, which, request, monkeypatch):
        url = request.getfixturevalue(which)
        assert 5 < LONGEST_S < SOON_S
        monkeypatch.setattr("tasks.reachable.LONGEST_S", 1)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        began = time.monotonic()
        with pytest.raises(
            ConsiliumError, match=rf"MLFLOW_TRACKING_URI is {url}, and no such server"
        ):
            require_servers_and_folders(None)
        assert time.monotonic() - began < SOON_S

    def test_a_dead_prefect_api_is_named(self, nobody):
        with pytest.raises(ConsiliumError, match=rf"PREFECT_API_URL is {nobody}/api, and no such"):
            require_servers_and_folders(f"{nobody}/api")

    @pytest.mark.parametrize("url", ["http://", "http://[", "https://nowhere.invalid"])
    def test_an_address_that_cannot_be_is_named(self, monkeypatch, url):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        with pytest.raises(ConsiliumError, match="MLFLOW_TRACKING_URI is http"):
            require_servers_and_folders(None)

    @pytest.mark.parametrize("status", [200, 401, 404])
    def test_any_answer_of_the_server_itself_will_do(self, monkeypatch, status):
        with answering(status) as url:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
            require_servers_and_folders(None)

    def test_what_answers_and_is_no_prefect_is_named(self):
        with (
            answering(404) as url,
            pytest.raises(ConsiliumError, match=r"no such server answers there \(.* HTTP 404\)"),
        ):
            require_servers_and_folders(f"{url}/api")

    def test_a_server_that_stops_answering_is_no_mistake_of_ours(self, refused, monkeypatch):
        def gone(*_):
            raise RuntimeError("Failed to reach API at http://127.0.0.1:9/api/")

        # What is first imported meanwhile would keep what stands in for it here.
        import flows.compare
        import flows.describe  # noqa: F401

        monkeypatch.setattr("federated.configuration.load.load_experiment", gone)
        said = refused("sites", "show", "tiny")
        assert "does not answer any more (Failed to reach API at http://127.0.0.1:9/api/)" in said

    def test_a_proxy_that_answers_in_its_place_is_named(self, monkeypatch):
        with answering(503) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.invalid:5000")
            with pytest.raises(ConsiliumError) as caught:
                require_servers_and_folders(None)
        said = str(caught.value)
        assert "HTTP 503" in said
        assert (
            f"by way of the proxy {proxy} of HTTP_PROXY; put mlflow.invalid into NO_PROXY" in said
        )

    @pytest.mark.usefixtures("project")
    @pytest.mark.parametrize("command", [("run", "tiny"), ("prepare", "tiny"), ("serve",)])
    def test_every_command_names_a_dead_prefect_api(self, refused, nobody, command):
        with temporary_settings(updates={PREFECT_API_URL: f"{nobody}/api"}):
            assert f"PREFECT_API_URL is {nobody}/api" in refused(*command)

    def test_no_password_is_shown(self, monkeypatch, nobody):
        secret = nobody.replace("//", "//ann:secret@")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
        with pytest.raises(ConsiliumError) as caught:
            require_servers_and_folders(None)
        assert "secret" not in str(caught.value)
        assert nobody.replace("//", "//***@") in str(caught.value)

    def test_a_database_is_not_asked(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
        require_servers_and_folders(None)

    @pytest.mark.usefixtures("project", "prefect_server")
    @pytest.mark.parametrize(
        "command",
        [
            ("run", "tiny"),
            ("compare", "tiny", "--strategies", "fedavg"),
            ("predict", "--model", "tiny@champion", "--out", "x", "y.nii.gz"),
            ("serve",),
        ],
    )
    def test_every_command_names_a_dead_tracking_server(
        self,
        refused,
        nobody,
        monkeypatch,
        command,
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
        began = time.monotonic()
        assert f"MLFLOW_TRACKING_URI is {nobody}" in refused(*command)
        assert time.monotonic() - began < SOON_S


class TestFolders:
    """Below a file nothing can be made, whoever asks; rights would not stop an administrator."""

    @pytest.fixture
    def blocked(self, tmp_path):
        (tmp_path / "file").touch()
        return tmp_path / "file" / "folder"

    def test_consiliums_home_is_named(self, blocked, monkeypatch):
        monkeypatch.setenv("CONSILIUM_HOME", str(blocked))
        with pytest.raises(ConsiliumError, match=rf"folder {blocked} \(CONSILIUM_HOME"):
            require_servers_and_folders(None)

    def test_prefects_home_is_named(self, blocked):
        with (
            temporary_settings(updates={PREFECT_HOME: blocked}),
            pytest.raises(ConsiliumError, match=rf"folder {blocked} \(PREFECT_HOME"),
        ):
            require_servers_and_folders(None)

    def test_mlflows_folder_is_named(self, project, monkeypatch):
        (project / "mlruns" / "mlflow.db").unlink()
        (project / "mlruns").rmdir()
        (project / "mlruns").touch()
        with pytest.raises(ConsiliumError, match=r"folder mlruns \(of MLflow"):
            require_servers_and_folders(None)

    @pytest.mark.usefixtures("prefect_server")
    def test_a_home_without_rights_is_named_by_the_command(
        self, refused, project, monkeypatch, blocked
    ):
        monkeypatch.setenv("CONSILIUM_HOME", str(blocked))
        assert f"Cannot write to the folder {blocked} (CONSILIUM_HOME" in refused("run", "tiny")

    @pytest.mark.parametrize("dataset", ["hippocampus", "adrenalmnist3d"])
    def test_the_folder_of_data_is_named(self, refused, project, blocked, dataset):
        settings = (f"data.root={blocked}", "data.source=phantom", f"data.dataset={dataset}")
        sets = [part for item in settings for part in ("--set", item)]
        if dataset == "hippocampus":
            sets += ["--set", "model.name=unet", "--set", "selection.metric=val/dice"]
            sets += ["--set", "sites.partition=iid"]
        assert f"Cannot write to the folder {blocked}" in refused("sites", "show", "tiny", *sets)

    def test_what_the_machine_refuses_anywhere_is_no_mistake_of_ours(self, refused, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("federated.configuration.load.load_experiment", full)
        said = refused("sites", "show", "tiny")
        assert "No space left on device" in said
        assert "should not have happened" not in said


@pytest.mark.usefixtures("project")
class TestDoctor:
    def doctor(self, capsys, monkeypatch, project, **data):
        text = (project / "params.yaml").read_text()
        entry = ", ".join(f"{key}: {value}" for key, value in data.items())
        more = "model: {name: unet}, selection: {metric: val/dice}, sites: {partition: iid}"
        (project / "params.yaml").write_text(f"{text}  folders: {{{more}, data: {{{entry}}}}}\n")
        return call(capsys, monkeypatch, "doctor")

    def test_tells_where_a_folder_belongs_that_no_run_downloads(self, capsys, monkeypatch, project):
        code, out, _ = self.doctor(capsys, monkeypatch, project, dataset="skin")
        assert code == 0
        assert max(map(len, out.splitlines())) <= 100
        found = re.split(r"\n(?! )", out)
        (line,) = [" ".join(each.split()) for each in found if "folders: skin" in each]
        assert line.startswith("missing")
        assert "no run downloads it" in line
        assert "data/skin" in line
        assert "ISIC_NNNNNNN" in line
        assert "data.source=phantom" in line
        marks = [each.split()[0] for each in found if each.startswith(("ok ", "missing "))]
        fine = marks.count("ok")
        assert out.splitlines()[-1] == (
            f"{len(marks)} checks: {fine} fine, {len(marks) - fine} missing that their own "
            "experiments alone need, nothing wrong."
        )

    def test_does_not_say_that_of_what_is_generated(self, capsys, monkeypatch, project):
        _, out, _ = self.doctor(capsys, monkeypatch, project, dataset="skin", source="phantom")
        assert "folders: skin is generated" in out

    def test_names_a_dead_server(self, capsys, monkeypatch, project, nobody):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody)
        code, out, _ = call(capsys, monkeypatch, "doctor")
        assert code == 1
        said = " ".join(out.split())
        assert f"MLFLOW_TRACKING_URI is {nobody}, and no such server answers" in said
        assert said.endswith("1 wrong: see to these first.")


def test_the_authority_that_prefect_is_told_to_trust_is_trusted(tmp_path):
    authority = Authority(tmp_path / "tls")
    certificates = authority.certificates(["127.0.0.1"])
    with answering(200, certificates=certificates) as url:
        with pytest.raises(ConsiliumError, match="no such server answers there"):
            require_servers_and_folders(f"{url}/api", tracked=False)
        require_answer.cache_clear()
        trusted = {PREFECT_API_SSL_CERT_FILE: str(authority.certificate_path)}
        with temporary_settings(updates=trusted):
            require_servers_and_folders(f"{url}/api", tracked=False)
