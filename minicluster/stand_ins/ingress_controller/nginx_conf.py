"""Renders nginx.conf as the controller's templates do, for the settings that controller_settings.py implements."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from minicluster.stand_ins.ingress_controller import admission, controller_settings
from minicluster.stand_ins.ingress_controller.admission import Ingress, title
from minicluster.stand_ins.ingress_controller.controller_settings import NotImplementedHereError, Settings

# The real controller listens on 80 and 443, for which its nginx has a file capability.
HTTP, HTTPS, READY = 8080, 8443, 8081
# No process listens on this port: a Service without endpoints answers 502.
NOBODY = "127.0.0.1:8181"
ANY_NAME = "_"

MAIN = {
    "worker-processes": "worker_processes",
    "worker-rlimit-nofile": "worker_rlimit_nofile",
    "worker-cpu-affinity": "worker_cpu_affinity",
    "worker-shutdown-timeout": "worker_shutdown_timeout",
}
HTTP_NAMES = {"keepalive-timeout": "keepalive_timeout", "keepalive-requests": "keepalive_requests"}
LOCATION = {
    "proxy-connect-timeout": "proxy_connect_timeout",
    "proxy-read-timeout": "proxy_read_timeout",
    "proxy-send-timeout": "proxy_send_timeout",
    "client-max-body-size": "client_max_body_size",
    "client-body-buffer-size": "client_body_buffer_size",
    "proxy-buffers": "proxy_buffers",
    "proxy-buffer-size": "proxy_buffer_size",
    "proxy-busy-buffers-size": "proxy_busy_buffers_size",
    "proxy-max-temp-file-size": "proxy_max_temp_file_size",
}
PROXY = (
    "proxy_set_header Host $host;",
    "proxy_set_header X-Real-IP $remote_addr;",
    "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "proxy_set_header X-Forwarded-Host $host;",
    "proxy_set_header X-Forwarded-Port $server_port;",
)
LOG_FORMAT = (
    """log_format main '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent """
    """"$http_referer" "$http_user_agent" "$http_x_forwarded_for"';"""
)


def configuration(
    ingresses: Sequence[Ingress],
    slices: Sequence[Mapping[str, Any]],
    entries: Mapping[str, str],
    *,
    replicas: int = 1,
    empty_host: bool = False,
) -> tuple[str, list[str]]:
    """Returns (the text of nginx.conf, log lines about rejected Ingresses and invalid values).

    Raises NotImplementedHereError if a setting is not implemented, or a backend's port has no name.
    """
    base = controller_settings.from_config_map(entries)
    served, rejected = admission.admitted(ingresses, empty_host=empty_host)
    said = [*base.ignored, *rejected]
    blocks: list[str] = []
    for each in served:
        own = controller_settings.from_annotations(each["metadata"].get("annotations") or {}, base)
        said += [f"Ingress {title(each)}: {line}" for line in own.ignored]
        blocks += [*_upstreams(each, slices, own), *_zone(each, own, replicas)]
        blocks += [_server(each, rule, own) for rule in each["spec"]["rules"]]
    any_name = any(not rule.get("host") for each in served for rule in each["spec"]["rules"])
    servers = blocks if any_name else [_default_server(base), *blocks]
    return _main(base, entries, servers), said


def _main(base: Settings, entries: Mapping[str, str], servers: list[str]) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    http = [
        *[f"{kind}_temp_path /tmp/{kind};" for kind in kinds],  # the only writable folder
        *_snippet(entries, "http-snippets"),
        LOG_FORMAT,
        f"access_log {_access_log(base)};",
        *_directives(HTTP_NAMES, base),
        _block("server", [f"listen {READY};", "access_log off;", "location = /nginx-ready { return 200; }"]),
        *servers,
    ]
    lines = [
        *_directives(MAIN, base),
        f"error_log stderr {base.values['error-log-level']};",
        "pid /tmp/nginx.pid;",
        *_snippet(entries, "main-snippets"),
        _block("events", [f"worker_connections {base.values['worker-connections']};"]),
        _block("http", http),
    ]
    return "\n".join(lines) + "\n"


def _access_log(base: Settings) -> str:
    return "off" if base.on("access-log-off") else base.get("access-log") or "/dev/stdout main"


