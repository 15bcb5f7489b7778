"""Creates the virtual environment for all other commands: `python3 -m ops.requirements.venv FOLDER`.

This module runs on the machine's own Python. It prints one sentence if that Python is too old or lacks venv.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - before imports that an older Python cannot compile
    sys.exit(
        f"Sluice needs Python >= 3.11, this one is {sys.version.split()[0]}: run `make PYTHON=/path/to/python3.11`."
    )

import importlib.util

from ops.apt import apt_install
from ops.command import command_line, show

TIMEOUT_S = 300


def main() -> None:
    """Create the environment in the folder given on the command line. Raises Unusable if venv cannot be installed."""
    if importlib.util.find_spec("ensurepip") is None:
        apt_install(["python3-venv"])
    # --clear: an environment that another Python created would keep its files
    show(sys.executable, "-m", "venv", "--clear", sys.argv[1], timeout_s=TIMEOUT_S)


if __name__ == "__main__":
    command_line(main)
