"""Save the state of the cluster when a test fails: build/e2e/failure/<test>/."""

import re
import shutil
from pathlib import Path

from minicluster.state import LOGS
from ops.command import ROOT, Unusable, answers, output
from ops.tools import kubectl
from tests.e2e import objects

FOLDER = ROOT / "build" / "e2e" / "failure"
NAMESPACES = ("fastapi", "celery-workers", "data", "keda", "nginx", "load", "flux-system", "kube-system")
QUEUES = ("rabbitmqctl", "list_queues", "name", "type", "state", "messages", "messages_unacknowledged", "consumers")
LOG_LINES = 2000
TIMEOUT_S = 60


def collect(test: str) -> str:
    """Save events, objects, logs and descriptions of pods, queues, and the node's logs; returns where they are."""
    folder = FOLDER / re.sub(r"[^\w.-]", "_", test)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    # if the cluster has ended, each of the many queries would wait for its timeout
    if answers(kubectl(), "get", "--raw=/readyz"):
        _ask(folder)
    servers = objects.kubeconfig().parent / LOGS
    if servers.exists():
        shutil.copytree(servers, folder / "node", ignore=shutil.ignore_patterns("pods", "containers"))
    return f"The state of the cluster is in {folder.relative_to(ROOT)}."


def _ask(folder: Path) -> None:
    questions = {
        "events.txt": ("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"),
        "objects.txt": ("get", "all,pvc,ingress,networkpolicy", "--all-namespaces", "--output=wide"),
        "nodes.txt": ("describe", "nodes"),
        "scaling.yaml": ("get", "scaledobjects.keda.sh,hpa", "--all-namespaces", "--output=yaml"),
        "queues.txt": ("exec", "--namespace=data", "rabbitmq-0", "--", *QUEUES),
    }
    for name, question in questions.items():
        (folder / name).write_text(_answer(*question))
    for namespace in NAMESPACES:
        (folder / f"{namespace}-pods.txt").write_text(_answer("describe", "pods", f"--namespace={namespace}"))
        for pod in _answer("get", "pods", f"--namespace={namespace}", "--output=name").split():
            _logs(namespace, pod, folder)


def _logs(namespace: str, pod: str, folder: Path) -> None:
    where = (pod, f"--namespace={namespace}", "--all-containers", f"--tail={LOG_LINES}")
    name = f"{namespace}-{pod.removeprefix('pod/')}"
    (folder / f"{name}.log").write_text(_answer("logs", *where))
    before = _answer("logs", *where, "--previous")
    if "previous terminated container" not in before:
        (folder / f"{name}.before.log").write_text(before)


def _answer(*question: str) -> str:
    """Return the cluster's answer, or the error as text: one failed query must not hide the other answers."""
    try:
        return output(kubectl(), *question, timeout_s=TIMEOUT_S)
    except Unusable as exc:
        return str(exc)
