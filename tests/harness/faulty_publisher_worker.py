"""The worker of `tests.harness.worker`, in trouble while it gives a message up, as the environment's TROUBLE says.

publish: it dies before it publishes. ack: it dies before its ack. late: it publishes after three seconds.
"""

import os
import time
from typing import Any

from apps.worker import dead_letter_publisher
from tests.harness.worker import app

__all__ = ["app"]

TROUBLE = os.environ["TROUBLE"]
_publish = dead_letter_publisher._Publisher.publish  # noqa: SLF001 - trouble has no interface


def _die(*_: Any) -> None:
    time.sleep(1)  # whatever the main loop was told to send has arrived by then
    os._exit(1)


def _publish_late(*arguments: Any) -> None:
    time.sleep(3)
    _publish(*arguments)


if TROUBLE == "ack":
    dead_letter_publisher.Rejection.ack = property(lambda _: _die)  # type: ignore[assignment]
else:
    dead_letter_publisher._Publisher.publish = {"publish": _die, "late": _publish_late}[TROUBLE]  # type: ignore[assignment]  # noqa: SLF001