def _default_server(base: Settings) -> str:
    """The server for hosts of no Ingress. It rejects TLS handshakes and does not redirect."""
    lines = [
        *_listen(base, default=True, tls=True),
        *_real_ip(base),
        f"server_tokens {_switch(base, 'server-tokens')};",
        f"server_name {ANY_NAME};",
        *(["access_log off;"] if base.on("default-server-access-log-off") else []),
        _block("location /", [f"return {base.values['default-server-return']};"]),
    ]
    return _block("server", lines)


def _server(ingress: Ingress, rule: Mapping[str, Any], own: Settings) -> str:
    host = rule.get("host", "")
    tls = not host or any(host in each.get("hosts", []) for each in ingress["spec"].get("tls") or [])
    paths = (rule.get("http") or {}).get("paths", [])
    places = {_place(path) for path in paths}
    lines = [
        *_listen(own, default=not host, tls=tls),
        *_real_ip(own),
        f"server_tokens {_switch(own, 'server-tokens')};",
        f"server_name {host or ANY_NAME};",
        *_redirects(own, tls=tls),
        *_snippet(own.values, "server-snippets"),
        *[_location(ingress, host, path, own) for path in paths],
        # Debian's nginx would serve its default page at the root, which the controller's nginx does not have.
        *([] if "/" in places else [_block("location /", [f"return {_elsewhere(host, own)};"])]),
    ]
    return _block("server", lines)


def _elsewhere(host: str, own: Settings) -> str:
    return "404" if host else own.values["default-server-return"]


def _listen(own: Settings, *, default: bool, tls: bool) -> list[str]:
    """The ports. There is no certificate, so TLS handshakes are rejected, as in the real controller."""
    ends = (" default_server" if default else "") + (" proxy_protocol" if own.on("proxy-protocol") else "")
    secure = [f"listen {HTTPS} ssl{ends};", "ssl_reject_handshake on;"] if tls else []
    return [f"listen {HTTP}{ends};", *secure]


def _real_ip(own: Settings) -> list[str]:
    networks = [one.strip() for one in (own.get("set-real-ip-from") or "").split(",") if one.strip()]
    header = own.get("real-ip-header")
    return [
        *[f"set_real_ip_from {network};" for network in networks],
        *([f"real_ip_header {header};"] if header else []),
        *(["real_ip_recursive on;"] if own.on("real-ip-recursive") else []),
    ]


def _redirects(own: Settings, *, tls: bool) -> list[str]:
    """Redirects to HTTPS: for a host with TLS by default, and for any host behind a proxy that terminates TLS."""
    code, found = own.values["http-redirect-code"], []
    if tls and own.on("ssl-redirect"):
        found.append(_block("if ($scheme = http)", [f"return {code} https://$host:443$request_uri;"]))
    if own.on("redirect-to-https"):
        condition = "if ($http_x_forwarded_proto = 'http')"
        found.append(_block(condition, [f"return {code} https://$host$request_uri;"]))
    return found


def _place(path: Mapping[str, Any]) -> str:
    """The argument of `location`. A Prefix matches characters, as in nginx: /tasks also matches /tasks-of-others."""
    text = path.get("path") or "/"
    return f"= {text}" if path.get("pathType") == "Exact" else str(text)


def _location(ingress: Ingress, host: str, path: Mapping[str, Any], own: Settings) -> str:
    keepalive = int(own.get("keepalive") or 0) > 0
    scheme = "https" if own.on("redirect-to-https") else "$scheme"
    lines = [
        "proxy_http_version 1.1;",
        *(['proxy_set_header Connection "";'] if keepalive else []),
        *_snippet(own.values, "location-snippets"),
        *_directives(LOCATION, own),
        *PROXY,
        f"proxy_set_header X-Forwarded-Proto {scheme};",
        f"proxy_buffering {_switch(own, 'proxy-buffering')};",
        f"proxy_pass http://{_upstream(ingress, host, path)};",
        *_limit(ingress, own),
    ]
    return _block(f"location {_place(path)}", lines)


