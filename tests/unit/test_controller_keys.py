"""Parses the NGINX controller's ConfigMap keys and annotations from its Go code; the code here is made up."""

import subprocess
import sys
from pathlib import Path

import pytest

from minicluster.stand_ins.ingress_controller.controller_settings import known
from ops import pins
from ops.charts import controller_keys
from ops.charts.controller_keys import CHART, SOURCES, record
from ops.command import ROOT

SETTINGS = """
func ParseConfigMap() {
	if colour, exists := cfgm.Data["colour"]; exists {
		params.Colour = colour
	}
	if loud, exists, err := GetMapKeyAsBool(cfgm.Data, "loud", cfgm); exists {
	}
	if width, exists := cfgm.Data["width"]; exists {
		if parsed, err := ParseSize(width); err != nil {
	}
	if pipes, exists := cfgm.Data["pipes"]; exists {
		if isPlus {
		} else {
			text := fmt.Sprintf("ConfigMap %s/%s key %s requires NGINX Plus", cfgm.Namespace, cfgm.Name, "pipes")
	}
	if hasAppProtect {
		if shield, exists := cfgm.Data["shield"]; exists {
	}
}

func parseOther() {
	err = parseStringField(cfgm, "nap", ParseTime, func(value string) {
}

func ParseMGMTConfigMap() {
	if other, exists := cfgm.Data["of-another-map"]; exists {
}
"""
ANNOTATIONS = """
// HeightAnnotation is one.
const HeightAnnotation = "nginx.org/height"
	if height, exists := ingEx.Ingress.Annotations[HeightAnnotation]; exists {
	}
	if speed, exists := annotations["nginx.org/speed"]; exists {
		if rate, err := ParseRequestRate(speed); err != nil {
	}
	if count, exists, err := GetMapKeyAsInt(annotations, "nginx.org/count", context); exists {
"""
VALIDATION = """
const (
	heightAnnotation = configs.HeightAnnotation
	tasteAnnotation  = "nginx.com/taste"
)
	annotationValidations = annotationValidationConfig{
		heightAnnotation: {
			validateRequiredAnnotation,
			validateTimeAnnotation,
		},
		tasteAnnotation: {
			validatePlusOnlyAnnotation,
			validateBoolAnnotation,
		},
	}
"""


def test_settings_are_parsed_with_their_types() -> None:
    assert [line for line in record(SETTINGS, "", "") if line.startswith("setting")] == [
        "setting colour text",
        "setting loud bool",
        "setting nap time",
        "setting pipes text plus",
        "setting shield text plus",
        "setting width size",
    ]


def test_annotations_are_parsed_with_their_types_and_validation() -> None:
    assert record("", ANNOTATIONS, VALIDATION) == [
        "annotation nginx.com/taste bool rejected plus",
        "annotation nginx.org/count number",
        "annotation nginx.org/height time rejected",
        "annotation nginx.org/speed rate",
    ]


def test_command_writes_the_record_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = (SETTINGS, ANNOTATIONS, VALIDATION, "appVersion: 9.9.9\n")
    for path, text in zip((*SOURCES.values(), CHART), texts, strict=True):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(pins, "CONTROLLER_KEYS_FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path)])
    controller_keys.main()
    assert "setting loud bool\n" in (tmp_path / "nginx-9.9.9.txt").read_text()


def test_folder_without_the_controllers_code_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ops.charts.controller_keys", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"{tmp_path} is no checkout of the controller" in done.stderr


def test_committed_record_is_complete() -> None:
    settings, annotations = known("setting"), known("annotation")
    assert len(settings) == 100
    assert settings["worker-shutdown-timeout"] == ("text", False, False)
    assert settings["zone-sync"] == ("bool", False, True)
    assert annotations["nginx.org/limit-req-rate"] == ("rate", False, False)
    assert annotations["nginx.org/location-snippets"].form == "snippet"
    assert "license-token-secret-name" not in settings  # only in the ConfigMap of NGINX Plus
