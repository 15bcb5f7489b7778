"""`make test-charts` and `make chart-keys`, tested on the stand-in charts and on charts with one fault each."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from minicluster.stand_ins import chart_archives, chart_comparison, keda_release
from ops import pins
from ops.charts import __main__ as command
from ops.charts import effects, source, value_keys
from ops.charts.source import Chart
from ops.command import ROOT, Unusable
from tests.harness.manifest_faults import Fault, copied, faults
from tests.harness.thorough import thorough

# Every fourth fault; the others, which differ in a detail, are left to the thorough tests.
FAULTS = [
    fault if number % 4 == 0 else thorough(fault)[0]
    for number, fault in enumerate(faults(Path(__file__).with_name("chart_faults.yaml")))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archives of the stand-in charts, which have the real charts' names and versions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keda_release, "tag", lambda: "any")  # skips a build of minutes
        path = tmp_path_factory.mktemp("charts")
        chart_archives.package(path)
    return path


def value_set(name: str, stand_ins: dict[str, Chart]) -> effects.ValueSet:
    return next(each for each in effects.value_sets(stand_ins) if each.chart.name == name)


def lines(result: effects.Result, listed: dict[str, str]) -> list[str]:
    return list(result.report(result, listed))


@pytest.mark.parametrize("arguments", [[], [""], ["build/charts"], [str(ROOT)]])
def test_folder_inside_the_repository_is_refused(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["charts", "pull", *arguments])
    with pytest.raises(Unusable, match=r"CHARTS=\.\.\., outside of this repository\.$"):
        command.main()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(Unusable, match=r"^There is no folder .*/none: name the folder"),
        source.charts(tmp_path / "none"),
    ):
        pass


def test_missing_chart_is_named(folder: Path, tmp_path: Path) -> None:
    for name in ("rabbitmq", "nginx-ingress", "keda"):
        (archive,) = folder.glob(f"{name}-*.tgz")
        shutil.copy(archive, tmp_path)
    sentence = r"has no chart redis: put the folder or archive of redis 0\.34\.18 there\.$"
    with pytest.raises(Unusable, match=sentence), source.charts(tmp_path):
        pass


def test_chart_of_another_version_is_refused(folder: Path, tmp_path: Path) -> None:
    for archive in folder.glob("*.tgz"):
        if not archive.name.startswith("redis"):
            shutil.copy(archive, tmp_path)
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "Chart.yaml").write_text("name: redis\nversion: 0.30.0\n")
    with (
        pytest.raises(Unusable, match=r"has the chart redis 0\.30\.0: 0\.34\.18 is needed\.$"),
        source.charts(tmp_path),
    ):
        pass


def test_dependency_of_a_chart_from_git_is_taken_from_the_folder(folder: Path, tmp_path: Path) -> None:
    for archive in folder.glob("*.tgz"):
        shutil.unpack_archive(archive, tmp_path, filter="data")
    meta = tmp_path / "redis" / "Chart.yaml"
    meta.write_text(meta.read_text() + "dependencies: [{name: common, version: 2.2.0}]\n")
    with pytest.raises(Unusable, match=r"has no chart common: .* common 2\.2\.0"), source.charts(tmp_path):
        pass
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "Chart.yaml").write_text("name: common\nversion: 2.2.0\n")
    with source.charts(tmp_path) as found:
        assert (found["redis"].folder / "charts" / "common" / "Chart.yaml").exists()


def test_keda_chart_may_have_the_version_of_the_recorded_keys() -> None:
    assert source.accepted_versions("keda") == ("2.21.0", "2.20.2")
    assert source.accepted_versions("redis") == ("0.34.18",)


def test_value_without_an_effect_is_named(folder: Path) -> None:
    with source.charts(folder) as stand_ins:
        result = effects.check(value_set("rabbitmq", stand_ins))
    summary, *faults = lines(result, {"fullnameOverride": "a reason"})
    assert summary.startswith("rabbitmq 0.21.18, helm-releases: 5 objects, 44 values. Effect: ")
    assert faults == ["  rbac.create: the chart renders the same without it"]
    assert lines(result, {"fullnameOverride": "a reason", "rbac.create": "a reason"})[1:] == []


@pytest.mark.thorough
def test_unnecessary_exception_is_named(folder: Path) -> None:
    with source.charts(folder) as stand_ins:
        result = effects.check(value_set("redis", stand_ins))
    listed = {"redis": {"auth.existingSecret": "it has an effect", "persistence.sizes": "it is not set"}}
    named = [line.split(": ")[2] for line in effects.unused([(result, result)], listed)]
    assert named == ["auth.existingSecret", "persistence.sizes"]


def test_landed_values_render_valid_objects(folder: Path) -> None:
    assert rendered_faults(folder, ROOT) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_found_in_what_the_chart_renders(folder: Path, fault: Fault, tmp_path: Path) -> None:
    clone = copied(tmp_path)
    fault.inject(clone)
    found = rendered_faults(folder, clone)
    assert any(re.match(fault.found, one) for one in found), "\n".join(found)


def rendered_faults(folder: Path, root: Path) -> list[str]:
    """The faults that `make test-charts` finds in the charts, rendered with the values of a tree."""
    with source.charts(folder) as charts:
        sets = effects.value_sets(charts, root)
        return [fault for each in sets for fault in effects.faults(each, effects.rendered(each, text_of(each)))]


def text_of(each: effects.ValueSet) -> str:
    return each.template(each.release.values)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        (("priorityClassName",), "", "priorityClassName: is missing"),
        *thorough(
            (("resources",), {"limits": {}}, "containers[redis].resources.requests.cpu: is missing"),
            (("image", "pullPolicy"), 7, "/imagePullPolicy"),
        ),
    ],
)
def test_rendered_objects_are_checked(
    folder: Path, key: tuple[str, ...], value: object, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effects, "_ineffective", lambda *_: ())
    with source.charts(folder) as stand_ins:
        values = value_set("redis", stand_ins)
        changed = effects.without(values.release.values, key)
        inner = changed
        for name in key[:-1]:
            inner = inner[name]
        inner[key[-1]] = value
        result = effects.check(replace(values, release=replace(values.release, values=changed)))
    assert any(fault.strip("/") in one for one in result.faults), result.faults


@pytest.mark.thorough
def test_secret_that_is_deleted_with_the_release_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effects, "_ineffective", lambda *_: ())
    with source.charts(folder) as stand_ins:
        values = value_set("redis", stand_ins)
        path = values.chart.folder / "templates" / "secret.yaml"
        path.write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: made-by-the-chart}\n")
        result = effects.check(values)
    assert [fault.partition(": ")[2] for fault in result.faults] == [
        "Secret made-by-the-chart: metadata: is deleted with the release, and with it the credential"
    ]


@pytest.mark.thorough
def test_value_that_a_stand_in_ignores_is_named(folder: Path, tmp_path: Path) -> None:
    with source.charts(folder) as stand_ins:
        real = value_set("redis", stand_ins)
        other = tmp_path / "redis"
        shutil.copytree(real.chart.folder, other)
        path = other / "templates" / "statefulset.yaml"
        path.write_text(path.read_text().replace("{{ .Values.image.pullPolicy }}", "IfNotPresent"))
        own = replace(real, chart=replace(real.chart, folder=other))
        (difference,) = chart_comparison.differences(real, own)
    assert difference.startswith("image.pullPolicy: only the chart changes StatefulSet.redis.spec.template.spec.")


def test_record_lists_each_key_with_its_types(tmp_path: Path) -> None:
    defaults = {
        "replicas": 1,
        "name": None,
        "labels": {},
        "service": {"port": 80, "names": []},
        "resources": {"requests": {"cpu": "1"}},
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(defaults))
    (tmp_path / "values.schema.json").write_text(
        '{"properties": {"replicas": {"type": ["string", "null"]}, "extra": {"type": "boolean"}}}'
    )
    assert value_keys.record(Chart("any", "1.0.0", tmp_path)).splitlines()[3:] == [
        "extra bool",
        "labels.* map",
        "name any",
        "replicas number|text",
        "resources map",
        "resources.limits.* map",
        "resources.requests.* map",
        "service map",
        "service.names list",
        "service.port number",
    ]


def test_pins_name_exactly_the_recorded_files() -> None:
    files = {path.name for path in pins.CHART_KEYS_FOLDER.glob("*.txt")}
    assert files == {record for _, record in pins.CHART_KEYS.values()}


def test_each_exception_has_a_reason() -> None:
    for reasons in effects.reasons().values():
        assert all(len(reason.split()) > 2 for reason in reasons.values())