def _limit(ingress: Ingress, own: Settings) -> list[str]:
    if "limit-req-rate" not in own.values:
        return []
    burst, delay = own.get("limit-req-burst"), own.get("limit-req-delay")
    parts = [f"limit_req zone={title(ingress)}"]
    parts += [f"burst={burst}"] if int(burst or 0) else []
    parts += ["nodelay"] if own.on("limit-req-no-delay") else [f"delay={delay}"] if int(delay or 0) else []
    return [
        f"{' '.join(parts)};",
        *(["limit_req_dry_run on;"] if own.on("limit-req-dry-run") else []),
        f"limit_req_log_level {own.values['limit-req-log-level']};",
        f"limit_req_status {own.values['limit-req-reject-code']};",
    ]


def _zone(ingress: Ingress, own: Settings, replicas: int) -> list[str]:
    rate = own.get("limit-req-rate")
    if rate is None:
        return []
    rate = scaled(rate, replicas) if own.on("limit-req-scale") else rate
    key, size = own.values["limit-req-key"], own.values["limit-req-zone-size"]
    return [f"limit_req_zone {key} zone={title(ingress)}:{size} rate={rate};"]


def scaled(rate: str, replicas: int) -> str:
    """A rate divided by the replicas and rounded down. Below one per second it becomes a rate per minute."""
    number, unit = rate.split("r/")
    share = int(number) / max(1, replicas)
    if unit == "s" and share < 1:
        share, unit = share * 60, "m"
    return f"{int(share)}r/{unit}"


def _upstreams(ingress: Ingress, slices: Sequence[Mapping[str, Any]], own: Settings) -> list[str]:
    blocks = {}
    keepalive, zone = int(own.get("keepalive") or 0), own.values["upstream-zone-size"]
    method = "" if own.values["lb-method"] == "round_robin" else own.values["lb-method"]
    ends = f"fail_timeout={own.values['fail-timeout']} max_conns={own.values['max-conns']};"
    for rule in ingress["spec"]["rules"]:
        for path in (rule.get("http") or {}).get("paths", []):
            name = _upstream(ingress, rule.get("host", ""), path)
            servers = _addresses(ingress, path, slices) or [NOBODY]
            lines = [
                *([f"zone {name} {zone};"] if zone != "0" else []),
                *([f"{method};"] if method else []),
                *[f"server {each} max_fails={own.values['max-fails']} {ends}" for each in servers],
                *([f"keepalive {keepalive};"] if keepalive > 0 else []),
            ]
            blocks[name] = _block(f"upstream {name}", lines)
    return list(blocks.values())


def _addresses(ingress: Ingress, path: Mapping[str, Any], slices: Iterable[Mapping[str, Any]]) -> list[str]:
    """The addresses (host:port) of the ready pods.

    Not the address of the Service: keepalive connections would lead to pods that have ended. Raises
    NotImplementedHereError if the backend names its port by number.
    """
    service = path["backend"]["service"]
    if "name" not in service["port"]:
        raise NotImplementedHereError(f"{title(ingress)} names the port of {service['name']} by number: name it")
    found = []
    for each in slices:
        labels = each["metadata"].get("labels", {})
        mine = each["metadata"]["namespace"] == ingress["metadata"]["namespace"]
        if mine and labels.get("kubernetes.io/service-name") == service["name"]:
            ports = [port["port"] for port in each.get("ports") or [] if port["name"] == service["port"]["name"]]
            ready = [pod for pod in each.get("endpoints") or [] if pod.get("conditions", {}).get("ready")]
            found += [f"{pod['addresses'][0]}:{port}" for pod in ready for port in ports]
    return sorted(found)


def _upstream(ingress: Ingress, host: str, path: Mapping[str, Any]) -> str:
    service = path["backend"]["service"]
    metadata = ingress["metadata"]
    parts = (metadata["namespace"], metadata["name"], host or ANY_NAME, service["name"], service["port"].get("name"))
    return "-".join(str(part) for part in parts)


def _snippet(values: Mapping[str, str], name: str) -> list[str]:
    return values.get(name, "").splitlines()


def _switch(own: Settings, name: str) -> str:
    return "on" if own.on(name) else "off"


def _directives(names: Mapping[str, str], own: Settings) -> list[str]:
    return [f"{directive} {own.values[name]};" for name, directive in names.items() if name in own.values]


def _block(head: str, lines: list[str]) -> str:
    body = re.sub(r"^", "    ", "\n".join(lines), flags=re.MULTILINE)
    return f"{head} {{\n{body}\n}}"
