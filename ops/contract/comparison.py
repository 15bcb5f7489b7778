"""Classifies changes of the contract by their effect on queued tasks, on workers of the last version, and on clients.

inputs    narrower   BREAKING: queued tasks and clients' requests are refused
          wider      harmless if workers are rolled out first: old workers refuse inputs that only the new API accepts
outputs   wider      BREAKING: clients receive values that they do not know
          narrower   harmless
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ops.contract.json_schemas import Change, Comparison

_WAITING = "queued tasks and clients of the last version are refused"
_CLIENTS = "clients of the last version do not know it"
_WORKERS_FIRST = "roll the workers out first (`make deploy` and Flux do), and the API first in a rollback"
_METHODS = {"get", "post", "put", "delete", "patch", "head", "options"}


class Finding(NamedTuple):
    """One change of the contract. `meaning` is its consequence, or empty if it has none."""

    breaking: bool
    where: str
    text: str
    meaning: str

    def __str__(self) -> str:
        kind = "BREAKING" if self.breaking else "changed"
        return f"{kind}: {self.where}: {self.text}" + (f"; {self.meaning}" if self.meaning else "")


def _breaking(where: str, text: str, meaning: str) -> Finding:
    return Finding(breaking=True, where=where, text=text, meaning=meaning)


def _harmless(where: str, text: str, meaning: str) -> Finding:
    return Finding(breaking=False, where=where, text=text, meaning=meaning)


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Finding]:
    """Every change between two contracts, breaking changes first."""
    found = [*_tasks(old["tasks"], new["tasks"]), *_queues(old, new), *_openapi(old["openapi"], new["openapi"])]
    return sorted(dict.fromkeys(found), key=lambda each: (not each.breaking, each.where))


def _tasks(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Finding]:
    for name in sorted(old.keys() - new.keys()):
        yield _breaking(name, "the task is gone, or has another name or queue", _WAITING)
    for name in sorted(new.keys() - old.keys()):
        yield _harmless(name, "the task is new", _WORKERS_FIRST)
    for name in sorted(old.keys() & new.keys()):
        yield from _inputs(
            old[name]["input"], new[name]["input"], f"{name} input", old[name]["input"], new[name]["input"]
        )
        before, after = old[name]["output"], new[name]["output"]
        yield from _outputs(before, after, f"{name} output", before, after)


def _inputs(old: Any, new: Any, where: str, before: Any, after: Any) -> Iterator[Finding]:
    for change in Comparison(before, after).changes(old, new, where):
        narrower = change.effect == "narrower"
        yield Finding(narrower, change.where, change.text, _WAITING if narrower else _WORKERS_FIRST)


def _outputs(old: Any, new: Any, where: str, before: Any, after: Any) -> Iterator[Finding]:
    for change in Comparison(before, after).changes(old, new, where):
        breaking = _breaks_readers(change)
        yield Finding(breaking, change.where, change.text, _CLIENTS if breaking else "")


def _breaks_readers(change: Change) -> bool:
    if change.text == "the field is new":  # clients ignore fields that they do not know
        return False
    return change.effect == "wider" or change.text == "the field is gone"


def _queues(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Finding]:
    if new["form"] != old["form"]:
        yield _harmless("message", f"its form was {old['form']} and is {new['form']}", _WORKERS_FIRST)
    for queue in sorted(set(old["queues"]) - set(new["queues"])):
        yield _breaking(queue, "the queue is gone", "no worker consumes the tasks that wait in it")
    for queue in sorted(set(new["queues"]) - set(old["queues"])):
        meaning = "apply the broker's definitions before the API, which refuses posts whose queue is missing"
        yield _harmless(queue, "the queue is new", meaning)


def _openapi(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Finding]:
    before, after = _calls(old), _calls(new)
    for call in sorted(before.keys() - after.keys()):
        yield _breaking(call, "the call is gone", _CLIENTS)
    for call in sorted(after.keys() - before.keys()):
        yield _harmless(call, "the call is new", "")
    for call in sorted(before.keys() & after.keys()):
        yield from _parameters(before[call], after[call], call, old, new)
        yield from _content(before[call].get("requestBody", {}), after[call].get("requestBody", {}), call, old, new)
        yield from _responses(before[call]["responses"], after[call]["responses"], call, old, new)


def _calls(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": call
        for path, calls in document["paths"].items()
        for method, call in calls.items()
        if method in _METHODS
    }


def _parameters(old: Any, new: Any, call: str, before: Any, after: Any) -> Iterator[Finding]:
    had, has = ({(one["in"], one["name"]): one for one in each.get("parameters", ())} for each in (old, new))
    for place in sorted(had.keys() - has.keys()):
        yield _breaking(f"{call} {place[1]}", "the parameter is gone", _CLIENTS)
    for place, one in sorted(has.items()):
        if one.get("required") and not had.get(place, {}).get("required"):
            yield _breaking(f"{call} {place[1]}", "the parameter is required", _CLIENTS)
        elif place not in had:
            yield _harmless(f"{call} {place[1]}", "the parameter is new", "")
        else:
            yield from _inputs(had[place].get("schema"), one.get("schema"), f"{call} {place[1]}", before, after)


def _content(old: Any, new: Any, call: str, before: Any, after: Any) -> Iterator[Finding]:
    had, has = old.get("content", {}), new.get("content", {})
    for kind in sorted(had.keys() - has.keys()):
        yield _breaking(f"{call} body", f"{kind} is no longer taken", _CLIENTS)
    for kind in sorted(had.keys() & has.keys()):
        yield from _inputs(had[kind].get("schema"), has[kind].get("schema"), f"{call} body", before, after)


def _responses(old: Any, new: Any, call: str, before: Any, after: Any) -> Iterator[Finding]:
    for status in sorted(new.keys() - old.keys()):
        yield _harmless(f"{call} {status}", "the answer is new", "")
    for status in sorted(old.keys()):
        where = f"{call} {status}"
        if status not in new:
            yield Finding(status.startswith("2"), where, "the answer is gone", _CLIENTS)
            continue
        had, has = old[status], new[status]
        for name in sorted(had.get("headers", {}).keys() - has.get("headers", {}).keys()):
            yield _breaking(where, f"the header {name} is gone", _CLIENTS)
        for kind, content in sorted(had.get("content", {}).items()):
            if kind not in has.get("content", {}):
                yield _breaking(where, f"{kind} is no longer answered", _CLIENTS)
                continue
            yield from _outputs(content.get("schema"), has["content"][kind].get("schema"), where, before, after)
