"""Runs a command as in a pod, with the user, environment, files and mounts that a Dockerfile and a manifest define.

    root file system of a base -> RUN of the last stage -> read-only -> emptyDirs of the manifest -> the command

Without the packages in /venv and the code in /app. Needs Linux and root.
"""

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ops.command import Unusable

TIMEOUT_S = 120
UNLIMITED = "1Gi"
SHM = "/dev/shm"  # noqa: S108 - the pod's
SHM_SIZE = "64Mi"  # the default of container runtimes
DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True)
class Pod:
    """A container of a base image, a Dockerfile and the first container of a Deployment."""

    base: Path
    dockerfile: Path
    deployment: Path

    def run(self, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in the pod, with `given` as its stdin. Unusable unless we are root."""
        if os.geteuid() != 0:
            raise Unusable("A pod's file system is mounted by root: run this as root.")
        script = "\n".join(("set -e", *self._mounts(), f"exec chroot $R {shlex.join(self._process(command))}"))
        # in its own namespaces, so that its mounts and processes end with it
        own = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")
        return subprocess.run(
            [*own, "sh", "-c", script], input=given, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )

    def _mounts(self) -> list[str]:
        """Return shell commands that build the file system at $R."""
        work = "/mnt"  # the first mount covers it, only in our own namespace
        lines = [f"mount -t tmpfs none {work}", f"cd {work}", "mkdir upper work root", f"R={work}/root"]
        lines += [f"mount -t overlay none -o lowerdir={self.base},upperdir=upper,workdir=work $R"]
        lines += [f"chroot $R sh -c {shlex.quote(text)}" for text in self._instructions("RUN")]
        lines += [f"mkdir -p $R{self._workdir}", "mount -o remount,ro $R"]
        lines += ["mount -t proc none $R/proc", "mount -t tmpfs -o mode=755 none $R/dev", f"mkdir $R{SHM}"]
        lines += [f"touch $R/dev/{name} && mount --bind /dev/{name} $R/dev/{name}" for name in DEVICES]
        for path, size in ({SHM: SHM_SIZE} | self._volumes).items():
            lines.append(f"mount -t tmpfs -o mode=777,size={size.removesuffix('i').lower()} none $R{path}")
        return lines

    def _process(self, command: tuple[str, ...]) -> list[str]:
        """Return the command with the container's user, rights, working directory and environment."""
        user, _, group = self._instructions("USER")[-1].partition(":")
        security = self._container["securityContext"]
        dropped = ["--bounding-set=-all", "--inh-caps=-all"] if security["capabilities"]["drop"] == ["ALL"] else []
        rights = ["--no-new-privs"] if security["allowPrivilegeEscalation"] is False else []
        numbers = [f"--reuid={user}", f"--regid={group}", "--clear-groups", *rights, *dropped]
        return [
            *("setpriv", *numbers, "--", "env", "--ignore-environment", f"--chdir={self._workdir}"),
            *(f"{name}={value}" for name, value in self.environment.items()),
            *command,
        ]

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the image and of the manifest, without the variables that Secrets set."""
        found = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        for text in self._instructions("ENV"):
            for word in shlex.split(text):
                name, _, value = word.partition("=")
                found[name] = value.replace("$PATH", found["PATH"])
        return found | {each["name"]: each["value"] for each in self._container.get("env", []) if "value" in each}

    @property
    def _workdir(self) -> str:
        return self._instructions("WORKDIR")[-1]

    @property
    def _volumes(self) -> dict[str, str]:
        """Mount path of each emptyDir -> its size."""
        empty = {each["name"]: each["emptyDir"] for each in self._spec["volumes"] if "emptyDir" in each}
        return {
            each["mountPath"]: empty[each["name"]].get("sizeLimit", UNLIMITED)
            for each in self._container["volumeMounts"]
            if each["name"] in empty
        }

    def _instructions(self, name: str) -> list[str]:
        """Return the instructions of this name in the Dockerfile's last stage."""
        last = re.split(r"^FROM ", self.dockerfile.read_text(), flags=re.MULTILINE)[-1]
        return re.findall(rf"^{name} (.+)$", last.replace("\\\n", ""), re.MULTILINE)

    @property
    def _spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = yaml.safe_load(self.deployment.read_text())["spec"]["template"]["spec"]
        return spec

    @property
    def _container(self) -> dict[str, Any]:
        container: dict[str, Any] = self._spec["containers"][0]
        return container
