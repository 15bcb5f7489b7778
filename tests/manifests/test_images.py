"""Images and releases. Stand-ins replace the build programs: the tests check their command lines."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops import images
from ops.command import ROOT, Unusable
from ops.images import API_DOCKERFILE, dockerfile_command, uvicorn_options
from ops.release import set_version
from ops.servers import processes
from ops.servers.endpoints import Folder
from ops.servers.processes import IMAGE_ENVIRONMENT
from ops.tools import packaged
from ops.validate.pods import pods
from ops.validate.tree import render

RECORD = '#!/bin/sh\necho "$(basename "$0") $*" >> "$RECORD"\n'


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to which the stand-ins write their command lines; the PATH contains nothing but them and basic tools."""
    (tmp_path / "bin").mkdir()
    for name in ("sh", "basename", "git", "env"):
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    return tmp_path / "record"


def stand_in(record: Path, name: str, script: str = RECORD) -> None:
    """Put a stand-in program on the PATH."""
    path = record.parent / "bin" / name
    path.write_text(script)
    path.chmod(0o755)


def test_missing_build_program_is_reported(record: Path) -> None:
    assert not record.exists()
    with pytest.raises(Unusable, match=r"docker \(with its engine running\), podman or buildah"):
        images.engine()


def test_docker_without_a_running_engine_is_skipped(record: Path) -> None:
    stand_in(record, "docker", "#!/bin/sh\nexit 1\n")
    stand_in(record, "buildah")
    assert images.engine() == "buildah"


