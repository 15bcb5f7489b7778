"""A clone of this project for Flux to follow. Its origin is the artifact server, which the cluster's pods can reach."""

import shutil
import subprocess
import sys
from pathlib import Path

from minicluster.layout import NODE_ADDRESS
from minicluster.stand_ins.artifact_server import WEB_PORT
from ops.command import ROOT

TIMEOUT_S = 60
PLATFORM = "clusters/local/infrastructure/kustomization.yaml"
SECRETS = "components:\n  - secrets\n"
SOURCES = f"{SECRETS}  - ../../../minicluster/stand_ins/sources\n"


class Repository:
    """The clone, on branch main. Its commits go to the artifact server only."""

    def __init__(self, folder: Path, served: Path, address: str, environment: dict[str, str]) -> None:
        self.folder = folder
        self._environment = environment
        bare = served / "git" / f"{folder.name}.git"
        place = f"{WEB_PORT}/git/{bare.name}"
        shutil.rmtree(bare, ignore_errors=True)  # left by an earlier run on the same cluster
        _run("git", "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        _run("git", f"--git-dir={bare}", "config", "http.receivepack", "true")
        _run("git", "clone", "--quiet", f"file://{ROOT}", str(folder))
        self.git("checkout", "--quiet", "-B", "main")
        self.git("remote", "set-url", "origin", f"http://{NODE_ADDRESS}:{place}")  # the URL that Flux uses
        self.git("remote", "set-url", "--push", "origin", f"http://{address}:{place}")
        self.git("config", "user.name", "Sluice")
        self.git("config", "user.email", "sluice@localhost")
        self.edit(PLATFORM, SECRETS, SOURCES)
        self.commit("The charts are served beside this cluster")

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text that occurs exactly once in a file."""
        text = (self.folder / file).read_text()
        assert text.count(old) == 1, f"{file} contains {old!r} {text.count(old)} times instead of once"
        (self.folder / file).write_text(text.replace(old, new))

    def commit(self, message: str) -> str:
        """Commit everything and push it; returns the commit's hash."""
        self.git("add", "--all")
        self.git("commit", "--quiet", f"--message={message}")
        return self.push()

    def push(self) -> str:
        """Push the branch; returns the hash of its last commit."""
        self.git("push", "--quiet", "origin", "main")
        return self.git("rev-parse", "HEAD").strip()

    def git(self, *arguments: str) -> str:
        """Run git in the clone; returns its output."""
        return _run("git", "-C", str(self.folder), *arguments)

    def python(self, *arguments: str, timeout_s: float, **environment: str) -> str:
        """Run Python in the clone; returns its output. A make target there would install every package again first."""
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment | environment, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
