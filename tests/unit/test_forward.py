"""The port-forward stays open even if kubectl prints a lot."""

import sys
from pathlib import Path

import pytest

from ops import forward
from ops.servers.child import until

# Far more than a pipe holds, like the output for some thousand connections.
TALKATIVE = """#!{python}
import pathlib, time
print("Forwarding from 127.0.0.1:4711 -> 80", flush=True)
for number in range(20_000):
    print("Handling connection for 4711", flush=True)
pathlib.Path({said!r}).touch()
time.sleep(60)
"""
DEADLINE_S = 30


def test_forwarded_port_stays_open_while_kubectl_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl, said = tmp_path / "kubectl", tmp_path / "said"
    kubectl.write_text(TALKATIVE.format(python=sys.executable, said=str(said)))
    kubectl.chmod(0o755)
    monkeypatch.setattr(forward, "kubectl", lambda: kubectl)
    with forward.forwarded("data", "service/rabbitmq", 80) as port:
        assert port == 4711
        until(said.exists, DEADLINE_S, "all that kubectl says")
