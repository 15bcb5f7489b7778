"""The worker of `tests.harness.worker`, which dies while it gives a message up: before it publishes, or before its ack.

The environment says which: DIES=publish or DIES=ack.
"""

import os
from typing import Any

from apps.worker import rejection
from tests.harness.worker import app

__all__ = ["app"]


def _die(*_: Any) -> None:
    os._exit(1)


if os.environ["DIES"] == "publish":
    rejection._Publisher.publish = _die  # type: ignore[assignment]  # noqa: SLF001 - death has no interface
else:
    rejection.Rejection.ack = property(lambda _: _die)  # type: ignore[assignment]
