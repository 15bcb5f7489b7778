"""The cluster that kubectl points to: whether it answers, and what it is asked."""

import base64
import json

from ops.command import Unusable, output
from ops.tools import kubectl

TIMEOUT_S = 60
ANSWER_TIMEOUT_S = 10


def check() -> str:
    """The context of the cluster. Unusable, with one sentence, if there is none or it does not answer."""
    program = kubectl()
    try:
        context = output(program, "config", "current-context", timeout_s=TIMEOUT_S).strip()
    except Unusable:
        raise Unusable(
            "kubectl points to no cluster: start one, or choose one by `kubectl config use-context`."
        ) from None
    try:
        ask("get", "--raw=/readyz", timeout_s=ANSWER_TIMEOUT_S)
    except Unusable as exc:
        reason = (str(exc).partition(" failed: ")[2] or str(exc)).rstrip(".")
        raise Unusable(
            f"The cluster of the context {context} does not answer ({reason}): start it, or choose another by "
            "`kubectl config use-context`."
        ) from None
    return context


def ask(*arguments: str, text: str | None = None, timeout_s: float = TIMEOUT_S) -> str:
    """What kubectl answers; `text` is its standard input. Unusable if it fails or takes too long."""
    command = (*arguments, f"--request-timeout={timeout_s:g}s")
    return output(kubectl(), *command, timeout_s=timeout_s + TIMEOUT_S, text=text)


def has(*arguments: str) -> bool:
    """Whether the cluster, which answers, has an object: `has("secret", "api", "--namespace=fastapi")`."""
    return bool(ask("get", *arguments, "--ignore-not-found", "--output=name").strip())


def secret(namespace: str, name: str) -> dict[str, str]:
    """What a Secret holds, decoded. Unusable if the cluster has no such Secret."""
    data = json.loads(ask("get", "secret", name, f"--namespace={namespace}", "--output=json"))["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def ingress_host() -> str:
    """The host that the API's Ingress serves: the Host header of every request to NGINX's address.

    Below a wildcard, one of its names. Unusable if the cluster has no such Ingress.
    """
    ingress = json.loads(ask("get", "ingress", "api", "--namespace=fastapi", "--output=json"))
    host: str = ingress["spec"]["rules"][0].get("host", "")
    return host.replace("*", "any", 1)
