"""Plain nginx as an ingress controller for this project's Ingress: what the F5 controller does with it, and no more.

It reads the Ingresses of its class and the endpoints of their Services once a second, writes nginx.conf, and reloads
nginx when that has changed. An annotation or a setting that it does not know is refused aloud: the last good
configuration stays.
"""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

POLL_S = 1.0
REQUEST_TIMEOUT_S = 10.0
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CONFIG = Path("/tmp/nginx.conf")  # noqa: S108 - the only folder that can be written, and nobody else's

# Keys of the chart's config.entries, and annotations of an Ingress (nginx.org/...) -> nginx's directives
MAIN = {"worker-rlimit-nofile": "worker_rlimit_nofile"}
EVENTS = {"worker-connections": "worker_connections"}
HTTP = {
    "keepalive-timeout": "keepalive_timeout",
    "keepalive-requests": "keepalive_requests",
    "proxy-connect-timeout": "proxy_connect_timeout",
    "proxy-read-timeout": "proxy_read_timeout",
    "client-max-body-size": "client_max_body_size",
}
OTHER = {"keepalive", "access-log-off", "http-snippets"}
LOCATION = {
    "proxy-connect-timeout": "proxy_connect_timeout",
    "proxy-read-timeout": "proxy_read_timeout",
    "proxy-send-timeout": "proxy_send_timeout",
    "proxy-buffering": "proxy_buffering",
    "client-max-body-size": "client_max_body_size",
}
LIMIT = {"key", "rate", "burst", "no-delay", "zone-size", "reject-code", "scale"}
SWITCHES = {"true": "on", "false": "off"}


class Refused(Exception):
    """An Ingress or a setting that this controller cannot honour."""


def configuration(
    ingresses: list[dict[str, Any]],
    slices: list[dict[str, Any]],
    entries: Mapping[str, str],
    *,
    replicas: int = 1,
    empty_host: bool = False,
) -> str:
    """The text of nginx.conf."""
    unknown = entries.keys() - MAIN.keys() - EVENTS.keys() - HTTP.keys() - OTHER
    if unknown:
        raise Refused(f"unknown config entries: {', '.join(sorted(unknown))}")
    servers: dict[str, list[str]] = {}
    for ingress in ingresses:
        for rule in ingress["spec"].get("rules", []):
            if "host" not in rule and not empty_host:
                raise Refused(f"{_name(ingress)} has a rule without a host, and allowEmptyIngressHost is off")
            servers.setdefault(rule.get("host", "_"), []).extend(_locations(ingress, rule, slices))
    access_log = "off" if entries.get("access-log-off") == "true" else "/dev/stdout"
    blocks = [
        *_directives(MAIN, entries),
        "worker_processes auto;",
        "pid /tmp/nginx.pid;",
        "error_log stderr notice;",
        _block("events", _directives(EVENTS, entries)),
        _block(
            "http",
            [
                f"access_log {access_log};",
                *[f"{kind}_temp_path /tmp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")],
                *_directives(HTTP, entries),
                *entries.get("http-snippets", "").splitlines(),
                *_zones(ingresses, replicas),
                *_upstreams(ingresses, slices, entries.get("keepalive", "32")),
                _block("server", ["listen 8081;", "access_log off;", "location = /nginx-ready { return 200; }"]),
                *([] if "_" in servers else [_block("server", ["listen 8080 default_server;", "return 404;"])]),
                *[_server(host, locations) for host, locations in servers.items()],
            ],
        ),
    ]
    return "\n".join(blocks) + "\n"


def _server(host: str, locations: list[str]) -> str:
    listen = "listen 8080 default_server;" if host == "_" else "listen 8080;"
    rest = [] if any(each.startswith("location / ") for each in locations) else ["location / { return 404; }"]
    return _block("server", [listen, f"server_name {host};", *locations, *rest])


def _locations(ingress: dict[str, Any], rule: dict[str, Any], slices: list[dict[str, Any]]) -> list[str]:
    settings = _annotations(ingress)
    common = [*_directives(LOCATION, settings), *_limit(ingress)]
    blocks = []
    for path in rule["http"]["paths"]:
        upstream = _upstream(ingress, path)
        proxy = [
            "proxy_http_version 1.1;",
            'proxy_set_header Connection "";',
            "proxy_set_header Host $host;",
            "proxy_set_header X-Real-IP $remote_addr;",
            "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
            "proxy_set_header X-Forwarded-Proto $scheme;",
            f"proxy_pass http://{upstream};",
        ]
        body = [*common, *(proxy if _addresses(ingress, path, slices) else ["return 502;"])]
        place = path["path"].rstrip("/")
        exact = [_block(f"location = {place or '/'}", body)]
        prefix = [_block(f"location {place}/", body)] if path["pathType"] == "Prefix" else []
        blocks += prefix if not place else [*exact, *prefix]
    return blocks


def _annotations(ingress: dict[str, Any]) -> dict[str, str]:
    annotations = ingress["metadata"].get("annotations", {})
    ours = {key.removeprefix("nginx.org/"): value for key, value in annotations.items() if key.startswith("nginx.org/")}
    unknown = ours.keys() - LOCATION.keys() - {f"limit-req-{key}" for key in LIMIT}
    if unknown:
        raise Refused(f"{_name(ingress)} has unknown annotations: {', '.join(sorted(unknown))}")
    return ours


