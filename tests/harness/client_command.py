"""The client's command line with the test tasks: `python -m tests.harness.client_command post first --name abc`."""

import sys

from apps.client.__main__ import main
from tests.harness.tasks import TEST_TASKS

if __name__ == "__main__":
    sys.exit(main(registry=TEST_TASKS))
