"""Every download is pinned by a hash or digest, or verified by a signature."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from ops import pins, tools
from ops.command import ROOT, Unusable
from ops.requirements.lock import LOCKS
from ops.servers import debian
from ops.validate.tree import render

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
HASHED = "--require-hashes"
TEXT = {".py", ".mk", ".yaml", ".yml", ".toml", ".sh", ""}
# Kinds of downloads that are secure, with the reason. A new kind fails the tests below: pin its download.
ALLOWED = {
    # apt and debootstrap verify the archive's signature
    r"apt-get[\"', ]+(install|update)|_apt\(|apt_install\(": "signed by the archive's key",
    r"\bdebootstrap\b": "signed by the archive's key: --force-check-gpg",
}
FILES_OF_DEBOOTSTRAP = {"ops/servers/debian.py", ".github/workflows/ci.yaml"}
# (file, text) of installations without a hash, with the reason
EXCEPTIONS = {
    ("Makefile", "--editable . --editable ./planner"): "the project itself: --no-deps",
    ("Makefile", "--no-deps --no-build-isolation --reinstall"): "the planner: --no-deps",
}
DOWNLOADERS = re.compile(
    r"\b(curl|wget|urlretrieve|npm|pip|helm pull|git clone|go get|go install|skopeo|cargo) |\bgo\(\"(install|get|mod)\""
    r"|\"(pull|clone|download|urlretrieve)\"|urlopen\(|httpx\.(get|stream)\("
)
# Files with lines that look like a download, with the reason why they are harmless.
HARMLESS = {
    "ops/charts/__main__.py": "charts by exact version, signed ones with helm-releases/components/verify",
    "ops/images.py": "pushes",
    "ops/tools.py": "go with go.sum, or the sums in pins.py; pip with hashes: the tests below",
    "ops/charts/controller_keys.py": "reads a checkout",
    "ops/apt.py": "apt",
    "loadtest/cluster_target.py": "asks the API inside of its own pod",
    "ops/up.py": "prints a command",
    "planner/src/sluice_planner/service_times.py": "asks a Prometheus that its user names",
}
CODE = ("apps", "bench", "loadtest", "ops", "planner", ".ci", ".github", "Makefile", "compose.yaml")


def listed() -> list[Path]:
    """Return the files of the project that could download something, without the tests, which use their own servers."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *CODE]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return [ROOT / name for name in names if Path(name).suffix in TEXT and (ROOT / name).is_file()]


def lines_of(pattern: re.Pattern[str], files: list[Path]) -> Iterator[tuple[str, str]]:
    """Yield (file, line) of each match, also in comments and docstrings, as a person may copy these."""
    for path in files:
        text = path.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            if pattern.search(line):
                yield str(path.relative_to(ROOT)), line.strip()


def test_pip_and_uv_install_only_with_hashes() -> None:
    install = re.compile(r"\bpip\"?,? \"?install|uv\"?,? \"?pip\"?,? \"?(install|sync)")
    found = [
        (file, line)
        for file, line in lines_of(install, listed())
        if HASHED not in line and not any(file == name and text in line for name, text in EXCEPTIONS)
    ]
    # ops/tools.py has the option on the line above
    assert {file for file, _ in found} <= {"ops/tools.py"}
    assert HASHED in (ROOT / "ops" / "tools.py").read_text()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_in_a_lock_file_has_hashes(lock: object) -> None:
    text = lock.path(ROOT).read_text()  # type: ignore[attr-defined]
    pins_ = re.findall(r"^[\w.-]+(?:\[[^]]+\])?==.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", text, re.MULTILINE)
    assert len(pins_) == len(re.findall(r"^[\w.-]+.*==", text, re.MULTILINE)) > 0


@pytest.mark.parametrize("name", pins.PROGRAMS)
def test_every_go_program_is_built_from_modules_with_sums(name: str) -> None:
    package, version = pins.PROGRAMS[name]
    text = (tools.MODULES / name / "go.mod").read_text()
    sums = (tools.MODULES / name / "go.sum").read_text()
    assert f"tool {package}\n" in text
    required = dict(re.findall(r"^\t([\w./-]+) (v\S+)", text, re.MULTILINE))
    (module,) = (each for each in required if package == each or package.startswith(f"{each}/"))
    assert required[module] == version
    for each, its_version in required.items():
        assert f"{each} {its_version} h1:" in sums or f"{each} {its_version}/go.mod h1:" in sums
    assert f"{module} {version} h1:" in sums


