"""What the cluster tests' ingress controller makes of an Ingress; the cluster tests ask nginx itself."""

from copy import deepcopy
from typing import Any

import pytest
import yaml

from deploy.run import ROOT
from tests.e2e.platform.ingress import Refused, configuration

INGRESS: dict[str, Any] = yaml.safe_load((ROOT / "kustomize/base/ingress/ingress.yaml").read_text())
RELEASE: dict[str, Any] = list(yaml.safe_load_all((ROOT / "helm-releases/nginx.yaml").read_text()))[-1]
ENTRIES: dict[str, str] = RELEASE["spec"]["values"]["controller"]["config"]["entries"]


def slice_of(*pods: tuple[str, bool], service: str = "api") -> dict[str, Any]:
    """An EndpointSlice with these addresses, each ready or not."""
    return {
        "metadata": {"namespace": "fastapi", "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "http", "port": 8000}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}} for address, ready in pods],
    }


def rendered(*slices: dict[str, Any], ingress: dict[str, Any] = INGRESS, replicas: int = 1) -> str:
    return configuration([ingress], list(slices), ENTRIES, replicas=replicas, empty_host=True)


def test_only_pods_that_are_ready_are_asked() -> None:
    text = rendered(slice_of(("10.0.0.1", True), ("10.0.0.2", False)), slice_of(("10.0.0.3", True), service="other"))
    assert "server 10.0.0.1:8000;" in text
    assert "10.0.0.2" not in text
    assert "10.0.0.3" not in text


def test_no_pod_is_a_502() -> None:
    text = rendered(slice_of(("10.0.0.2", False)))
    assert "return 502;" in text
    assert "proxy_pass" not in text


def test_each_path_is_served_as_its_type_says() -> None:
    text = rendered(slice_of(("10.0.0.1", True)))
    assert "location = /tasks {" in text
    assert "location /tasks/ {" in text
    assert "location = /livez {" in text
    assert "location /livez/ {" not in text
    assert "location / { return 404; }" in text


def test_rate_limit_is_the_clusters() -> None:
    text = rendered(slice_of(("10.0.0.1", True)), replicas=2)
    assert "limit_req_zone ${binary_remote_addr} zone=fastapi-api:10m rate=50r/s;" in text
    assert "limit_req zone=fastapi-api burst=200 nodelay;" in text
    assert "limit_req_status 429;" in text


def test_settings_of_the_chart_reach_nginx() -> None:
    text = rendered()
    told = ("worker_connections 16384;", "keepalive_timeout 75s;", "keepalive_requests 10000;")
    for line in (*told, "keepalive_min_timeout 10s;"):
        assert line in text


def test_unknown_annotation_is_refused() -> None:
    ingress = deepcopy(INGRESS)
    ingress["metadata"]["annotations"]["nginx.org/proxy-read-timeuot"] = "60s"
    with pytest.raises(Refused, match="proxy-read-timeuot"):
        rendered(ingress=ingress)


def test_port_by_number_is_refused() -> None:
    ingress = deepcopy(INGRESS)
    ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"] = {"number": 80}
    with pytest.raises(Refused, match="by number"):
        rendered(ingress=ingress)


def test_unknown_setting_of_the_chart_is_refused() -> None:
    with pytest.raises(Refused, match="keepalive-timeuot"):
        configuration([], [], {**ENTRIES, "keepalive-timeuot": "75s"})
