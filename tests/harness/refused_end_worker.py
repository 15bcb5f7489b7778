"""The worker of the tests; Redis refuses, as what no script may do, the ends that TEST_REFUSED names."""

import os

from apps.worker import backend
from apps.worker.script import Script
from tests.harness.worker import app as app  # noqa: PLC0414 - Celery looks for it here

_REFUSED = Script("return redis.call('NO-SUCH-COMMAND')")
backend.END = _REFUSED
if os.environ["TEST_REFUSED"] == "all":
    backend.END_WHEN_FULL = _REFUSED
