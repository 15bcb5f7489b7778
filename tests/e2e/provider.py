"""What the tests need of a cluster, wherever it comes from."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol


class Provider(Protocol):
    """A cluster that is there between `start` and `stop`; as text it says which one it is."""

    def start(self) -> Path:
        """Have a cluster whose nodes are Ready; the kubeconfig that names it."""

    def load_image(self, archive: Path) -> None:
        """Let the nodes run the images of a docker-archive by their names."""

    def stop(self) -> None:
        """Take away what `start` made."""

    @property
    def entrance(self) -> str:
        """The URL of the ingress controller."""

    @property
    def hpa_sync_s(self) -> float:
        """How often its HPA looks."""


# those between `start` and `stop`: KUBECONFIG names the last of them
STARTED: list[Provider] = []


def chosen() -> Provider:
    """The cluster of the context E2E_CONTEXT, or one of our own on this machine."""
    from tests.e2e.cluster.bare import Bare  # noqa: PLC0415 - each knows more than the other needs
    from tests.e2e.cluster.existing import Existing  # noqa: PLC0415

    context = os.environ.get("E2E_CONTEXT")
    return Existing(context) if context else Bare()


@contextmanager
def started(cluster: Provider) -> Iterator[None]:
    """The cluster, which KUBECONFIG names meanwhile, for make too."""
    before = os.environ.get("KUBECONFIG")
    # a KUBECONFIG that `make e2e` was told would win over it in each make of the tests, and name another cluster
    os.environ.pop("MAKEFLAGS", None)
    try:
        os.environ["KUBECONFIG"] = str(cluster.start())
        STARTED.append(cluster)
        yield
    finally:
        if cluster in STARTED:  # and not where the start failed
            STARTED.remove(cluster)
        os.environ.pop("KUBECONFIG", None)
        if before is not None:
            os.environ["KUBECONFIG"] = before
        cluster.stop()  # last: it may fail
