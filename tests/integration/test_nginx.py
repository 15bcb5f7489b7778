"""A real nginx with the configuration of the stand-in controller: the settings of the manifests and its behaviours."""

import http.client
import re
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from minicluster.stand_ins.ingress_controller.controller_settings import NotImplementedHereError
from minicluster.stand_ins.ingress_controller.nginx_conf import configuration
from minicluster.tests.test_ingress_controller import changed, hosted
from ops.command import ROOT, Unusable, output
from ops.tools import kubectl
from tests.harness.manifest_faults import Fault, copied, faults
from tests.harness.nginx import Backend, Nginx
from tests.harness.system import until

TIMEOUT_S = 10.0
PLATFORMS = ("helm-releases", "clusters/local/infrastructure", "loadtest/cluster-platform")
OVERLAYS = ("kustomize/base", "kustomize/overlays/local", "kustomize/overlays/load")
TLS = [{"hosts": ["localhost"], "secretName": "tls"}]
FAULTS = faults(Path(__file__).with_name("nginx_faults.yaml"))
Started = Callable[..., Nginx]


def objects(folder: str, kind: str, root: Path = ROOT) -> Iterator[dict[str, Any]]:
    text = output(kubectl(), "kustomize", root / folder, timeout_s=60)
    yield from (each for each in yaml.safe_load_all(text) if each["kind"] == kind)


def entries_of(folder: str, root: Path = ROOT) -> dict[str, str]:
    """Return the entries of the controller's ConfigMap in a platform folder."""
    (release,) = (each for each in objects(folder, "HelmRelease", root) if each["metadata"]["name"] == "nginx-ingress")
    entries: dict[str, str] = release["spec"]["values"]["controller"]["config"]["entries"]
    return entries


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with Backend() as running:
        yield running


@pytest.fixture
def started(backend: Backend, tmp_path: Path) -> Iterator[Started]:
    """A function that starts nginx with an Ingress and ConfigMap entries."""
    running: list[Nginx] = []

    def start(ingress: dict[str, Any], entries: dict[str, str] | None = None, **options: Any) -> Nginx:
        text, _ = configuration([ingress], [backend.slice()], entries or {}, **options)
        nginx = Nginx(tmp_path).write(text)
        running.append(nginx)
        return nginx.__enter__()

    yield start
    for nginx in running:
        nginx.__exit__(None, None, None)


def ask(nginx: Nginx, path: str = "/livez", host: str = "localhost", **headers: str) -> tuple[int, str, str]:
    """Return status, Location and body."""
    with closing(http.client.HTTPConnection(nginx.http, timeout=TIMEOUT_S)) as connection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers={"Host": host} | named)
        response = connection.getresponse()
        return response.status, response.headers.get("Location", ""), response.read().decode()


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nginx_serves_each_platform_and_overlay(started: Started, platform: str, overlay: str) -> None:
    nginx = configured(started, platform, overlay)
    assert ask(nginx)[0] == 200
    assert ask(nginx, host=nginx.http)[0] == 404


def configured(started: Started, platform: str, overlay: str, root: Path = ROOT) -> Nginx:
    """Start NGINX with the configuration of a tree. Fails if the controller rejects the Ingress or ignores a value."""
    (ingress,), entries = objects(overlay, "Ingress", root), entries_of(platform, root)
    _, refused = configuration([ingress], [], entries)
    assert refused == [], "; ".join(refused)
    return started(ingress, entries)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_of_the_configuration_is_found(started: Started, fault: Fault, tmp_path: Path) -> None:
    clone = copied(tmp_path / "clone")
    fault.inject(clone)
    with pytest.raises((AssertionError, NotImplementedHereError, Unusable), match=fault.found):
        configured(started, PLATFORMS[0], OVERLAYS[0], clone)


def test_unknown_directive_in_a_snippet_prevents_the_start(tmp_path: Path) -> None:
    text, _ = configuration([], [], {"http-snippets": "keepalive_min_timeuot 10s;"})
    nginx = Nginx(tmp_path).write(text)
    with pytest.raises(Unusable, match="keepalive_min_timeuot"), nginx:
        pass


