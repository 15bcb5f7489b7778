"""The worker of `tests.harness.worker` with a defect in its rejection of messages, as TROUBLE says.

publish: the worker dies before it publishes. ack: it dies before it acks. late: it publishes after three seconds.
"""

import os
import time
from typing import Any

from apps.worker import dead_letter_publisher
from tests.harness.worker import app

__all__ = ["app"]

TROUBLE = os.environ["TROUBLE"]
_publish = dead_letter_publisher._Publisher.publish  # noqa: SLF001 - there is no public way to delay it


def _die(*_: Any) -> None:
    time.sleep(1)  # by then the main loop has sent its pending data
    os._exit(1)


def _publish_late(*arguments: Any) -> None:
    time.sleep(3)
    _publish(*arguments)


if TROUBLE == "ack":
    dead_letter_publisher.Rejection.ack = property(lambda _: _die)  # type: ignore[assignment]
else:
    dead_letter_publisher._Publisher.publish = {"publish": _die, "late": _publish_late}[TROUBLE]  # type: ignore[assignment]  # noqa: SLF001
