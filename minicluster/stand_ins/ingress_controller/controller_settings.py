"""Reads the controller's settings from its ConfigMap and from the annotations of an Ingress."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from minicluster.stand_ins.ingress_controller import record
from minicluster.stand_ins.ingress_controller.record import FORMS, Key, is_of

RECORD = Path(__file__).parents[3] / "ops" / "validate" / "controller-keys" / "nginx-5.5.4.txt"
PREFIX = "nginx.org/"
OLD_SSL_REDIRECT = "ingress.kubernetes.io/ssl-redirect"
# Annotations have the names of ConfigMap keys with a prefix, and the same defaults.
DEFAULTS = {
    "default-server-return": "404",
    "error-log-level": "notice",
    "fail-timeout": "10s",
    "http-redirect-code": "301",
    "keepalive-requests": "1000",
    "keepalive-timeout": "75s",
    "lb-method": "random two least_conn",
    "limit-req-key": "${binary_remote_addr}",
    "limit-req-log-level": "error",
    "limit-req-reject-code": "429",
    "limit-req-zone-size": "10m",
    "client-max-body-size": "1m",
    "max-conns": "0",
    "max-fails": "1",
    "proxy-buffering": "true",
    "proxy-connect-timeout": "60s",
    "proxy-read-timeout": "60s",
    "proxy-send-timeout": "60s",
    "server-tokens": "true",
    "ssl-redirect": "true",
    "upstream-zone-size": "256k",
    "worker-connections": "1024",
    "worker-processes": "auto",
}
# Settings without a default that nginx_conf.py implements.
_OTHERS = (
    "access-log access-log-off client-body-buffer-size default-server-access-log-off http-snippets keepalive "
    "limit-req-burst limit-req-delay limit-req-dry-run limit-req-no-delay limit-req-rate limit-req-scale "
    "location-snippets main-snippets proxy-buffer-size proxy-buffers proxy-busy-buffers-size proxy-max-temp-file-size "
    "proxy-protocol real-ip-header real-ip-recursive redirect-to-https server-snippets set-real-ip-from "
    "worker-cpu-affinity worker-rlimit-nofile worker-shutdown-timeout"
)
IMPLEMENTED = DEFAULTS.keys() | set(_OTHERS.split())
TRUE = {"1", "t", "T", "TRUE", "true", "True"}
LEVELS = {"info", "notice", "warn", "error"}


class NotImplementedHereError(Exception):
    """The stand-in lacks this setting of the real controller. A test that uses the setting would prove nothing."""


class Settings(NamedTuple):
    """The values to use, and a log line for each invalid value."""

    values: dict[str, str]
    ignored: list[str]

    def on(self, name: str) -> bool:
        return self.values.get(name) in TRUE

    def get(self, name: str) -> str | None:
        return self.values.get(name)


def known(kind: str) -> dict[str, Key]:
    """The recorded keys of a kind, `setting` or `annotation`."""
    return record.keys(RECORD.read_text(), kind)


def from_config_map(entries: Mapping[str, str]) -> Settings:
    """The settings of the ConfigMap, with defaults. Raises NotImplementedHereError if one is not implemented."""
    keys, values, ignored = known("setting"), dict(DEFAULTS), []
    for name, value in entries.items():
        if name not in keys:
            continue  # the controller does not log unknown names either
        said = _complaint(name, value, keys[name])
        if said:
            ignored.append(f"ConfigMap: {said}, ignoring")
        else:
            values[_implemented(name)] = value.strip() if keys[name].form != "text" else value
    return Settings(values, ignored)


def from_annotations(annotations: Mapping[str, str], base: Settings) -> Settings:
    """The settings of one Ingress, which override those of the ConfigMap.

    Raises NotImplementedHereError if one is not implemented.
    """
    keys, values, ignored = known("annotation"), dict(base.values), []
    for name, value in annotations.items():
        if name not in keys:
            continue  # the controller does not log unknown names either
        short = "ssl-redirect" if name == OLD_SSL_REDIRECT else name.removeprefix(PREFIX)
        if name == OLD_SSL_REDIRECT and f"{PREFIX}ssl-redirect" in annotations:
            continue  # the new name has precedence
        said = _complaint(name, value, keys[name])
        if said:
            ignored.append(f"{said}, ignoring")
        else:
            values[_implemented(short)] = value
    return Settings(values, ignored)


def _complaint(name: str, value: str, key: Key) -> str:
    """The reason why a value is invalid, so that the controller uses the default; "" if the value is valid."""
    if key.plus:
        return f"{name} requires NGINX Plus"
    if name == "worker-processes" and value == "auto":
        return ""
    if name == "access-log" and not value.startswith("syslog:"):
        return f"{name} is {value!r}, and must begin with syslog:"
    if name == f"{PREFIX}limit-req-log-level" and value not in LEVELS:
        return f"{name} is {value!r}, and must be one of {', '.join(sorted(LEVELS))}"
    return "" if is_of(key.form, value) else f"{name} is {value!r}, and must be {FORMS[key.form][0]}"


def _implemented(name: str) -> str:
    if name not in IMPLEMENTED:
        raise NotImplementedHereError(f"{name} is not implemented by the stand-in of the controller")
    return name
