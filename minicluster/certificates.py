"""Creates the certificates of a cluster with its own certificate authority, and kubeconfigs."""

import base64
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

TIMEOUT_S = 30
DAYS = "7"
KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def make(folder: Path, addresses: Sequence[str]) -> None:
    """Create the keys and certificates of the servers in a new folder. `addresses`: the API server's IP addresses."""
    folder.mkdir(parents=True)
    names = ["DNS:localhost", "DNS:kubernetes.default.svc", *(f"IP:{address}" for address in addresses)]
    _openssl(
        "req", "-x509", *KEY, "-days", DAYS, "-subj", "/CN=sluice-test", "-addext", "keyUsage=critical,keyCertSign",
        "-keyout", folder / "ca.key", "-out", folder / "ca.crt",
    )  # fmt: skip
    _signed(folder, "apiserver", "/CN=kube-apiserver", f"subjectAltName={','.join(names)}")
    # for people, for the controllers, and for the API server as a client of the kubelet
    _signed(folder, "admin", "/O=system:masters/CN=admin")
    _signed(folder, "node", "/O=system:nodes/CN=system:node:node")
    _signed(folder, "front-proxy", "/CN=front-proxy")
    _openssl("genrsa", "-out", folder / "service-account.key", "2048")
    _openssl(
        "rsa", "-in", folder / "service-account.key", "-pubout", "-out", folder / "service-account.pub",
    )  # fmt: skip


def kubeconfig(folder: Path, who: str, server: str) -> str:
    """The kubeconfig of the user `who` for the API server at the URL `server`, as JSON, which is valid YAML."""
    cluster = {"server": server, "certificate-authority-data": _data(folder / "ca.crt")}
    user = {
        "client-certificate-data": _data(folder / f"{who}.crt"),
        "client-key-data": _data(folder / f"{who}.key"),
    }
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sluice-test",
            "contexts": [{"name": "sluice-test", "context": {"cluster": "sluice-test", "user": who}}],
            "clusters": [{"name": "sluice-test", "cluster": cluster}],
            "users": [{"name": who, "user": user}],
        }
    )


def _signed(folder: Path, name: str, subject: str, extension: str = "extendedKeyUsage=clientAuth") -> None:
    _openssl(
        "req", "-x509", *KEY, "-days", DAYS, "-subj", subject, "-CA", folder / "ca.crt", "-CAkey", folder / "ca.key",
        "-addext", extension, "-addext", "basicConstraints=critical,CA:FALSE",
        "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt",
    )  # fmt: skip


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=TIMEOUT_S)
