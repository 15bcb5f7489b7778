"""Rules for the annotations and settings of F5 NGINX Ingress Controller: it passes over what it does not understand.

Source: its internal/k8s/validation.go and internal/configs, as of 5.5.4. An Ingress with a wrong annotation is answered
by an event that nobody reads, and is not served.
"""

import difflib
import re
from collections.abc import Iterator

from deploy.validate.tree import Finding, Object, Tree, at

PREFIX = "nginx.org/"
FORMS = {
    "true or false": r"true|false|True|False|TRUE|FALSE|t|f|T|F|1|0",
    "a number": r"\d+",
    "a time, as 60s": r"(\d+(y|M|w|d|h|m|s|ms)?\s*)+",
    "a size, as 10m": r"\d+[kKmM]?",
    "a size, as 2m or 1g": r"\d+[kKmMgG]?",
    "a number and a size, as 8 4k": r"\d+ \d+[kKmM]?",
    "a rate, as 100r/s": r"\d+r/[sm]",
    "variables, as ${binary_remote_addr}": r"(\$\{[a-zA-Z_]\w*\}|\$[a-zA-Z_]\w*)+",
    "a status from 400 to 599": r"[45]\d\d",
    "info, notice, warn or error": r"info|notice|warn|error",
    "text": r"(?s).*",
}
# the names of each form, of annotations (with their prefix) and of settings alike
NAMES = {
    "true or false": "access-log-off hsts hsts-behind-proxy hsts-include-subdomains http2 limit-req-dry-run "
    "limit-req-no-delay limit-req-scale proxy-buffering redirect-to-https ssl-prefer-server-ciphers ssl-redirect "
    "use-cluster-ip",
    "a number": "hsts-max-age keepalive keepalive-requests limit-req-burst limit-req-delay max-conns max-fails "
    "proxy-next-upstream-tries worker-connections worker-rlimit-nofile",
    "a time, as 60s": "fail-timeout keepalive-timeout proxy-connect-timeout proxy-next-upstream-timeout "
    "proxy-read-timeout proxy-send-timeout",
    "a size, as 10m": "client-body-buffer-size limit-req-zone-size proxy-buffer-size proxy-busy-buffers-size "
    "proxy-max-temp-file-size upstream-zone-size",
    "a size, as 2m or 1g": "client-max-body-size",
    "a number and a size, as 8 4k": "proxy-buffers",
    "a rate, as 100r/s": "limit-req-rate",
    "variables, as ${binary_remote_addr}": "limit-req-key",
    "a status from 400 to 599": "limit-req-reject-code",
    "info, notice, warn or error": "limit-req-log-level",
    "text": "add-header add-header-inherit app-root basic-auth-realm basic-auth-secret grpc-services "
    "http-redirect-code lb-method listen-ports listen-ports-ssl mergeable-ingress-type path-regex policies "
    "proxy-hide-headers proxy-next-upstream proxy-pass-headers proxy-redirect-from proxy-redirect-to proxy-set-headers "
    "rewrite-target rewrites server-tokens ssl-ciphers ssl-services sticky-cookie-services websocket-services",
}
ENTRIES = "values.controller.config.entries"
FORM_OF = {name: form for form, names in NAMES.items() for name in names.split()}
# they are off unless the controller is told to allow them: any other setting may be written by them
SNIPPETS = {"location-snippets", "server-snippets"}


def check(tree: Tree) -> Iterator[Finding]:
    """Every Ingress, and what the controller itself is told."""
    for each in tree.objects("Ingress"):
        for name, value in (each.body["metadata"].get("annotations") or {}).items():
            if name.startswith(PREFIX):
                yield from _annotation(each, name.removeprefix(PREFIX), value)
    for each in tree.objects("HelmRelease"):
        for name, value in (at(each.spec, ENTRIES) or {}).items():
            if name in FORM_OF:  # the controller has a hundred more settings
                yield from _form(each, f"spec.{ENTRIES}.{name}", name, value)
        yield from _files(each)


def _annotation(each: Object, name: str, value: str) -> Iterator[Finding]:
    field = f"metadata.annotations.{PREFIX}{name}"
    if name in SNIPPETS:
        yield each.finding(field, "snippets are off in the controller: it would not serve this Ingress")
    elif name not in FORM_OF:
        near = difflib.get_close_matches(name, FORM_OF, 1)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
        yield each.finding(field, f"the controller has no such annotation{hint}")
    else:
        yield from _form(each, field, name, value)


def _form(each: Object, field: str, name: str, value: object) -> Iterator[Finding]:
    form = FORM_OF[name]
    if not re.fullmatch(FORMS[form], str(value).strip()):
        yield each.finding(field, f"must be {form}, not {value}")


def _files(each: Object) -> Iterator[Finding]:
    """Each connection is a file."""
    entries = at(each.spec, ENTRIES) or {}
    files, connections = (str(entries.get(name, "")) for name in ("worker-rlimit-nofile", "worker-connections"))
    if files.isdigit() and connections.isdigit() and int(files) <= int(connections):
        yield each.finding(f"spec.{ENTRIES}.worker-rlimit-nofile", f"must be above worker-connections, {connections}")
