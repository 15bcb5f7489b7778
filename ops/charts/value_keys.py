"""Records a chart's value keys and their types, read from its values.yaml and its values.schema.json."""

import json
from collections.abc import Iterator
from typing import Any

from ops import pins
from ops.charts.source import Chart
from ops.validate.charts import TYPES

# type in JSON Schema -> name in the record; `null` is left out
SCHEMA_TYPES = {
    "array": "list",
    "boolean": "bool",
    "integer": "number",
    "number": "number",
    "object": "map",
    "string": "text",
}
# Maps of a container's resources. They are recorded as maps with any key: defaults of a chart name only some resources.
RESOURCES = {"limits", "requests"}
HEAD = """# Every value of the chart {name} {version}: its key path (a map that takes any key ends in .*) and the types it may have,
# read from its {files} by `make chart-keys`.
# any: its default is null or none, and no schema says more.
"""  # noqa: E501 - the lines of the record


def write(chart: Chart) -> str:
    """Write the record of a chart, and return the name of its file."""
    file = f"{chart.name}-{chart.version}.txt"
    (pins.CHART_KEYS_FOLDER / file).write_text(record(chart))
    return file


def record(chart: Chart) -> str:
    """The text of the record."""
    schema_file = chart.folder / "values.schema.json"
    schema = json.loads(schema_file.read_text()) if schema_file.exists() else {}
    files = "values.yaml and values.schema.json" if schema else "values.yaml (it has no schema)"
    head = HEAD.format(name=chart.name, version=chart.version, files=files)
    return head + "".join(f"{key} {types}\n" for key, types in sorted(_keys(chart.defaults, schema, "")))


def _keys(defaults: dict[str, Any], schema: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    properties = schema.get("properties") or {}
    if defaults.keys() & RESOURCES:
        properties |= {name: {"type": "object"} for name in RESOURCES}
        defaults = {name: value for name, value in defaults.items() if name not in RESOURCES}
    for name in defaults.keys() | properties.keys():
        default, said, path = defaults.get(name), properties.get(name) or {}, f"{prefix}{name}"
        types, inner = _types(default, said), default if isinstance(default, dict) else {}
        yield from _keys(inner, said, f"{path}.")
        takes_any_key = types == ["map"] and (default == {} or not (inner or said.get("properties")))
        yield f"{path}.*" if takes_any_key else path, "|".join(types) or "any"


def _types(default: object, schema: dict[str, Any]) -> list[str]:
    said = schema.get("type") or []
    types = {SCHEMA_TYPES[each] for each in ([said] if isinstance(said, str) else said) if each != "null"}
    return sorted(types | ({TYPES[type(default)]} if default is not None else set()))
