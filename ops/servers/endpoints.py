"""Stores the addresses of the running system, without secrets, in .local/run.json for other commands."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ops.command import REFUSALS, ROOT, Unusable
from ops.credentials import Credentials
from ops.files import lock_file, private_folder, write_private


@dataclass(frozen=True)
class Folder:
    """The git-ignored folder of a system on this machine."""

    path: Path = ROOT / ".local"

    @property
    def credentials(self) -> Path:
        """The file with the generated credentials."""
        return self.path / "credentials.env"

    @property
    def logs(self) -> Path:
        """The folder with one log per process."""
        return self.path / "logs"

    @property
    def run(self) -> Path:
        """The file with the endpoints of the running system."""
        return self.path / "run.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for one running system. Raises Unusable if it is locked already, or cannot be written."""
        try:
            lock = lock_file(private_folder(self.path) / "lock")
        except OSError as exc:
            if exc.errno in REFUSALS:
                raise
            raise Unusable(f"{self.path} cannot be written ({exc.strerror}): remove the file in its place.") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Unusable(
                "`make up` or `make load` is already running in this folder: end it first, or use another clone."
            ) from None
        finally:
            os.close(lock)


@dataclass(frozen=True)
class Endpoints:
    """Addresses of the system. `broker` and `redis` are host:port, or None if the environment had a URL.

    Such a URL is not stored because it contains a password.
    """

    api_url: str
    broker: str | None
    redis: str | None
    management_url: str | None

    def environment(self, user: str, credentials: Credentials, given: Mapping[str, str]) -> dict[str, str]:
        """The given environment plus the URLs of both servers for this user, and the key of task ids."""
        found = {"TASK_ID_KEY": credentials.task_id_key}
        if self.broker:
            found["CELERY_BROKER_URL"] = credentials.broker_url(user, self.broker)
        if self.redis:
            found["CELERY_RESULT_BACKEND"] = credentials.redis_url(user, self.redis)
        return {**given, **found}


def save(endpoints: Endpoints, path: Path) -> None:
    """Write run.json."""
    write_private(path, json.dumps(asdict(endpoints), indent=2) + "\n")


def load_running(folder: Folder) -> Endpoints:
    """The endpoints of the system that runs in this folder. Raises Unusable if none runs, or it is not ready."""
    try:
        with folder.locked():
            pass
    except Unusable:
        if folder.run.exists():
            return Endpoints(**json.loads(folder.run.read_text()))
    raise Unusable("No system runs here, or it is not ready yet: start it with `make up` in another terminal.")
