"""A system that runs elsewhere, or was started by somebody else: what is loaded where HOST is given."""

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

# a busy machine's first answer may take more than a second
ANSWER_TIMEOUT_S = 5.0


def check(url: str, key: str, host: str = "") -> None:
    """Ask for a task that nobody made. Unusable if the answer is not that there is none."""
    statuses: list[int] = []
    hooks = {"response": [lambda answer: statuses.append(answer.status_code)]}
    try:
        with Client(url, key, host=host, event_hooks=hooks) as client:
            client.result(str(uuid4()), ANSWER_TIMEOUT_S)
    except Problem as problem:
        if problem.status == http.client.NOT_FOUND and problem.kind == "not-found":
            return
        if problem.status in {http.client.UNAUTHORIZED, http.client.FORBIDDEN}:
            raise Unusable(f"{url} answers {problem.status}: set SLUICE_KEY to a bearer key that it takes.") from None
        told = f"answers {problem.status} to a question for an unknown task, which must be 404 not-found"
        raise Unusable(f"{url} {told}: is this Sluice's address?") from None
    except TimedOut:
        if not statuses:
            raise Unusable(f"{url} does not answer: start it, or name another HOST.") from None
        if statuses[-1] != http.client.OK:
            raise Unusable(f"{url} answers {statuses[-1]} for {ANSWER_TIMEOUT_S:g} s: is all up behind it?") from None
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as exc:
        raise Unusable(f"{url} does not answer ({exc}): start it, or name another HOST.") from exc
    except KeyError:
        raise Unusable(f"{url} answers, but not as Sluice does: is this its address?") from None
    raise Unusable(f"{url} tells of a task that nobody made: is this Sluice's address?")


def check_tasks(url: str, key: str, host: str = "") -> None:
    """Post a task of the load that must be refused. Unusable where that is not for its negative time."""
    given = {"task": SHORT.short_name, "name": "check", "seconds": -1}
    try:
        with Client(url, key, host=host) as client:
            client.submit(given, deadline_s=ANSWER_TIMEOUT_S)
    except Problem as problem:
        if any("seconds" in error["loc"] for error in problem.document.get("errors", ())):
            return
    raise Unusable(
        f"{url} does not have the load's tasks: add the component loadtest/tasks to its overlay (docs/load.md), "
        "and deploy it again."
    )


class Host:
    """An address, and from the environment where its queues and counters are seen.

    SLUICE_KEY is the bearer key, SLUICE_HOST the Host header where the URL is an ingress's address. CELERY_BROKER_URL
    and RABBITMQ_MANAGEMENT_URL are as in `make up`; METRICS_URLS names each API process's /metrics, by default that of
    the host itself. Unusable if it does not answer, or if a part of it cannot be seen: lost tasks would not be found.
    """

    def __init__(self, url: str, environment: Mapping[str, str] = os.environ) -> None:
        self.url = url.rstrip("/")
        self.key = environment.get("SLUICE_KEY", "")
        self.host = environment.get("SLUICE_HOST", "")
        broker = environment.get("CELERY_BROKER_URL")
        if not broker:
            raise Unusable(
                "HOST alone does not show whether its queues drain: set CELERY_BROKER_URL and RABBITMQ_MANAGEMENT_URL, "
                "or CLUSTER=1 for the cluster that kubectl points to."
            )
        self._management = management_of(broker, environment.get("RABBITMQ_MANAGEMENT_URL"))
        self._vhost = vhost_of(broker)
        check(self.url, self.key, self.host)
        self._metrics_urls = environment.get("METRICS_URLS", f"{self.url}/metrics").split(",")
        self._accepted_before, self._queues_before = self._accepted(), self._depths()
        self.about = {"where": self.url, "rabbitmq": ".".join(map(str, self._management.version))}

    def sample(self) -> Sample:
        """As it is now."""
        return Sample(*working(self._depths()), usage={})

    def queues(self) -> dict[str, int]:
        """What is left in them; work that was there before the run must be gone too."""
        return left(self._depths(), self._queues_before)

    def seen(self) -> Seen:
        """The counters since the start of the run, and the queues."""
        return Seen(self._accepted() - self._accepted_before, self.queues())

    def _accepted(self) -> Counts:
        texts = {url: metrics(url) for url in self._metrics_urls}
        for url, text in texts.items():
            if ACCEPTED not in text:
                raise Unusable(
                    f"{url} does not tell {ACCEPTED}: METRICS_URLS must name each API process's own /metrics."
                )
        return accepted_by_task(texts.values())

    def _depths(self) -> Depths:
        return depths(self._management, self._vhost)
