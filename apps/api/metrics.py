"""The API's metrics: outcomes of posts, lengths of queues (docs/reliability.md), and refused requests."""

from functools import cache

from prometheus_client import Counter, Gauge, Histogram

ACCEPTED = Counter("sluice_accepted", "Tasks answered with 202", ["task"])
REFUSED = Counter("sluice_refused", "Tasks that were refused, or whose outcome is unknown, by reason", ["reason"])
REPEATED = Counter("sluice_repeated", "Posts answered from an earlier one with the same Idempotency-Key")
# The label is a name from API_KEYS, so the number of labels is bounded.
QUOTA_REFUSED = Counter("sluice_quota_refused", "Posts refused by the client's quota", ["client", "quota"])
QUOTA_OPEN = Gauge("sluice_quota_open", "Tasks of the client that wait or run, as of the last renewal", ["client"])
STREAMS = Gauge("sluice_event_streams", "Event streams that are open")
STREAMS_REFUSED = Counter("sluice_event_streams_refused", "Event streams that were refused, by the limit", ["limit"])
SLOW_REQUESTS = Counter("sluice_slow_requests", "Requests that did not arrive in time, by the part", ["part"])
CANCELLED = Counter("sluice_cancelled", "Tasks cancelled by a client, by the state they were in", ["state"])
PUBLISH_SECONDS = Histogram(
    "sluice_publish_seconds",
    "From the start of a publish to its outcome",
    ["outcome"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5),
)
IN_FLIGHT = Gauge("sluice_publishes_in_flight", "Publishes that wait for their outcome")
WAITING = Gauge("sluice_long_polls", "Clients that wait for a task")
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
# Cached per label: looking up a counter takes as long as incrementing it.
accepted = cache(ACCEPTED.labels)
publish_seconds = cache(PUBLISH_SECONDS.labels)
# Present from the start: rate() would miss the first event of a counter that appears with it.
for each in ("overdue", "full"):
    COMMANDS_DROPPED.labels(each)
