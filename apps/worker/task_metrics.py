"""The worker's Prometheus metrics, collected and served by its main process."""

from prometheus_client import Counter, Histogram

_SECONDS = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 300, 1800, 7200)

RESULTS = Counter("sluice_task_results", "Ends of a task's message by outcome", ["task", "outcome"])
WAIT_SECONDS = Histogram(
    "sluice_task_wait_seconds", "From the task's acceptance to its first start", ["task"], buckets=_SECONDS
)
RETURNED = Counter(
    "sluice_returned",
    "Messages of another version that this worker returned for others, by what it does not understand"
    " (task, input, form)",
    ["what"],
)
for each in ("task", "input", "form"):  # present from the start, so that the first return is an increase
    RETURNED.labels(each)
RUN_SECONDS = Histogram(
    "sluice_task_run_seconds", "From a start to its end, the storing of the result included", ["task"], buckets=_SECONDS
)
HANDED_BACK = Counter(
    "sluice_messages_handed_back", "Messages returned to their queue because every process was busy", ["queue"]
)
