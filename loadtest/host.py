"""The target of HOST: a system that already runs, on this machine or elsewhere."""

import http.client
import os
from collections.abc import Mapping
from uuid import uuid4

import httpx

from apps.client import Client, Problem, TimedOut
from loadtest.gates import Seen
from loadtest.sample import ACCEPTED, Counts, Depths, Sample, accepted_by_task, depths, left, metrics, working
from loadtest.tasks.contract import SHORT
from ops.command import Unusable
from ops.servers.inspection import management_of, vhost_of

# the first answer of a busy machine may take more than a second
ANSWER_TIMEOUT_S = 5.0


def check(url: str, key: str, host: str = "") -> None:
    """Request a task that does not exist. Raises Unusable unless the answer is 404 not-found."""
    statuses: list[int] = []
    hooks = {"response": [lambda answer: statuses.append(answer.status_code)]}
    try:
        with Client(url, key, host=host, event_hooks=hooks) as client:
            client.result(str(uuid4()), ANSWER_TIMEOUT_S)
    except Problem as problem:
        if problem.status == http.client.NOT_FOUND and problem.kind == "not-found":
            return
        if problem.status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
            raise Unusable(f"{url} answers {problem.status}: set SLUICE_KEY to a valid bearer key.") from None
        told = f"answers {problem.status} for an unknown task, where Sluice answers 404 not-found"
        raise Unusable(f"{url} {told}: check the address.") from None
    except TimedOut:
        if not statuses:
            raise Unusable(f"{url} does not answer: start it, or name another HOST.") from None
        if statuses[-1] != http.client.OK:
            raise Unusable(
                f"{url} has answered {statuses[-1]} for {ANSWER_TIMEOUT_S:g} s: check that the system behind it runs."
            ) from None
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as exc:
        raise Unusable(f"{url} does not answer ({exc}): start it, or name another HOST.") from exc
    except KeyError:
        raise Unusable(f"{url} does not answer as Sluice does: check the address.") from None
    raise Unusable(f"{url} answers with success for a task that does not exist: check the address.")


def check_tasks(url: str, key: str, host: str = "") -> None:
    """Post a task of the load test with a negative duration. Raises Unusable unless it is refused for this reason."""
    given = {"task": SHORT.short_name, "name": "check", "seconds": -1}
    try:
        with Client(url, key, host=host) as client:
            client.submit(given, deadline_s=ANSWER_TIMEOUT_S)
    except Problem as problem:
        if any("seconds" in error["loc"] for error in problem.document.get("errors", ())):
            return
    raise Unusable(
        f"{url} does not have the tasks of the load test: add the component loadtest/tasks to its overlay "
        "(docs/load.md), and deploy it again."
    )


class Host:
    """A running system. The environment has the addresses of its queues and counters.

    SLUICE_KEY                the bearer key
    SLUICE_HOST               the Host header, needed if the URL is the address of an ingress
    CELERY_BROKER_URL         as for `make up`
    RABBITMQ_MANAGEMENT_URL   as for `make up`
    METRICS_URLS              the /metrics of each API process, separated by commas; by default that of the URL

    Raises Unusable if the system does not answer or a part cannot be observed, as lost tasks would not be detected.
    """

    def __init__(self, url: str, environment: Mapping[str, str] = os.environ) -> None:
        self.url = url.rstrip("/")
        self.key = environment.get("SLUICE_KEY", "")
        self.host = environment.get("SLUICE_HOST", "")
        broker = environment.get("CELERY_BROKER_URL")
        if not broker:
            raise Unusable(
                "HOST alone does not show whether its queues drain: set CELERY_BROKER_URL and RABBITMQ_MANAGEMENT_URL, "
                "or CLUSTER=1 for the cluster of kubectl's context."
            )
        self._management = management_of(broker, environment.get("RABBITMQ_MANAGEMENT_URL"))
        self._vhost = vhost_of(broker)
        check(self.url, self.key, self.host)
        self._metrics_urls = environment.get("METRICS_URLS", f"{self.url}/metrics").split(",")
        self._accepted_before, self._queues_before = self._accepted(), self._depths()
        self.about = {"where": self.url, "rabbitmq": ".".join(map(str, self._management.version))}

    def sample(self) -> Sample:
        """The current sample. Raises Unusable if the broker does not answer."""
        return Sample(*working(self._depths()), usage={})

    def queues(self) -> dict[str, int]:
        """Messages left in each queue. Tasks that were queued before the run count too."""
        return left(self._depths(), self._queues_before)

    def seen(self) -> Seen:
        """The counters since the start of the run, and the messages left. Raises Unusable if they cannot be read."""
        return Seen(self._accepted() - self._accepted_before, self.queues())

    def _accepted(self) -> Counts:
        texts = {url: metrics(url) for url in self._metrics_urls}
        for url, text in texts.items():
            if ACCEPTED not in text:
                raise Unusable(
                    f"{url} has no counter {ACCEPTED}: METRICS_URLS must list the /metrics of each API process."
                )
        return accepted_by_task(texts.values())

    def _depths(self) -> Depths:
        return depths(self._management, self._vhost)
