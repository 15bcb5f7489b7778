"""The stand-in for the NGINX controller renders Ingresses and the chart's settings as the real controller does."""

from copy import deepcopy
from typing import Any

import pytest
import yaml

from minicluster.stand_ins.ingress_controller.admission import admitted, rejections
from minicluster.stand_ins.ingress_controller.controller_settings import NotImplementedHereError, from_config_map
from minicluster.stand_ins.ingress_controller.nginx_conf import configuration, scaled
from ops.command import ROOT

INGRESS: dict[str, Any] = yaml.safe_load((ROOT / "kustomize/base/ingress/ingress.yaml").read_text())
RELEASE: dict[str, Any] = list(yaml.safe_load_all((ROOT / "helm-releases/nginx.yaml").read_text()))[-1]
ENTRIES: dict[str, str] = RELEASE["spec"]["values"]["controller"]["config"]["entries"]


def slice_of(*pods: tuple[str, bool], service: str = "api") -> dict[str, Any]:
    """An EndpointSlice of a Service. `pods` are pairs (address, ready)."""
    return {
        "metadata": {"namespace": "fastapi", "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "http", "port": 8000}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}} for address, ready in pods],
    }


def changed(name: str = "api", annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """The Ingress of kustomize/base with another name, more annotations and other fields of its spec."""
    ingress = deepcopy(INGRESS)
    ingress["metadata"]["name"] = name
    ingress["metadata"]["annotations"] |= annotations or {}
    ingress["spec"] |= spec
    return ingress


def hosted(*hosts: str) -> list[dict[str, Any]]:
    """The rule of kustomize/base for each of these hosts; "" is a rule without a host."""
    (rule,) = INGRESS["spec"]["rules"]
    return [{**({"host": host} if host else {}), "http": rule["http"]} for host in hosts]


def rendered(*slices: dict[str, Any], ingress: dict[str, Any] = INGRESS, replicas: int = 1) -> str:
    text, said = configuration([ingress], list(slices), ENTRIES, replicas=replicas)
    assert said == []
    return text


def test_only_ready_pods_get_requests() -> None:
    text = rendered(slice_of(("10.0.0.1", True), ("10.0.0.2", False)), slice_of(("10.0.0.3", True), service="other"))
    assert "server 10.0.0.1:8000 max_fails=1 fail_timeout=10s max_conns=0;" in text
    assert "10.0.0.2" not in text
    assert "10.0.0.3" not in text


def test_rate_limit_is_divided_by_the_replicas() -> None:
    text = rendered(slice_of(("10.0.0.1", True)), replicas=2)
    assert "limit_req_zone ${binary_remote_addr} zone=fastapi/api:10m rate=50r/s;" in text
    assert "limit_req zone=fastapi/api burst=200 nodelay;" in text
    assert "limit_req_status 429;" in text


@pytest.mark.parametrize(
    ("rate", "replicas", "share"),
    [("100r/s", 3, "33r/s"), ("1r/s", 2, "30r/m"), ("5r/m", 2, "2r/m"), ("9r/s", 0, "9r/s")],
)
def test_share_of_a_replica_is_rounded_down(rate: str, replicas: int, share: str) -> None:
    assert scaled(rate, replicas) == share


def test_settings_of_the_chart_reach_nginx() -> None:
    text = rendered()
    told = (
        "worker_processes 2;",
        "worker_shutdown_timeout 60s;",
        "worker_connections 16384;",
        "keepalive_timeout 75s;",
    )
    for line in (*told, "keepalive_requests 10000;", "keepalive_min_timeout 10s;", "keepalive 128;"):
        assert line in text


def test_default_is_a_worker_process_for_each_core() -> None:
    assert "worker_processes auto;" in configuration([], [], {})[0]


@pytest.mark.parametrize(
    ("ingress", "why"),
    [
        (changed(rules=hosted("")), "spec.rules[0].host: Required value"),
        (changed(rules=hosted("localhost", "")), "spec.rules[1].host: Required value"),
        (changed(rules=hosted("localhost", "localhost")), "spec.rules[1].host: Duplicate value: 'localhost'"),
        (changed(rules=[]), "spec.rules: Required value"),
        (changed(annotations={"nginx.org/proxy-read-timeout": "1 minute"}), "must be a time"),
        (changed(annotations={"nginx.org/proxy-buffering": "off"}), "must be true or false"),
        (changed(annotations={"nginx.org/limit-req-key": "everybody"}), "must be variables"),
        (changed(annotations={"nginx.org/keepalive": ""}), "nginx.org/keepalive: Required value"),
        (changed(annotations={"nginx.org/server-snippets": "deny all;"}), "snippets feature is not enabled"),
        (changed(annotations={"nginx.com/slow-start": "10s"}), "annotation requires NGINX Plus"),
    ],
)
def test_ingress_is_rejected(ingress: dict[str, Any], why: str) -> None:
    assert why in "; ".join(rejections(ingress))
    text, said = configuration([ingress], [], ENTRIES)
    assert said == [line for line in said if line.startswith("Rejected Ingress fastapi/api: ")] != []
    assert "server_name localhost;" not in text


@pytest.mark.parametrize("path", ["tasks", "//tasks", "/a/../tasks", "/a b", "/a;b", ""])
def test_path_is_rejected(path: str) -> None:
    (rule,) = hosted("localhost")
    rule = deepcopy(rule)
    rule["http"]["paths"][0]["path"] = path
    assert any("rules[0].http.paths[0].path: " in why for why in rejections(changed(rules=[rule])))


def test_rejected_ingress_does_not_affect_others() -> None:
    good, bad = changed("good"), changed("bad", {"nginx.org/hsts": "yes"}, rules=hosted("other"))
    text, said = configuration([bad, good], [], ENTRIES)
    assert len(said) == 1
    assert "server_name localhost;" in text
    assert "server_name other;" not in text


def test_host_belongs_to_the_oldest_ingress() -> None:
    old, new = changed("old"), changed("new", rules=hosted("localhost", "mine"))
    taken = changed("taken")
    for ingress, born in (
        (old, "2026-01-01T00:00:00Z"),
        (new, "2026-01-02T00:00:00Z"),
        (taken, "2026-01-03T00:00:00Z"),
    ):
        ingress["metadata"]["creationTimestamp"] = born
    served, rejected = admitted([taken, new, old])
    assert [(each["metadata"]["name"], [rule["host"] for rule in each["spec"]["rules"]]) for each in served] == [
        ("old", ["localhost"]),
        ("new", ["mine"]),
    ]
    assert rejected == ["Rejected Ingress fastapi/taken: All hosts are taken by other resources"]


@pytest.mark.parametrize(
    "name", ["nginx.org/proxy-read-timeuot", "nginx.org/keepalive-timeout", "example.com/anything", "nginx.org/Hsts"]
)
def test_unknown_annotation_has_no_effect(name: str) -> None:
    assert rendered(ingress=changed(annotations={name: "1 s; }"})) == rendered()


@pytest.mark.parametrize("name", ["keepalive-timeuot", "limit-req-rate", "allow-empty-ingress-host"])
def test_unknown_setting_has_no_effect(name: str) -> None:
    assert configuration([INGRESS], [], ENTRIES | {name: "1 s; }"}) == configuration([INGRESS], [], ENTRIES)


@pytest.mark.parametrize(
    ("name", "value", "default"),
    [
        ("keepalive-requests", "many", "1000"),
        ("worker-processes", "all", "auto"),
        ("proxy-buffering", "off", "true"),
        ("http-redirect-code", "303", "301"),
        ("access-log", "/var/log/nginx.log", None),
        ("resolver-valid", "5s", None),
    ],
)
def test_invalid_setting_keeps_the_default(name: str, value: str, default: str | None) -> None:
    read = from_config_map({name: value})
    assert read.values.get(name) == default
    assert len(read.ignored) == 1


def test_annotation_that_is_parsed_late_keeps_the_default() -> None:
    text, said = configuration([changed(annotations={"nginx.org/limit-req-reject-code": "no"})], [], ENTRIES)
    assert "limit_req_status 429;" in text
    (line,) = said
    assert line.startswith("Ingress fastapi/api: nginx.org/limit-req-reject-code is 'no', and must be a number")


def test_invalid_text_reaches_nginx() -> None:
    assert "keepalive_timeout 75 sec;" in configuration([], [], ENTRIES | {"keepalive-timeout": "75 sec"})[0]


def test_annotation_overrides_the_setting() -> None:
    text, _ = configuration([changed(annotations={"nginx.org/proxy-read-timeout": "7s"})], [], ENTRIES)
    assert "proxy_read_timeout 7s;" in text
    assert "proxy_read_timeout 60s;" not in text


@pytest.mark.parametrize(
    ("entries", "annotations"), [({"http2": "true"}, {}), ({}, {"nginx.org/rewrites": "serviceName=api rewrite=/"})]
)
def test_setting_that_is_not_implemented_is_refused(entries: dict[str, str], annotations: dict[str, str]) -> None:
    with pytest.raises(NotImplementedHereError):
        configuration([changed(annotations=annotations)], [], ENTRIES | entries)


def test_port_by_number_is_refused() -> None:
    ingress = deepcopy(INGRESS)
    ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] = {"number": 80}
    with pytest.raises(NotImplementedHereError, match="by number"):
        configuration([ingress], [], ENTRIES)
