"""Makes the virtual environment that everything else runs in: `python3 -m ops.requirements.venv FOLDER`.

Runs on the machine's own Python, which may be too old or lack the venv package: it says so in one sentence.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - before any import that an older Python could not read
    sys.exit(
        f"Sluice needs Python >= 3.11, this one is {sys.version.split()[0]}: run `make PYTHON=/path/to/python3.11`."
    )

import importlib.util

from ops.apt import apt_install
from ops.command import command_line, show

TIMEOUT_S = 300


def main() -> None:
    """Make the environment in the folder given on the command line."""
    if importlib.util.find_spec("ensurepip") is None:
        apt_install(["python3-venv"])
    # --clear: over one that another Python made, the two would mix.
    show(sys.executable, "-m", "venv", "--clear", sys.argv[1], timeout_s=TIMEOUT_S)


if __name__ == "__main__":
    command_line(main)
