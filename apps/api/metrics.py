"""The API's metrics of its bounds (docs/reliability.md): how full each list is, and what was turned away."""

from prometheus_client import Counter, Gauge

PROBLEMS = Counter("sluice_problems", "Answers that are a problem, by its kind", ["kind"])
BODIES_WAITING = Gauge("sluice_heavy_bodies_waiting", "Bodies that wait for the process that parses heavy ones")
PARSER_LOST = Counter("sluice_parser_lost", "Ends of the process that parses heavy bodies which no body caused")
COMMANDS = Gauge("sluice_redis_commands", "Commands that wait to be sent to Redis, or for its answer")
COMMANDS_DROPPED = Counter(
    "sluice_redis_commands_dropped",
    "Commands without an answer: overdue (not answered in time), full (not taken)",
    ["reason"],
)
LARGE_WAITING = Gauge("sluice_large_results_waiting", "Clients that wait until a large result can be read")
STALLED = Counter("sluice_stalled_clients", "Connections that were ended because the client did not read its answer")
# Present from the start: a rate over a counter that appears with its first event would miss that one.
for each in ("overdue", "full"):
    COMMANDS_DROPPED.labels(each)