def _limit(ingress: dict[str, Any]) -> list[str]:
    settings = _annotations(ingress)
    if "limit-req-rate" not in settings:
        return []
    burst = f" burst={settings['limit-req-burst']}" if "limit-req-burst" in settings else ""
    no_delay = " nodelay" if settings.get("limit-req-no-delay") == "true" else ""
    return [
        f"limit_req zone={_name(ingress)}{burst}{no_delay};",
        f"limit_req_status {settings.get('limit-req-reject-code', '429')};",
    ]


def _zones(ingresses: list[dict[str, Any]], replicas: int) -> list[str]:
    zones = []
    for ingress in ingresses:
        settings = _annotations(ingress)
        if "limit-req-rate" in settings:
            key, size = settings["limit-req-key"], settings.get("limit-req-zone-size", "10m")
            count, unit = settings["limit-req-rate"].split("r/")
            share = int(count) // (replicas if settings.get("limit-req-scale") == "true" else 1)
            zones.append(f"limit_req_zone {key} zone={_name(ingress)}:{size} rate={share}r/{unit};")
    return zones


def _upstreams(ingresses: list[dict[str, Any]], slices: list[dict[str, Any]], keepalive: str) -> list[str]:
    blocks = {}
    for ingress in ingresses:
        for rule in ingress["spec"].get("rules", []):
            for path in rule["http"]["paths"]:
                addresses = _addresses(ingress, path, slices)
                if addresses:
                    name = _upstream(ingress, path)
                    servers = [f"server {address};" for address in addresses]
                    blocks[name] = _block(f"upstream {name}", [*servers, f"keepalive {keepalive};"])
    return list(blocks.values())


def _addresses(ingress: dict[str, Any], path: dict[str, Any], slices: list[dict[str, Any]]) -> list[str]:
    """Of the pods that are ready, as the F5 controller has them: not the Service's, whose connections outlive pods."""
    service = path["backend"]["service"]
    if "name" not in service["port"]:
        raise Refused(f"{_name(ingress)} names the port of {service['name']} by number: name it")
    found = []
    for each in slices:
        labels = each["metadata"].get("labels", {})
        mine = each["metadata"]["namespace"] == ingress["metadata"]["namespace"]
        if mine and labels.get("kubernetes.io/service-name") == service["name"]:
            ports = [port["port"] for port in each.get("ports") or [] if port["name"] == service["port"]["name"]]
            ready = [pod for pod in each.get("endpoints") or [] if pod.get("conditions", {}).get("ready")]
            found += [f"{pod['addresses'][0]}:{port}" for pod in ready for port in ports]
    return sorted(found)


def _upstream(ingress: dict[str, Any], path: dict[str, Any]) -> str:
    service = path["backend"]["service"]
    return f"{ingress['metadata']['namespace']}-{service['name']}-{service['port'].get('name')}"


def _name(ingress: dict[str, Any]) -> str:
    return f"{ingress['metadata']['namespace']}-{ingress['metadata']['name']}"


def _directives(names: Mapping[str, str], values: Mapping[str, str]) -> list[str]:
    return [f"{names[key]} {SWITCHES.get(values[key], values[key])};" for key in names if key in values]


def _block(head: str, lines: list[str]) -> str:
    body = re.sub(r"^", "    ", "\n".join(lines), flags=re.MULTILINE)
    return f"{head} {{\n{body}\n}}"


class Cluster:
    """The two lists that are read, through the pod's service account."""

    def __init__(self, ingress_class: str) -> None:
        self._class = ingress_class
        self._context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))

    def ingresses(self) -> list[dict[str, Any]]:
        """Those of our class."""
        every = self._list("/apis/networking.k8s.io/v1/ingresses")
        return [each for each in every if each["spec"].get("ingressClassName") == self._class]

    def slices(self) -> list[dict[str, Any]]:
        """Of all Services."""
        return self._list("/apis/discovery.k8s.io/v1/endpointslices")

    def _list(self, path: str) -> list[dict[str, Any]]:
        token = (ACCOUNT / "token").read_text()  # read each time: it is renewed
        request = urllib.request.Request(
            f"https://kubernetes.default.svc{path}", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S, context=self._context) as answer:  # noqa: S310
            items: list[dict[str, Any]] = json.load(answer)["items"]
            return items


def _entries() -> dict[str, str]:
    """A mounted ConfigMap is a file for each key."""
    return {path.name: path.read_text() for path in Path("/config").iterdir() if path.is_file()}


def main() -> None:
    """Run nginx, and keep its configuration true."""
    cluster, entries = Cluster(os.environ["INGRESS_CLASS"]), _entries()
    options: dict[str, Any] = {
        "replicas": int(os.environ["REPLICAS"]),
        "empty_host": os.environ["EMPTY_HOST"] == "true",
    }
    served = configuration([], [], entries, **options)
    CONFIG.write_text(served)
    command = ["nginx", "-e", "stderr", "-c", str(CONFIG), "-g", "daemon off;"]
    nginx = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: nginx.send_signal(signal.SIGQUIT))  # requests under way are answered
    complaint = ""
    while nginx.poll() is None:
        try:
            wanted = configuration(cluster.ingresses(), cluster.slices(), entries, **options)
            if wanted != served:
                CONFIG.write_text(wanted)
                nginx.send_signal(signal.SIGHUP)
                served = wanted
                print("reloaded", flush=True)
            complaint = ""
        except (Refused, OSError) as exc:  # URLError is an OSError
            if str(exc) != complaint:
                complaint = str(exc)
                print(f"the configuration stays as it is: {complaint}", file=sys.stderr, flush=True)
        time.sleep(POLL_S)
    sys.exit(nginx.returncode)


if __name__ == "__main__":
    main()
