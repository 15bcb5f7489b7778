"""Rules for the HelmRelease of NGINX: its memory, its end, where its pods run, and whose address it sees."""

import ipaddress
from collections.abc import Iterator
from typing import Any

from ops.validate.agreement import longest_wait_s
from ops.validate.ingress import ENTRIES
from ops.validate.references import counts
from ops.validate.tree import Finding, Object, Tree, at
from sluice_planner.durations import parse_duration
from sluice_planner.quantity import parse_quantity

RELEASE = "nginx-ingress"
LABELS = {"app.kubernetes.io/name": RELEASE, "app.kubernetes.io/instance": RELEASE}
CONTROLLER = "spec.values.controller"
STORAGE = "ephemeral-storage"
# Measured with 64 idle workers of 16,384 connections: 449 MiB
BYTES_A_CONNECTION = 450
# Sets of workers that run at once: the new ones, and those of the last two reloads, which end their requests
GENERATIONS = 3
CHART_GRACE_S = 30
# NGINX's default for the time between two reads of a request is 60 s
ARRIVAL_MAX_S = 30


def check(tree: Tree) -> Iterator[Finding]:
    """Every release of the chart."""
    for each in tree.objects("HelmRelease"):
        if each.name == RELEASE:
            controller = at(each.spec, "values.controller") or {}
            entries = {name: str(value) for name, value in (at(controller, "config.entries") or {}).items()}
            yield from _workers(each, controller, entries)
            yield from _grace(each, controller, entries)
            yield from _spread(each, controller)
            yield from _storage(each, controller)
            yield from _clients(each, entries)
            yield from _address(each, controller, entries)


def _workers(each: Object, controller: dict[str, Any], entries: dict[str, str]) -> Iterator[Finding]:
    """The memory of the workers is that of their connections, whether those are used or not."""
    processes, connections = entries.get("worker-processes", "auto"), entries.get("worker-connections", "1024")
    field = f"spec.{ENTRIES}.worker-processes"
    if not processes.isdigit():
        yield each.finding(field, f"must be a number: with {processes} the memory grows with the cores of the node")
        return
    if not int(processes):
        yield each.finding(field, "must be above 0: nginx would start, and serve nothing")
    limit = parse_quantity(at(controller, "resources.limits.memory"))
    least = int(processes) * int(connections) * BYTES_A_CONNECTION * GENERATIONS if connections.isdigit() else 0
    if limit is not None and least > limit / 2:
        message = f"with {processes} workers reloads take {least / 2**20:.0f} MiB, above half of the memory limit"
        yield each.finding(field, message)
    if "worker-shutdown-timeout" not in entries:
        message = "is missing: an open event stream would keep the workers of each reload"
        yield each.finding(f"spec.{ENTRIES}.worker-shutdown-timeout", message)
    elif (parse_duration(entries["worker-shutdown-timeout"]) or 0) <= longest_wait_s():
        message = f"must be above the longest WAIT_MAX_S, {longest_wait_s()} s; 0 is no limit at all"
        yield each.finding(f"spec.{ENTRIES}.worker-shutdown-timeout", message)


def _grace(each: Object, controller: dict[str, Any], entries: dict[str, str]) -> Iterator[Finding]:
    sleep = at(controller, "lifecycle.preStop.sleep.seconds") or 0
    least = int(sleep) + (parse_duration(entries.get("worker-shutdown-timeout", "")) or 0)
    grace = controller.get("terminationGracePeriodSeconds", CHART_GRACE_S)
    if grace <= least:
        message = f"{grace} s end before preStop and worker-shutdown-timeout do, {least:g} s: requests would be cut off"
        yield each.finding(f"{CONTROLLER}.terminationGracePeriodSeconds", message)


def _spread(each: Object, controller: dict[str, Any]) -> Iterator[Finding]:
    """More than one pod is for the loss of a node."""
    terms = [
        term.get("podAffinityTerm", term)
        for terms in (at(controller, "affinity.podAntiAffinity") or {}).values()
        for term in terms
    ]
    constraints = [*(controller.get("topologySpreadConstraints") or []), *terms]
    apart = any(counts(one, LABELS) for one in constraints)
    if controller.get("replicaCount", 1) > 1 and not apart:
        message = "is missing, or selects other pods: all of NGINX may run on one node"
        yield each.finding(f"{CONTROLLER}.topologySpreadConstraints", message)


def _storage(each: Object, controller: dict[str, Any]) -> Iterator[Finding]:
    """Bodies and logs are files of the node: without a limit NGINX may fill its disk, and pods are evicted."""
    for container in ("resources", "initContainerResources"):
        for kind in ("requests", "limits"):
            if STORAGE not in (at(controller, f"{container}.{kind}") or {}):
                yield each.finding(f"{CONTROLLER}.{container}.{kind}.{STORAGE}", "is missing")


def _clients(each: Object, entries: dict[str, str]) -> Iterator[Finding]:
    """No client keeps half a request for long, or all connections: the controller has no keys for these limits."""
    field = f"spec.{ENTRIES}.http-snippets"
    directives = {
        words[0]: words[1:] for line in entries.get("http-snippets", "").split(";") if (words := line.split())
    }
    for name in ("client_header_timeout", "client_body_timeout"):
        if not 0 < (parse_duration("".join(directives.get(name, []))) or 0) <= ARRIVAL_MAX_S:
            yield each.finding(field, f"{name} must be 1 to {ARRIVAL_MAX_S} s: a client could keep half a request")
    zone, number = (*directives.get("limit_conn", []), "", "")[:2]
    if not number.isdigit() or f"zone={zone}:" not in " ".join(directives.get("limit_conn_zone", [])):
        yield each.finding(field, "limit_conn is missing, or of no zone: one client could take all connections")
    elif directives.get("limit_conn_status") != ["429"]:
        yield each.finding(field, "limit_conn_status must be 429: 503 would say that the API is overloaded")


def _address(each: Object, controller: dict[str, Any], entries: dict[str, str]) -> Iterator[Finding]:
    """The rate limit counts by the client's address."""
    header, networks = (entries.get(name, "") for name in ("real-ip-header", "set-real-ip-from"))
    header_field, networks_field = (f"spec.{ENTRIES}.{name}" for name in ("real-ip-header", "set-real-ip-from"))
    if header and not networks:
        yield each.finding(networks_field, "is missing: nginx believes real-ip-header of no address")
    if networks and not header:
        yield each.finding(header_field, "is missing: nginx would read X-Real-IP, which any client can send")
    if any(_is_everybody(one) for one in networks.split(",")):
        yield each.finding(networks_field, f"{networks} is everybody: each client could claim any address")
    if entries.get("proxy-protocol") == "true" and header != "proxy_protocol":
        yield each.finding(header_field, "must be proxy_protocol, as proxy-protocol is on")
    if header == "proxy_protocol" and entries.get("proxy-protocol") != "true":
        yield each.finding(f"spec.{ENTRIES}.proxy-protocol", "must be true, as real-ip-header is proxy_protocol")
    policy = at(controller, "service.externalTrafficPolicy") or "Local"
    if policy == "Cluster" and not header and controller.get("replicaCount", 1) > 1:
        message = "with Cluster all clients have a node's address, and one bucket of the rate limit: docs/deploy.md"
        yield each.finding(f"{CONTROLLER}.service.externalTrafficPolicy", message)


def _is_everybody(network: str) -> bool:
    try:
        return ipaddress.ip_network(network.strip(), strict=False).prefixlen == 0
    except ValueError:
        return False  # nginx.py names it
