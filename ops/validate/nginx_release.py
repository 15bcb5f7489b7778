"""Rules for the HelmRelease of NGINX: memory and shutdown of its workers, and limits and addresses of clients."""

from collections.abc import Iterator
from typing import Any

from ops.validate.agreement import longest_wait_s
from ops.validate.ingress import ENTRIES
from ops.validate.tree import Finding, Object, Tree, at
from sluice_planner.durations import parse_duration
from sluice_planner.quantity import parse_quantity

RELEASE = "nginx-ingress"
CONTROLLER = "spec.values.controller"
# Measured with 64 idle workers of 16,384 connections: 449 MiB
BYTES_PER_CONNECTION = 450
# Sets of workers that run at the same time: the new workers, and the workers of the last two reloads, which still
# finish their requests
WORKER_GENERATIONS = 3
CHART_GRACE_S = 30
# NGINX's default for client_header_timeout and client_body_timeout is 60 s
REQUEST_TIMEOUT_MAX_S = 30


def check(tree: Tree) -> Iterator[Finding]:
    """Check every release of the chart."""
    for each in tree.objects("HelmRelease"):
        if each.name == RELEASE:
            controller = at(each.spec, "values.controller") or {}
            entries = {name: str(value) for name, value in (at(controller, "config.entries") or {}).items()}
            yield from _memory(each, controller, entries)
            yield from _shutdown(each, controller, entries)
            yield from _client_limits(each, entries)
            yield from _client_address(each, controller, entries)


def _entry(each: Object, name: str, message: str) -> Finding:
    return each.finding(f"spec.{ENTRIES}.{name}", message)


def _memory(each: Object, controller: dict[str, Any], entries: dict[str, str]) -> Iterator[Finding]:
    """Each configured connection takes memory even if unused; each open connection needs a file descriptor."""
    processes, connections = entries.get("worker-processes", "auto"), entries.get("worker-connections", "1024")
    files = entries.get("worker-rlimit-nofile", "none")
    if not processes.isdigit() or not int(processes):
        message = f"must be a number above 0, not {processes}: with auto the memory grows with the node's cores"
        yield _entry(each, "worker-processes", message)
    elif connections.isdigit():  # nginx itself refuses any other text
        limit = parse_quantity(at(controller, "resources.limits.memory"))
        needed = int(processes) * int(connections) * BYTES_PER_CONNECTION * WORKER_GENERATIONS
        if limit is not None and needed > limit / 2:
            message = f"with {processes} workers, reloads need {needed / 2**20:.0f} MiB, over half of the memory limit"
            yield _entry(each, "worker-processes", message)
        if files.isdigit() and int(files) <= int(connections):
            yield _entry(each, "worker-rlimit-nofile", f"must be above worker-connections, {connections}")


def _shutdown(each: Object, controller: dict[str, Any], entries: dict[str, str]) -> Iterator[Finding]:
    """The shutdown timeout is above the longest long poll; the grace period is above preStop plus this timeout."""
    shutdown_s = parse_duration(entries.get("worker-shutdown-timeout", "")) or 0
    if shutdown_s <= longest_wait_s():
        message = f"must be above the longest WAIT_MAX_S, {longest_wait_s()} s; with 0 or unset there is no limit"
        yield _entry(each, "worker-shutdown-timeout", message)
    needed_s = (at(controller, "lifecycle.preStop.sleep.seconds") or 0) + shutdown_s
    grace_s = controller.get("terminationGracePeriodSeconds", CHART_GRACE_S)
    if grace_s <= needed_s:
        message = (
            f"{grace_s} s are not above preStop plus worker-shutdown-timeout, {needed_s:g} s: requests are cut off"
        )
        yield each.finding(f"{CONTROLLER}.terminationGracePeriodSeconds", message)


def _client_limits(each: Object, entries: dict[str, str]) -> Iterator[Finding]:
    """No client can hold an incomplete request for long, or use all connections.

    The controller has no settings for these limits, so they are directives in http-snippets.
    """
    lines = [line.split() for line in entries.get("http-snippets", "").split(";")]
    directives = {words[0]: words[1:] for words in lines if words}
    for name in ("client_header_timeout", "client_body_timeout"):
        if not 0 < (parse_duration("".join(directives.get(name, []))) or 0) <= REQUEST_TIMEOUT_MAX_S:
            message = f"{name} must be 1 to {REQUEST_TIMEOUT_MAX_S} s, or a client can hold an incomplete request"
            yield _entry(each, "http-snippets", message)
    zone = next(iter(directives.get("limit_conn", [])), "none")
    if f"zone={zone}:" not in " ".join(directives.get("limit_conn_zone", [])):
        message = "limit_conn or its zone is missing: one client can use all connections"
        yield _entry(each, "http-snippets", message)
    elif directives.get("limit_conn_status") != ["429"]:
        yield _entry(each, "http-snippets", "limit_conn_status must be 429: 503 means that the API is overloaded")


def _client_address(each: Object, controller: dict[str, Any], entries: dict[str, str]) -> Iterator[Finding]:
    """The rate limit counts by the client's address, which NGINX must get from a trusted source."""
    header, networks = entries.get("real-ip-header"), entries.get("set-real-ip-from")
    if bool(header) != bool(networks):
        message = "needs set-real-ip-from, and the reverse: without trusted networks any client can send this header"
        yield _entry(each, "real-ip-header", message)
    if any(network.strip().endswith("/0") for network in (networks or "").split(",")):
        yield _entry(each, "set-real-ip-from", f"{networks} trusts every address: any client could claim any address")
    if (entries.get("proxy-protocol") == "true") != (header == "proxy_protocol"):
        yield _entry(each, "proxy-protocol", "must be true with `real-ip-header: proxy_protocol`, and only then")
    policy = at(controller, "service.externalTrafficPolicy") or "Local"
    if policy == "Cluster" and not header and controller.get("replicaCount", 1) > 1:
        message = "with Cluster all clients have the address of a node and share one rate limit: see docs/deploy.md"
        yield each.finding(f"{CONTROLLER}.service.externalTrafficPolicy", message)