def test_reload_with_an_invalid_value_keeps_the_old_configuration(started: Started, backend: Backend) -> None:
    nginx = started(changed())
    text, _ = configuration([changed()], [backend.slice()], {"keepalive-timeout": "75 sec"})
    assert "[emerg]" in nginx.write(text).reload()
    assert ask(nginx)[0] == 200


def test_host_without_tls_is_served_over_http(started: Started) -> None:
    assert ask(started(changed()))[:2] == (200, "")


def test_host_with_tls_is_redirected_to_https(started: Started) -> None:
    assert ask(started(changed(tls=TLS)), "/tasks/1?wait=2")[:2] == (301, "https://localhost:443/tasks/1?wait=2")


FOREIGN = ["evil.example", "localhost.evil.example", "evil.example:80", "user@evil.example", "localhost@evil.example"]


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("form", ["GET /tasks/ HTTP/1.1", "GET http://{host}/tasks/ HTTP/1.1"])
def test_redirect_to_https_never_leads_to_another_host(started: Started, host: str, form: str) -> None:
    """The redirect contains the request's host, which nginx has matched with a configured host."""
    nginx = started(changed(tls=TLS))
    address, port = nginx.http.split(":")
    for line, named in ((form, host), ("GET /tasks/ HTTP/1.1", f"localhost\r\nX-Forwarded-Host: {host}")):
        with socket.create_connection((address, int(port)), timeout=TIMEOUT_S) as connection:
            connection.sendall(f"{line.format(host=host)}\r\nHost: {named}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert b"evil.example" not in answer
        assert answer.split()[1] in {b"301", b"400", b"404"}


@pytest.mark.parametrize("name", ["nginx.org/ssl-redirect", "ingress.kubernetes.io/ssl-redirect"])
def test_redirect_to_https_can_be_disabled(started: Started, name: str) -> None:
    assert ask(started(changed(annotations={name: "false"}, tls=TLS)))[0] == 200


def test_redirect_uses_the_configured_status(started: Started) -> None:
    assert ask(started(changed(tls=TLS), {"http-redirect-code": "308"}))[0] == 308


def test_host_is_not_redirected_for_tls_of_another_host(started: Started) -> None:
    assert ask(started(changed(tls=[{"hosts": ["other"]}])))[0] == 200


def test_tls_handshake_fails_without_a_certificate(started: Started) -> None:
    nginx = started(changed(tls=TLS))
    with (
        closing(http.client.HTTPSConnection(nginx.https, timeout=TIMEOUT_S)) as connection,
        pytest.raises(ssl.SSLError),
    ):
        connection.request("GET", "/livez", headers={"Host": "localhost"})


def test_empty_host_with_tls_is_redirected(started: Started) -> None:
    status, location, _ = ask(started(changed(rules=hosted("")), empty_host=True), host="any")
    assert (status, location) == (301, "https://any:443/livez")


def test_empty_host_without_redirect_serves_every_name(started: Started) -> None:
    ingress = changed(annotations={"nginx.org/ssl-redirect": "false"}, rules=hosted(""))
    assert ask(started(ingress, empty_host=True), host="any")[0] == 200


def test_request_with_x_forwarded_proto_http_is_redirected(started: Started) -> None:
    nginx = started(changed(annotations={"nginx.org/redirect-to-https": "true"}))
    assert ask(nginx, X_Forwarded_Proto="http")[:2] == (301, "https://localhost/livez")
    status, _, headers = ask(nginx, X_Forwarded_Proto="https")
    assert (status, "X-Forwarded-Proto: https" in headers) == (200, True)


def test_prefix_matches_the_beginning_of_a_path_and_exact_the_whole_path(started: Started) -> None:
    nginx = started(changed())
    paths = {
        path: ask(nginx, path)[0] for path in ("/tasks", "/tasks/1", "/tasks-of-others", "/livez", "/livez/1", "/")
    }
    assert paths == {"/tasks": 200, "/tasks/1": 200, "/tasks-of-others": 200, "/livez": 200, "/livez/1": 404, "/": 404}


def test_service_without_pods_gets_502(tmp_path: Path) -> None:
    text, _ = configuration([changed()], [], {})
    with Nginx(tmp_path).write(text) as nginx:
        assert ask(nginx)[0] == 502


def test_client_address_from_a_trusted_proxy_is_used(started: Started) -> None:
    header = {"real-ip-header": "X-Forwarded-For"}
    trusted = started(changed(), header | {"set-real-ip-from": "10.0.0.0/8,127.0.0.1"})
    assert "X-Real-IP: 192.0.2.7" in ask(trusted, X_Forwarded_For="192.0.2.7")[2]


def test_client_address_from_an_untrusted_client_is_ignored(started: Started) -> None:
    entries = {"real-ip-header": "X-Forwarded-For", "set-real-ip-from": "10.0.0.0/8"}
    assert "X-Real-IP: 127.0.0.1" in ask(started(changed(), entries), X_Forwarded_For="192.0.2.7")[2]


def test_proxy_protocol_sets_the_client_address(started: Started) -> None:
    entries = {"proxy-protocol": "true", "real-ip-header": "proxy_protocol", "set-real-ip-from": "127.0.0.1"}
    host, port = started(changed(), entries).http.split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
        request = "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(f"PROXY TCP4 192.0.2.7 10.0.0.1 1 80\r\n{request}".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert "X-Real-IP: 192.0.2.7" in answer


@pytest.mark.parametrize(
    ("networks", "allowed"), [("127.0.0.1", {"192.0.2.1": 2, "192.0.2.2": 2}), ("10.0.0.0/8", {"192.0.2.1": 2})]
)
def test_rate_limit_counts_per_client_address(started: Started, networks: str, allowed: dict[str, int]) -> None:
    limit = {"nginx.org/limit-req-rate": "1r/m", "nginx.org/limit-req-burst": "1"}
    entries = {"real-ip-header": "X-Forwarded-For", "set-real-ip-from": networks}
    nginx = started(changed(annotations=limit), entries)
    passed = Counter(
        client for client in ("192.0.2.1",) * 4 + ("192.0.2.2",) * 4 if ask(nginx, X_Forwarded_For=client)[0] == 200
    )
    assert passed == allowed


def limited(**changed: str) -> dict[str, str]:
    """Return the entries of helm-releases with other numbers in the HTTP snippet."""
    entries = entries_of("helm-releases")
    for old, new in changed.items():
        name = old.replace("__", " ")
        before = entries["http-snippets"]
        entries["http-snippets"] = re.sub(rf"{name} \S+;", f"{name} {new};", before)
        assert entries["http-snippets"] != before
    return entries


def test_connection_limit_counts_per_key(started: Started) -> None:
    nginx = started(changed(), limited(limit_conn__requests_of_a_key="1"))
    host, port = nginx.http.split(":")
    head = "GET /tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer one\r\nContent-Length: 2\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
        connection.sendall(head.encode())  # the body follows later
        until(lambda: ask(nginx, Authorization="Bearer one")[0] == 429)
        assert ask(nginx, Authorization="Bearer other")[0] == 200
        assert ask(nginx)[0] == 200
        connection.sendall(b"\r\n")
        assert b" 200 OK" in connection.recv(4096)
    until(lambda: ask(nginx, Authorization="Bearer one")[0] == 200)


def test_slow_request_head_is_disconnected(started: Started) -> None:
    nginx = started(changed(), limited(client_header_timeout="1s"))
    host, port = nginx.http.split(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: local")
        assert connection.recv(4096) == b""


def test_pausing_request_body_is_disconnected(started: Started) -> None:
    nginx = started(changed(), limited(client_body_timeout="1s"))
    host, port = nginx.http.split(":")
    head = b"GET /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12"
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection:
        connection.sendall(head)
        assert b" 200 " not in b"".join(iter(lambda: connection.recv(4096), b""))
