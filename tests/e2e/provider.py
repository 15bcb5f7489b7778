"""The cluster that the tests use: one that they build, or an existing one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from minicluster.lifecycle import Minicluster
from tests.e2e.existing import Existing


class Provider(Protocol):
    """A cluster between `start` and `stop`. `str` describes it for a person."""

    def start(self) -> Path:
        """Provide a cluster with Ready nodes; returns the path of its kubeconfig."""

    def load_image(self, archive: Path) -> None:
        """Import the images of a docker-archive into the nodes."""

    def stop(self) -> None:
        """Remove everything that `start` created."""

    @property
    def entrance(self) -> str:
        """The URL of the ingress controller."""

    @property
    def hpa_sync_s(self) -> float:
        """The sync period of the cluster's HorizontalPodAutoscalers."""


# clusters that are started; KUBECONFIG names the last one
STARTED: list[Provider] = []


def chosen() -> Provider:
    """Return the cluster of the kubectl context E2E_CONTEXT, or else one that is built on this machine."""
    context = os.environ.get("E2E_CONTEXT")
    return Existing(context) if context else Minicluster()


@contextmanager
def started(cluster: Provider) -> Iterator[None]:
    """Start a cluster and set KUBECONFIG to it, also for programs that the tests run."""
    before = os.environ.get("KUBECONFIG")
    # `make e2e KUBECONFIG=...` passes this variable to every make below it, where it would override the environment
    os.environ.pop("MAKEFLAGS", None)
    try:
        os.environ["KUBECONFIG"] = str(cluster.start())
        STARTED.append(cluster)
        yield
    finally:
        if cluster in STARTED:  # it is missing if the start failed
            STARTED.remove(cluster)
        os.environ.pop("KUBECONFIG", None)
        if before is not None:
            os.environ["KUBECONFIG"] = before
        cluster.stop()  # last, because it may fail
