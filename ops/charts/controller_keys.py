"""Records what F5 NGINX Ingress Controller reads: `python -m ops.charts.controller_keys FOLDER`.

FOLDER is a checkout of https://github.com/nginx/kubernetes-ingress at the tag of the chart's appVersion. The result has
a line for each ConfigMap key (`setting`) and each annotation, as its head says. The controller ignores any other name.
"""

import re
import sys
from pathlib import Path

from ops import pins
from ops.command import Unusable, command_line
from sluice_planner.kubernetes_objects import document_of

SOURCES = {
    "settings": "internal/configs/configmaps.go",
    "annotations": "internal/configs/annotations.go",
    "validation": "internal/k8s/validation.go",
}
CHART = "charts/nginx-ingress/Chart.yaml"
# the controller's functions that parse a value -> the form that it must have
FORMS = {
    "GetMapKeyAsBool": "bool",
    "GetMapKeyAsInt": "number",
    "GetMapKeyAsInt64": "number",
    "GetMapKeyAsUint64": "number",
    "ParseHTTPRedirectCode": "redirect-code",
    "ParseProxyBuffersSpec": "buffers",
    "ParseRequestRate": "rate",
    "ParseSize": "size",
    "ParseTime": "time",
    "validateBoolAnnotation": "bool",
    "validateHTTPRedirectCodeAnnotation": "redirect-code",
    "validateInt64Annotation": "number",
    "validateIntAnnotation": "number",
    "validateLimitReqKeyAnnotation": "variables",
    "validateOffsetAnnotation": "offset",
    "validateProxyBuffersAnnotation": "buffers",
    "validateSizeAnnotation": "size",
    "validateSnippetsAnnotation": "snippet",
    "validateTimeAnnotation": "time",
    "validateUint64Annotation": "number",
}
TEXT = "text"
# marks an annotation that only NGINX Plus or one of its modules has
PLUS = re.compile(r"validate(Plus|AppProtect|AppProtectDos|InternalRoutes)OnlyAnnotation")
NAME = re.compile(r'"((?:nginx\.org|nginx\.com|nsm\.nginx\.com|[a-z]+\.f5\.com|ingress\.kubernetes\.io)/[a-z0-9-]+)"')
# of the map from an annotation to its checks
ENTRY = r"^\t\t(?:configs\.)?(\w+): \{\n(.*?)^\t\t\}"
HEAD = """\
# What F5 NGINX Ingress Controller {version} reads, made by `python -m ops.charts.controller_keys` from
# {sources}
# of https://github.com/nginx/kubernetes-ingress/tree/v{version}. A line: what it is, its name, the form of its value
# (text: the controller does not parse it), and
#   rejected  a value of another form makes the controller reject the Ingress; elsewhere it keeps its default
#   plus      it needs NGINX Plus or one of its modules
"""


def main() -> None:
    """Write the record of a checkout."""
    if len(sys.argv) != 2:  # noqa: PLR2004 - the program and its argument
        raise Unusable("Usage: python -m ops.charts.controller_keys FOLDER")
    checkout = Path(sys.argv[1])
    try:
        version = document_of(checkout / CHART)["appVersion"]
        texts = {name: (checkout / path).read_text() for name, path in SOURCES.items()}
    except OSError as exc:
        raise Unusable(f"{checkout} is no checkout of the controller: {exc}.") from exc
    lines = record(texts["settings"], texts["annotations"], texts["validation"])
    path = pins.CONTROLLER_KEYS_FOLDER / f"nginx-{version}.txt"
    path.write_text(HEAD.format(version=version, sources=", ".join(SOURCES.values())) + "\n".join(lines) + "\n")
    print(f"Wrote {len(lines)} lines into {path}")


def record(settings: str, annotations: str, validation: str) -> list[str]:
    """The lines, from the texts of the three Go files."""
    return [*_lines("setting", _settings(settings)), *_lines("annotation", _annotations(annotations, validation))]


def _lines(kind: str, found: dict[str, str]) -> list[str]:
    return [f"{kind} {name} {form}" for name, form in sorted(found.items())]


def _settings(text: str) -> dict[str, str]:
    """ConfigMap key -> form. The keys of the other ConfigMap, which is NGINX Plus's, are left out."""
    text = re.sub(r"^func ParseMGMTConfigMap\(.*?^}", "", text, flags=re.MULTILINE | re.DOTALL)
    found = _parsed(text, r"cfgm\.Data")
    # by a third way, with the name and then the parser as arguments
    found |= {name: FORMS[parser] for name, parser in re.findall(r'parseStringField\(cfgm, "([\w-]+)", (\w+)', text)}
    plus = set(re.findall(r'requires (?:NGINX Plus|\'zone-sync\' to be enabled)",[^"\n]*"([\w-]+)"', text))
    for block in re.findall(r"^\tif hasAppProtect(?:Dos)? \{\n(.*?)^\t\}", text, re.MULTILINE | re.DOTALL):
        plus |= _parsed(block, r"cfgm\.Data").keys()
    return {name: f"{form} plus" if name in plus else form for name, form in found.items()}


def _annotations(text: str, validation: str) -> dict[str, str]:
    """Annotation -> form: as validation.go checks it, which rejects an Ingress, else as annotations.go parses it."""
    constants = dict(re.findall(r'^(?:const )?\s*(\w+)\s*= "([^"\n]+/[\w-]+)"', text + validation, re.MULTILINE))
    aliases = re.findall(r"^\s*(\w+)\s*= configs\.(\w+)$", validation, re.MULTILINE)
    constants |= {own: constants[other] for own, other in aliases if other in constants}
    spelt = re.sub(rf"\b({'|'.join(constants)})\b", lambda match: f'"{constants[match[1]]}"', text)
    found = dict.fromkeys(NAME.findall(text + validation), TEXT) | _parsed(spelt, r"(?:ingEx\.Ingress\.A|a)nnotations")
    for constant, checks in re.findall(ENTRY, validation, re.MULTILINE | re.DOTALL):
        name = constants.get(constant, "")
        if not name:
            raise Unusable(f"validation.go checks the annotation {constant}, whose name is nowhere.")
        form = next((FORMS[check] for check in re.findall(r"\w+", checks) if check in FORMS), found[name])
        found[name] = f"{form} rejected plus" if PLUS.search(checks) else f"{form} rejected"
    return found


def _parsed(text: str, where: str) -> dict[str, str]:
    """Name -> form of each key that is read from a map. The form is text if no known function parses the value."""
    found = dict.fromkeys(re.findall(rf'{where}\["([^"]+)"\]', text), TEXT)
    blocks = re.findall(rf'if (\w+), exists := {where}\["([^"]+)"\]; exists \{{\n(?=(.*\n.*))', text)
    for variable, name, body in blocks:
        parsers = re.findall(rf"\b(Parse\w+)\({variable}\)", body)
        found[name] = next((FORMS[parser] for parser in parsers if parser in FORMS), TEXT)
    for function, name in re.findall(rf'(GetMapKeyAs\w+)\({where}, "([^"]+)"', text):
        found[name] = FORMS.get(function, TEXT)
    return found


if __name__ == "__main__":
    command_line(main)
