"""The worker of the tests with an `end` script that Redis refuses; TEST_REFUSED=all includes END_WHEN_FULL."""

import os

from apps.worker import backend
from apps.worker.script import Script
from tests.harness.worker import app as app  # noqa: PLC0414 - Celery looks for it here

_REFUSED = Script("return redis.call('NO-SUCH-COMMAND')")
backend.END = _REFUSED
if os.environ["TEST_REFUSED"] == "all":
    backend.END_WHEN_FULL = _REFUSED