@pytest.mark.parametrize("engine", ["docker", "podman", "buildah"])
def test_both_images_are_built_with_their_names(record: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(record, engine)
    monkeypatch.setenv("BASE", "localhost/base@sha256:1")
    images.build(images.full_names("1.2.3", "registry.example.com/team/"))
    builds = [line for line in record.read_text().splitlines() if " build " in line]
    layers = "--layers " if engine == "buildah" else ""
    assert builds == [
        f"{engine} build {layers}--build-arg BASE=localhost/base@sha256:1 --file apps/{name}/Dockerfile "
        f"--tag registry.example.com/team/sluice-{name}:1.2.3 ."
        for name in ("api", "worker")
    ]


def pulled(image: str) -> str:
    """Return the full name that a cluster pulls: the default registry is Docker Hub, its default folder `library`."""
    first, slash, _ = image.partition("/")
    return image if slash and ("." in first or ":" in first) else f"docker.io/library/{image}"


def deployed_by(root: Path) -> set[str]:
    """Return the images of the overlays' pods."""
    tree = render(root, ["kustomize/overlays/local", "kustomize/overlays/load"])
    return {
        pulled(container["image"])
        for each in tree.objects("Deployment")
        for pod in pods(each)
        for _, container in pod.containers()
    }


@pytest.mark.parametrize("registry", [None, "registry.example.com/team"])
def test_built_images_are_those_of_the_pods(tmp_path: Path, registry: str | None) -> None:
    shutil.copytree(ROOT / "kustomize", tmp_path / "kustomize")
    set_version("1.2.3", registry, tmp_path)
    assert images.deployed(tmp_path) == images.full_names("1.2.3", registry)
    assert set(images.deployed(tmp_path).values()) == deployed_by(tmp_path)


def test_overlays_with_different_versions_are_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kustomize", tmp_path / "kustomize")
    path = tmp_path / "kustomize/overlays/load/kustomization.yaml"
    path.write_text(path.read_text().replace("newTag: 0.1.0", "newTag: 0.2.0", 1))
    with pytest.raises(Unusable, match=r"do not all deploy the same sluice-api \(.*0\.1\.0, .*0\.2\.0\)"):
        images.deployed(tmp_path)


@pytest.mark.parametrize(
    ("engine", "commands"),
    [
        ("docker", ["kind load docker-image docker.io/library/a:1 docker.io/library/b:1"]),
        ("podman", ["podman save --multi-image-archive", "kind load image-archive sluice.tar"]),
        (
            "buildah",
            ["docker-archive:a.tar:docker.io/library/a:1", "docker load --input a.tar", "k3d image import a.tar"],
        ),
    ],
)
def test_commands_that_load_the_images_into_a_cluster_are_printed(engine: str, commands: list[str]) -> None:
    text = "\n".join(images.into_cluster(engine, ["docker.io/library/a:1", "docker.io/library/b:1"]))
    assert [command for command in commands if command not in text] == []


def test_release_changes_the_images_of_every_overlay(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kustomize", tmp_path / "kustomize")
    set_version("1.2.3-rc.1", "registry.example.com/team", tmp_path)
    assert deployed_by(tmp_path) == {
        f"registry.example.com/team/sluice-{name}:1.2.3-rc.1" for name in ("api", "worker")
    }


def test_release_without_a_registry_removes_the_earlier_one(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kustomize", tmp_path / "kustomize")
    before = {path: path.read_text() for path in tmp_path.glob(images.OVERLAYS)}
    set_version("9.9.9", "registry.example.com", tmp_path)
    set_version("0.1.0", None, tmp_path)
    assert {path: path.read_text() for path in tmp_path.glob(images.OVERLAYS)} == before


def release(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `make release` in a clone."""
    command = [sys.executable, "-m", "ops.release", *arguments]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def clone(tmp_path: Path, record: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with the files that a release needs, and a docker stand-in."""
    folder = tmp_path / "clone"
    for name in ("apps", "kustomize", "ops"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text("__pycache__/\n")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "test")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "test@example.com")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message=start"]):
        subprocess.run(["git", *command], cwd=folder, check=True, timeout=60)
    stand_in(record, "docker")
    return folder


def test_release_builds_pushes_and_commits(clone: Path, record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY", "registry.example.com/team")
    done = release(clone, "1.2.3")
    assert done.returncode == 0, done.stderr
    pushes = [line for line in record.read_text().splitlines() if " push " in line]
    assert pushes == [f"docker push registry.example.com/team/sluice-{name}:1.2.3" for name in ("api", "worker")]
    log = subprocess.run(["git", "show", "--format=%s", "--name-only"], cwd=clone, capture_output=True, check=True)
    assert log.stdout.decode().split() == [
        "Release",
        "1.2.3",
        "kustomize/overlays/load/kustomization.yaml",
        "kustomize/overlays/local/kustomization.yaml",
    ]


def test_release_without_a_registry_does_not_push(clone: Path, record: Path) -> None:
    assert release(clone, "1.2.3").returncode == 0
    assert " push " not in record.read_text()


@pytest.mark.parametrize("version", ["latest", "1.2", "v1.2.3", "1.2.3 --force", ""])
def test_invalid_version_is_refused(clone: Path, version: str) -> None:
    done = release(clone, version)
    assert done.returncode == 1
    assert "is not a version" in done.stderr


def test_release_with_uncommitted_files_is_refused(clone: Path, record: Path) -> None:
    (clone / "apps" / "new.py").write_text("")
    done = release(clone, "1.2.3")
    assert (done.returncode, record.exists()) == (1, False)
    assert "uncommitted changes" in done.stderr


def test_failed_build_commits_nothing(clone: Path, record: Path) -> None:
    stand_in(record, "docker", '#!/bin/sh\ntest "$1" = info\n')
    assert release(clone, "1.2.3").returncode == 1
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, check=True)
    assert status.stdout == b""


@pytest.mark.parametrize("dockerfile", images.IMAGES.values())
def test_hadolint_reports_nothing(dockerfile: str) -> None:
    command = [str(packaged("hadolint")), "--failure-threshold", "style", dockerfile]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", images.IMAGES.values())
def test_server_is_pid_1_and_not_root(dockerfile: str) -> None:
    assert dockerfile_command(ROOT, dockerfile)[:2] == ["python", "-m"]
    lines = (ROOT / dockerfile).read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    assert not any(line.startswith("ENTRYPOINT") for line in lines)


@pytest.mark.parametrize("dockerfile", images.IMAGES.values())
def test_server_accepts_every_option_of_its_image(dockerfile: str) -> None:
    command = [sys.executable, *dockerfile_command(ROOT, dockerfile)[1:], "--help"]
    environment = {
        "CELERY_BROKER_URL": "amqp://worker:long-and-secret@localhost",
        "CELERY_RESULT_BACKEND": "redis://localhost",
    }
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_api_runs_locally_with_the_options_of_its_image(tmp_path: Path) -> None:
    code = tmp_path / "code"
    (code / API_DOCKERFILE).parent.mkdir(parents=True)
    (code / API_DOCKERFILE).write_text('CMD ["python", "-m", "uvicorn", "app", "--port", "8000", "--backlog", "7"]\n')
    folder = Folder(tmp_path / "data")
    here = processes.api(folder, {}, "http://127.0.0.1:1").child.command
    there = processes.api(folder, {}, "http://127.0.0.1:1", code=code).child.command
    assert here[-len(uvicorn_options()) :] == dockerfile_command(ROOT, API_DOCKERFILE)[-len(uvicorn_options()) :]
    assert "--no-proxy-headers" in here
    assert there[-2:] == ["--backlog", "7"]


@pytest.mark.parametrize("dockerfile", images.IMAGES.values())
def test_image_installs_only_requirements_with_hashes(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text()
    assert text.count(" pip install ") == text.count("--require-hashes") == 2
    for name in ("uv.txt", "api.txt" if "api" in dockerfile else "worker.txt"):
        assert name in text
        assert "--hash=sha256:" in (ROOT / "requirements" / name).read_text()


def test_only_apps_and_requirements_reach_the_builder() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules == ["*", "!apps", "!requirements", "**/__pycache__", "apps/tasks/*/test_*.py"]


@pytest.mark.parametrize("dockerfile", images.IMAGES.values())
def test_processes_run_locally_with_the_environment_of_their_image(dockerfile: str) -> None:
    lines = (ROOT / dockerfile).read_text().splitlines()
    assert [line for line in lines if line.startswith("ENV GLIBC")] == [
        f"ENV {variable}={value}" for variable, value in IMAGE_ENVIRONMENT.items()
    ]
