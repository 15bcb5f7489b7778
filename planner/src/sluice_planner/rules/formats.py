"""Formats findings as text, JSON, GitHub annotations and SARIF."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from sluice_planner.rules.findings import Finding
from sluice_planner.rules.registry import RULES

_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
_GITHUB = {"error": "error", "warning": "warning", "note": "notice"}


def as_text(findings: Sequence[Finding]) -> str:
    """A line for each finding: place, consequence, fix, rule."""
    lines = [
        f"{each.source}: {each.title}: {each.field}: {each.message}; {each.fix} [{each.rule.level} {each.rule.id}]"
        for each in findings
    ]
    return "\n".join(lines) or "No problems found."


def as_json(findings: Sequence[Finding]) -> str:
    """A list of objects."""
    return json.dumps(
        [
            {
                "id": each.rule.id,
                "rule": each.rule.words,
                "level": each.rule.level,
                "source": each.source,
                "object": each.title,
                "field": each.field,
                "message": each.message,
                "fix": each.fix,
            }
            for each in findings
        ]
    )


def as_github(findings: Sequence[Finding]) -> str:
    """Workflow commands, which GitHub shows beside the files of a pull request."""
    return "\n".join(
        f"::{_GITHUB[each.rule.level]} file={_property(_file(each))},title={_property(each.rule.id)}::"
        + _escaped(f"{each.title}: {each.field}: {each.message}; {each.fix}")
        for each in findings
    )


def as_sarif(findings: Sequence[Finding]) -> str:
    """SARIF 2.1.0, with every rule."""
    rules = [
        {
            "id": rule.id,
            "name": "".join(word.capitalize() for word in rule.words.split()),
            "shortDescription": {"text": rule.words},
            "defaultConfiguration": {"level": rule.level},
        }
        for rule in sorted(RULES.values(), key=lambda rule: rule.id)
    ]
    results = [
        {
            "ruleId": each.rule.id,
            "level": each.rule.level,
            "message": {"text": f"{each.title}: {each.field}: {each.message}; {each.fix}"},
            "locations": [
                {
                    "physicalLocation": {"artifactLocation": {"uri": _file(each)}},
                    "logicalLocations": [{"fullyQualifiedName": f"{each.title}: {each.field}"}],
                }
            ],
        }
        for each in findings
    ]
    driver = {"name": "sluice", "rules": rules}
    return json.dumps(
        {"$schema": _SARIF, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    )


FORMATS: dict[str, Callable[[Sequence[Finding]], str]] = {
    "text": as_text,
    "json": as_json,
    "sarif": as_sarif,
    "github": as_github,
}


def _file(finding: Finding) -> str:
    """The file of a finding; for a rendered folder its kustomization."""
    path = Path(finding.source)
    return str(path / "kustomization.yaml" if path.is_dir() else path)


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")
