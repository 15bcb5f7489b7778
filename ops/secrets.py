"""Creates the Secrets that the manifests refer to, in the cluster of kubectl's context.

ops/sops.py creates the encrypted Secrets in git. Existing credentials are kept: a second run changes nothing.
"""

import base64
import json
from typing import Any

from apps.contract import redis_users
from ops import cluster, definitions
from ops.command import ROOT, command_line
from ops.credentials import Credentials
from ops.kustomize import rendered

BROKER = "rabbitmq.data.svc:5672"
REDIS = "redis.data.svc:6379"
# (namespace, Secret) -> workloads that read the Secret only at startup
READERS = {
    ("fastapi", "api"): ["deployment/api"],
    ("celery-workers", "worker"): ["deployment/celery-worker"],
    ("celery-workers", "recorder"): ["deployment/dead-letter-recorder"],
    ("celery-workers", "tool"): ["deployment/dead-letter-recorder"],
    ("data", "rabbitmq-auth"): ["statefulset/rabbitmq"],
    ("data", "rabbitmq-definitions"): ["statefulset/rabbitmq"],
    ("data", "redis-auth"): ["statefulset/redis"],
}


def contents(credentials: Credentials) -> dict[tuple[str, str], dict[str, str]]:
    """(namespace, name) -> the data of the Secret."""
    task_id_key = {"TASK_ID_KEY": credentials.task_id_key}
    return {
        ("fastapi", "api"): _urls(credentials, "api") | task_id_key | {"API_KEYS": credentials.api_keys},
        ("celery-workers", "worker"): _urls(credentials, "worker"),
        ("celery-workers", "recorder"): _urls(credentials, "recorder"),
        ("celery-workers", "tool"): _urls(credentials, "tool") | task_id_key,
        ("celery-workers", "rabbitmq-keda"): {"username": "keda", "password": credentials.broker_password_keda},
        ("data", "rabbitmq-auth"): {
            "password": credentials.broker_password_admin,
            "erlang-cookie": credentials.erlang_cookie,
        },
        ("data", "rabbitmq-definitions"): {"defs.json": json.dumps(definitions.of_cluster(credentials))},
        ("data", "redis-auth"): {
            "users.acl": "".join(f"{line}\n" for line in redis_users.acl(credentials.redis_passwords)),
            "probe-password": credentials.redis_password_default,
            "password": credentials.redis_password_admin,
        },
    }


def _urls(credentials: Credentials, user: str) -> dict[str, str]:
    """The URLs of the broker and Redis for one user."""
    return {
        "CELERY_BROKER_URL": credentials.broker_url(user, BROKER),
        "CELERY_RESULT_BACKEND": credentials.redis_url(user, REDIS),
    }


def manifests(credentials: Credentials) -> list[dict[str, Any]]:
    """The Secrets as Kubernetes objects."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "sluice"}},
            "type": "Opaque",
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
        }
        for (namespace, name), values in contents(credentials).items()
    ]


def main() -> None:
    """Create namespaces and Secrets, and restart the workloads whose Secrets have changed."""
    print(f"Secrets of the cluster in the context {cluster.check()}")
    before = _existing()
    made = manifests(Credentials.from_secrets(before))
    # client-side: a later `kubectl apply -k` warns of objects that were created in another way
    cluster.ask("apply", "--filename=-", text=listed(namespaces()))
    # server-side: the annotation of a client-side apply would be a second copy of each credential
    cluster.ask("apply", "--server-side", "--field-manager=sluice-secrets", "--filename=-", text=listed(made))
    old = {key_of(each): each.get("data") for each in before}
    for each in made:
        key = key_of(each)
        state = "made" if key not in old else "kept" if old[key] == each["data"] else "changed"
        print(f"  {state:8} {key[0]}/{key[1]}")
        if state != "kept":
            _restart(*key)
    print("The API's key: kubectl -n fastapi get secret api -o go-template='{{.data.API_KEYS | base64decode}}'")


def namespaces() -> list[dict[str, Any]]:
    """The Namespace objects of the Secrets, rendered from the manifests."""
    wanted = {namespace for namespace, _ in contents(Credentials())}
    objects = [each for path in ("kustomize/base", "helm-releases") for each in rendered(ROOT / path)]
    return [each for each in objects if each["kind"] == "Namespace" and each["metadata"]["name"] in wanted]


def _existing() -> list[dict[str, Any]]:
    """Our Secrets that exist in the cluster."""
    ours = "--selector=app.kubernetes.io/part-of=sluice"
    answer = json.loads(cluster.ask("get", "secrets", "--all-namespaces", "--output=json", ours))
    return [each for each in answer["items"] if key_of(each) in contents(Credentials())]


def key_of(secret: dict[str, Any]) -> tuple[str, str]:
    """A Secret's namespace and name."""
    return secret["metadata"]["namespace"], secret["metadata"]["name"]


def listed(objects: list[dict[str, Any]]) -> str:
    """A List for kubectl's standard input: other processes of the machine can read command lines."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def _restart(namespace: str, name: str) -> None:
    for workload in READERS.get((namespace, name), []):
        if cluster.has(workload, f"--namespace={namespace}"):
            print(f"           restarting {workload}, which reads the Secret at startup")
            cluster.ask("rollout", "restart", workload, f"--namespace={namespace}")


if __name__ == "__main__":
    command_line(main)
