"""A pod has the files, rights and settings that common libraries expect."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minicluster.app_images import BASE_PACKAGES, BASE_SUITE
from ops.command import ROOT, Unusable
from ops.servers import debian
from tests.harness.pod import Pod

WORKER = ("apps/worker/Dockerfile", "kustomize/base/worker/deployment.yaml")
RECORDER = ("apps/worker/Dockerfile", "kustomize/base/worker/recorder.yaml")
API = ("apps/api/Dockerfile", "kustomize/base/api/deployment.yaml")

EXPECTED = {
    "home": """
        from pathlib import Path
        home = Path.home()
        (home / ".netrc").write_text("machine none")
        for name in (".cache/huggingface", ".cache/matplotlib", ".config/matplotlib", ".aws", "nltk_data"):
            (home / name).mkdir(parents=True)
        assert str(home) == os.path.expanduser("~") == os.environ["HOME"]
    """,
    "user": """
        import getpass, grp, pwd
        os.environ.pop("USER", None)
        assert getpass.getuser() == pwd.getpwuid(os.getuid()).pw_name == grp.getgrgid(os.getgid()).gr_name == "sluice"
        assert pwd.getpwuid(os.getuid()).pw_dir == os.environ["HOME"]
        assert subprocess.run(["id", "-un"], capture_output=True, text=True).stdout == "sluice\\n"
    """,
    "not root": """
        status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
        assert os.getuid() == os.getgid() == 10001 and os.getgroups() == []
        assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapInh")} == {0}
        assert status["NoNewPrivs"] == "1"
    """,
    "temporary files": """
        import sqlite3, tempfile
        with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as file:
            file.write(bytes(20 * 2**20))
            sqlite3.connect(os.path.join(folder, "a.db")).execute("create table a (b)")
    """,
    "locale": """
        import locale
        locale.setlocale(locale.LC_ALL, "")
        assert locale.getpreferredencoding() == sys.getfilesystemencoding().upper() == "UTF-8"
        assert subprocess.run(["locale", "charmap"], capture_output=True, text=True).stdout == "UTF-8\\n"
        open("/tmp/größe-日本", "w").write("größe, 日本")
        assert b"\\xc3\\xb6" in open("/tmp/größe-日本", "rb").read()
    """,
    "time zones": """
        import datetime, time, zoneinfo
        summer = datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
        assert summer.utcoffset() == datetime.timedelta(hours=2)
        os.environ["TZ"] = "Asia/Tokyo"
        time.tzset()
        assert time.tzname[0] == "JST"
    """,
    "certificates": """
        import ssl
        assert ssl.create_default_context().cert_store_stats()["x509_ca"] > 50
    """,
    "standard streams": """
        print("größe", file=sys.stderr)
        open("/dev/null", "w").write("a")
        assert len(open("/dev/urandom", "rb").read(16)) == 16
    """,
    "code is read-only, and an error names the file": """
        for path in ("out.csv", "/app/out.csv", "/etc/out.csv"):
            try:
                open(path, "w")
            except OSError as exc:
                assert str(exc) == f"[Errno 30] Read-only file system: {path!r}", exc
            else:
                raise AssertionError(path)
    """,
}
OF_TASKS = {
    "semaphores and pools": """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        with multiprocessing.get_context("fork").Pool(2) as pool, ProcessPoolExecutor(2) as executor:
            assert pool.map(abs, [-1, -2]) == list(executor.map(abs, [-1, -2])) == [1, 2]
        multiprocessing.Semaphore(), multiprocessing.Queue(), multiprocessing.Value("i", 1)
    """,
    "shared memory": """
        from multiprocessing.shared_memory import SharedMemory
        memory = SharedMemory(create=True, size=200 * 2**20)
        memory.buf[:] = bytes(200 * 2**20)
        memory.close()
        memory.unlink()
        assert os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize == 256 * 2**20
    """,
    "caches of 500 MiB": """
        with open(os.path.expanduser("~/model"), "wb") as file:
            for _ in range(500):
                file.write(bytes(2**20))
    """,
}


@pytest.fixture(scope="module")
def base() -> Path:
    """The root file system on which images are built. If it cannot be made, skip on a laptop and fail in CI."""
    try:
        return debian.root(BASE_SUITE, BASE_PACKAGES)
    except Unusable as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))


@pytest.fixture
def python(base: Path) -> Callable[[tuple[str, str], str], tuple[int, str]]:
    """A function that runs lines of Python in a pod; returns exit status and stderr."""

    def run(files: tuple[str, str], text: str) -> tuple[int, str]:
        dockerfile, deployment = (ROOT / name for name in files)
        lines = "\n".join(line.removeprefix(" " * 8) for line in text.splitlines())
        done = Pod(base, dockerfile, deployment).run("python3", "-", given=f"import os, subprocess, sys\n{lines}\n")
        return done.returncode, done.stderr

    return run


@pytest.mark.parametrize("what", EXPECTED)
@pytest.mark.parametrize("files", [WORKER, RECORDER, API], ids=["worker", "recorder", "api"])
def test_every_pod_provides(
    python: Callable[[tuple[str, str], str], tuple[int, str]], files: tuple[str, str], what: str
) -> None:
    text = EXPECTED[what].replace("20 * 2**20", "2**20") if files is RECORDER else EXPECTED[what]
    status, errors = python(files, text)
    assert status == 0, errors


@pytest.mark.parametrize("what", OF_TASKS)
def test_worker_pod_provides(python: Callable[[tuple[str, str], str], tuple[int, str]], what: str) -> None:
    status, errors = python(WORKER, OF_TASKS[what])
    assert status == 0, errors