def test_go_program_with_another_sum_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "age-keygen"
    folder.mkdir()
    for file in ("go.mod", "go.sum"):
        text = (tools.MODULES / "age-keygen" / file).read_text()
        (folder / file).write_text(re.sub(r"(filippo.io/age v\S+ h1:)\w{5}", r"\1wrong", text))
    monkeypatch.setattr(tools, "MODULES", tmp_path)
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    monkeypatch.setenv("GONOSUMDB", "*")
    with pytest.raises(Unusable, match=r"go build|checksum|SECURITY"):
        tools.built("age-keygen")
    assert not (tmp_path / "cache" / "age-keygen-v1.3.2").exists()


def test_modules_of_crds_are_verified_by_their_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(pins.CRD_SUMS) == set(pins.CRD_MODULES)
    first = pins.CRD_MODULES[0]
    monkeypatch.setitem(pins.CRD_SUMS, first, "h1:another")
    with pytest.raises(Unusable, match="does not match its checksum in ops/pins"):
        tools.module_folders()


def test_every_go_module_has_a_go_sum() -> None:
    modules = [path for path in ROOT.rglob("go.mod") if ".venv" not in path.parts and ".local" not in path.parts]
    assert len(modules) > len(pins.PROGRAMS)
    assert all(path.with_name("go.sum").exists() for path in modules)


def test_every_image_is_pinned_by_its_digest() -> None:
    found: dict[str, str] = {}
    for path in listed():
        name = str(path.relative_to(ROOT))
        if path.name == "Dockerfile":
            text = path.read_text()
            bases = re.findall(r"^ARG BASE=(\S+)", text, re.MULTILINE)
            bases += [each for each in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if each != "${BASE}"]
            bases += re.findall(r"COPY --from=(\S+[/:]\S+)", text)
            found |= {f"{name}: {each}": each for each in bases}
        if path.name == "compose.yaml":
            services = yaml.safe_load(path.read_text())["services"]
            found |= {f"{name}: {each}": service["image"] for each, service in services.items()}
    assert len(found) >= 5
    assert [where for where, image in found.items() if not DIGEST.search(image)] == []


def test_every_other_download_is_listed() -> None:
    unknown = {
        (file, line)
        for file, line in lines_of(DOWNLOADERS, listed())
        if file not in HARMLESS
        and HASHED not in line
        and not any(file == name and text in line for name, text in EXCEPTIONS)
        and not re.search("|".join(ALLOWED), line)
        and not re.search(r"https?://(localhost|127\.0\.0\.1)|^#", line)
    }
    assert unknown == set()


def test_no_source_of_flux_uses_plain_http() -> None:
    """Charts and git: Flux applies their content with the rights of the cluster's administrator."""
    objects = render(ROOT, ["helm-releases", "clusters/local"]).objects()
    sources = [each for each in objects if each.kind in {"HelmRepository", "OCIRepository", "GitRepository", "Bucket"}]
    assert sources
    for each in sources:
        assert urlsplit(each.spec["url"]).scheme in {"https", "oci", "ssh"}
        assert not each.spec.get("insecure")


def test_debootstrap_verifies_signatures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, "Debian Debian https://mirror.example/debian\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    debian._debootstrap(tmp_path, "forky", ["nginx"])  # noqa: SLF001 - the only access to its command line
    (command,) = (each for each in asked if "debootstrap" in each)
    assert "--force-check-gpg" in command
    assert f"--keyring={debian.KEYRING}" in command
    assert not any("no-check" in word for word in command)


def test_no_verification_of_signatures_or_certificates_is_disabled() -> None:
    off = re.compile(
        r"allow-unauthenticated|AllowInsecureRepositories|trusted=yes|no-check-gpg|--insecure\b|verify=False|"
        r"CERT_NONE|_create_unverified_context|GONOSUMCHECK|GOSUMDB=off|--trusted-host|strict-ssl|http\.sslVerify"
    )
    found = {file for file, _ in lines_of(off, listed())}
    assert found == {"ops/validate/policy.py"}  # it searches manifests for these options
