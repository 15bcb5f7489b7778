"""Queries the cluster of kubectl's current context."""

import base64
import json

from ops.command import Unusable, output
from ops.tools import kubectl

TIMEOUT_S = 60
ANSWER_TIMEOUT_S = 10


def check() -> str:
    """The name of the current context. Raises Unusable if there is none, or if its cluster does not answer."""
    program = kubectl()
    try:
        context = output(program, "config", "current-context", timeout_s=TIMEOUT_S).strip()
    except Unusable:
        raise Unusable(
            "kubectl points to no cluster: start one, or select one with `kubectl config use-context`."
        ) from None
    try:
        ask("get", "--raw=/readyz", timeout_s=ANSWER_TIMEOUT_S)
    except Unusable as exc:
        reason = (str(exc).partition(" failed: ")[2] or str(exc)).rstrip(".")
        raise Unusable(
            f"The cluster of the context {context} does not answer ({reason}): start it, or select another one with "
            "`kubectl config use-context`."
        ) from None
    return context


def ask(*arguments: str, text: str | None = None, timeout_s: float = TIMEOUT_S) -> str:
    """Run kubectl with `text` as standard input, and return its output. Raises Unusable if it fails or times out."""
    command = (*arguments, f"--request-timeout={timeout_s:g}s")
    return output(kubectl(), *command, timeout_s=timeout_s + TIMEOUT_S, text=text)


def has(*arguments: str) -> bool:
    """Whether the cluster has an object, for example `has("secret", "api", "--namespace=fastapi")`.

    Raises Unusable if the cluster does not answer.
    """
    return bool(ask("get", *arguments, "--ignore-not-found", "--output=name").strip())


def secret(namespace: str, name: str) -> dict[str, str]:
    """The decoded data of a Secret. Raises Unusable if the cluster has no such Secret."""
    data = json.loads(ask("get", "secret", name, f"--namespace={namespace}", "--output=json"))["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def ingress_host() -> str:
    """The host of the API's Ingress, which requests to NGINX's address must send as their Host header.

    For a wildcard host, this is one host name that matches. Raises Unusable if the cluster has no such Ingress.
    """
    ingress = json.loads(ask("get", "ingress", "api", "--namespace=fastapi", "--output=json"))
    host: str = ingress["spec"]["rules"][0].get("host", "")
    return host.replace("*", "any", 1)
