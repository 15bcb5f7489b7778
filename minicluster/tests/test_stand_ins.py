"""The stand-in charts have the names, versions, values and objects of the real charts."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from minicluster.layout import NODE_ADDRESS
from minicluster.stand_ins import chart_archives, chart_comparison, keda_release
from minicluster.stand_ins.artifact_server import REGISTRY_PORT, WEB_PORT
from minicluster.stand_ins.chart_comparison import changed
from ops import pins
from ops.charts.effects import leaves
from ops.command import ROOT, Unusable, output
from ops.platform import Release, releases
from ops.tools import built, kubectl
from ops.validate import schemas
from ops.validate.charts import known_keys
from ops.validate.tree import Object, Tree, walk
from tests.harness.thorough import thorough

# Values that a stand-in does not implement. minicluster/stand_ins/README.md lists those of the first three.
LEFT_OUT = {
    name: {value for chart, value in chart_comparison.not_tested() if chart == name}
    for name in ("keda", "rabbitmq", "redis")
} | {"nginx-ingress": {"controller.telemetryReporting", "prometheus"}}
# maps whose content Kubernetes defines
WHOLE = {"resources", "initContainerResources"}
SERVICES = {
    "keda": {
        "keda-operator": {8080, 9666},
        "keda-metrics-apiserver": {443, 8080},
        "keda-admission-webhooks": {443, 8080},
    },
    "nginx-ingress": {"nginx-ingress-controller": {80, 443}},
    "rabbitmq": {"rabbitmq": {5672, 15672, 15692}, "rabbitmq-headless": {4369, 5672, 15672, 25672}},
    "redis": {"redis": {6379}},
}
PLATFORMS = ("helm-releases", "clusters/local/infrastructure", "loadtest/cluster-platform")
NAMES = sorted(SERVICES)
CHARTS = chart_archives.FOLDER / "charts"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Chart -> path of its archive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keda_release, "tag", lambda: "any")  # the programs take minutes to build
        archives = chart_archives.package(tmp_path_factory.mktemp("charts"))
    return {next(name for name in NAMES if path.name.startswith(name)): path for path in archives}


def release(name: str, folder: str) -> Release:
    text = output(kubectl(), "kustomize", ROOT / folder, timeout_s=60)
    return next(each for each in releases(list(yaml.safe_load_all(text))) if each.name == name)


def objects_of(folder: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(kind, name) -> object."""
    text = output(kubectl(), "kustomize", ROOT / folder, timeout_s=60)
    return {(body["kind"], body["metadata"]["name"]): body for body in yaml.safe_load_all(text)}


def rendered(archive: Path, wanted: Release) -> list[Object]:
    """The objects that helm renders from the chart with the release's values."""
    where = (wanted.name, archive, f"--namespace={wanted.namespace}", "--values=-")
    text = output(built("helm"), "template", *where, text=yaml.safe_dump(wanted.values), timeout_s=60)
    return [Object(archive.name, body, "stand-ins") for body in yaml.safe_load_all(text) if body]


def defaults(name: str) -> dict[str, Any]:
    """Path -> default value of the stand-in, for keys at every depth outside of lists."""
    values = yaml.safe_load((CHARTS / name / "values.yaml").read_text())
    return {path: value for path, value in walk(values) if path and not re.search(r"\.\d+(\.|$)", path)}


def above(path: str) -> list[str]:
    """The path and the paths of all maps around it."""
    return [path.rsplit(".", steps)[0] for steps in range(path.count(".") + 1)]


@pytest.mark.parametrize("name", NAMES)
def test_name_and_version_are_the_real_ones(name: str) -> None:
    chart = yaml.safe_load((CHARTS / name / "Chart.yaml").read_text())
    assert (chart["name"], chart["version"]) == (name, pins.CHART_KEYS[name][0])


@pytest.mark.parametrize("name", NAMES)
def test_every_value_exists_in_the_real_chart(name: str) -> None:
    known = {key for path in known_keys(name) for key in above(path)}
    open_maps = {path.removesuffix(".*") for path in known if path.endswith(".*")}
    assert [path for path in defaults(name) if path not in known and not open_maps.intersection(above(path))] == []


@pytest.mark.parametrize("folder", PLATFORMS)
def test_stand_in_of_nginx_knows_every_value_that_is_set(folder: str) -> None:
    mine = defaults("nginx-ingress")
    whole = {path for path, value in mine.items() if value in ({}, []) or path.split(".")[-1] in WHOLE}
    whole |= LEFT_OUT["nginx-ingress"]
    given = [path for path, _ in walk(release("nginx-ingress", folder).values) if path]
    assert [path for path in given if path not in mine and not whole.intersection(above(path))] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_default_value_is_used_in_a_template(name: str) -> None:
    templates = "".join(path.read_text() for path in (CHARTS / name / "templates").iterdir())
    words = set(re.findall(r"\w+", templates))
    unused = [path for path in defaults(name) if path.split(".")[-1] not in words and not WHOLE & set(path.split("."))]
    assert unused == []


@pytest.mark.parametrize("folder", [PLATFORMS[0], *thorough(PLATFORMS[1])])
@pytest.mark.parametrize("name", ["redis", *thorough("keda", "rabbitmq")])
def test_every_value_changes_the_stand_in_unless_the_readme_lists_it(
    packed: dict[str, Path], name: str, folder: str
) -> None:
    wanted = release(name, folder)
    # values that a cluster inherits are tested with helm-releases, as a cluster may disable their feature
    base = dict(leaves(release(name, "helm-releases").values)) if folder != "helm-releases" else {}
    keys = [key for key, value in leaves(wanted.values) if key not in base or base[key] != value]
    before = text_of(packed[name], wanted, wanted.values)
    same = {".".join(key) for key in keys if text_of(packed[name], wanted, changed(wanted.values, key)) == before}
    assert same <= LEFT_OUT[name]


@pytest.mark.parametrize("name", ["keda", "rabbitmq", "redis"])
def test_the_readme_lists_only_values_that_are_set(name: str) -> None:
    assert LEFT_OUT[name] <= {".".join(key) for key, _ in leaves(release(name, "helm-releases").values)}


def text_of(archive: Path, wanted: Release, values: dict[str, Any]) -> str:
    """The output of helm, or its error message if the chart refuses the values."""
    where = (wanted.name, archive, f"--namespace={wanted.namespace}", "--values=-")
    try:
        return output(built("helm"), "template", *where, text=yaml.safe_dump(values), timeout_s=60)
    except Unusable as exc:
        return str(exc)


@pytest.mark.parametrize("folder", ["helm-releases", *thorough("clusters/local/infrastructure")])
def test_objects_are_valid(packed: dict[str, Path], folder: str) -> None:
    objects = {name: rendered(packed[name], release(name, folder)) for name in NAMES}
    unknown = {"CustomResourceDefinition", "APIService"}  # KEDA's own objects of kinds without a schema
    known = [each for part in objects.values() for each in part if each.kind not in unknown]
    assert list(schemas.check(Tree(ROOT, {folder: known}, []))) == []


@pytest.mark.parametrize("name", NAMES)
def test_services_and_their_ports_are_the_real_ones(packed: dict[str, Path], name: str) -> None:
    services = [each for each in rendered(packed[name], release(name, "helm-releases")) if each.kind == "Service"]
    assert {each.name: {port["port"] for port in each.spec["ports"]} for each in services} == SERVICES[name]


def test_only_the_sources_are_patched() -> None:
    stand_ins, local = (
        objects_of(folder) for folder in ("minicluster/stand_ins/platform", "clusters/local/infrastructure")
    )
    changed = [name for name, body in stand_ins.items() if body != local[name]]
    assert stand_ins.keys() == local.keys()
    assert {kind for kind, *_ in changed} == {"OCIRepository", "HelmRepository"}
    for name in changed:
        new, old = stand_ins[name]["spec"], local[name]["spec"]
        assert {key for key in new if new[key] != old.get(key)} - {"insecure"} == {"url"}
        assert new["url"].startswith((f"oci://{NODE_ADDRESS}:{REGISTRY_PORT}/", f"http://{NODE_ADDRESS}:{WEB_PORT}/"))


def test_a_volume_claim_keeps_its_name_and_size(packed: dict[str, Path]) -> None:
    for name, size in {"rabbitmq": "1Gi", "redis": "1Gi"}.items():
        objects = rendered(packed[name], release(name, "clusters/local/infrastructure"))
        (claim,) = next(each for each in objects if each.kind == "StatefulSet").spec["volumeClaimTemplates"]
        assert claim["metadata"]["name"] == "data"
        assert claim["spec"]["resources"]["requests"]["storage"] == size


def nginx_with(packed: dict[str, Path], **controller: Any) -> dict[str, dict[str, Any]]:
    """Kind -> object of the NGINX chart with only these values of `controller`."""
    values = {"controller": controller}
    release_of = Release("nginx-ingress", "nginx", (), values, (), (), 60)
    return {each.kind: each.body for each in rendered(packed["nginx-ingress"], release_of)}


def environment(deployment: dict[str, Any]) -> dict[str, str]:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"]}


@pytest.mark.parametrize(
    ("values", "passed"),
    [
        ({"allowEmptyIngressHost": True, "enableCustomResources": False}, None),
        ({"allowEmptyIngressHost": True}, "true"),
        ({}, "false"),
    ],
)
def test_empty_host_is_passed_on_only_with_custom_resources(
    packed: dict[str, Path], values: dict[str, bool], passed: str | None
) -> None:
    found = environment(nginx_with(packed, **values)["Deployment"])
    assert found.get("ALLOW_EMPTY_INGRESS_HOST") == passed


def test_defaults_of_the_chart_are_the_real_ones(packed: dict[str, Path]) -> None:
    pod = nginx_with(packed)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["terminationGracePeriodSeconds"] == 30
    assert container["resources"] == {"requests": {"cpu": "100m", "memory": "128Mi"}}
    assert {"initContainers", "topologySpreadConstraints"} & pod.keys() == set()
    assert {"livenessProbe", "startupProbe", "lifecycle"} & container.keys() == set()
    assert nginx_with(packed)["Service"]["spec"]["externalTrafficPolicy"] == "Local"
    assert "PodDisruptionBudget" not in nginx_with(packed)


def test_traffic_policy_and_node_port_are_set_only_for_external_services(packed: dict[str, Path]) -> None:
    service = {"externalTrafficPolicy": "Cluster", "httpPort": {"nodePort": 30080}}
    outside = nginx_with(packed, service=service | {"type": "NodePort"})["Service"]["spec"]
    inside = nginx_with(packed, service=service | {"type": "ClusterIP"})["Service"]["spec"]
    assert (outside["externalTrafficPolicy"], outside["ports"][0]["nodePort"]) == ("Cluster", 30080)
    assert "externalTrafficPolicy" not in inside
    assert "nodePort" not in inside["ports"][0]


def test_read_only_root_has_an_init_container(packed: dict[str, Path]) -> None:
    resources = {"limits": {"ephemeral-storage": "64Mi"}}
    pod = nginx_with(packed, readOnlyRootFilesystem=True, initContainerResources=resources)["Deployment"]["spec"]
    (init,) = pod["template"]["spec"]["initContainers"]
    assert init["resources"]["limits"] == resources["limits"]
    assert init["resources"]["requests"] == {"cpu": "100m", "memory": "128Mi"}  # merged with the chart's defaults


def test_values_of_helm_releases_reach_the_pod(packed: dict[str, Path]) -> None:
    objects = rendered(packed["nginx-ingress"], release("nginx-ingress", "helm-releases"))
    spec = next(each for each in objects if each.kind == "Deployment").spec
    pod = spec["template"]["spec"]
    assert spec["replicas"] == 2
    assert pod["terminationGracePeriodSeconds"] == 75
    assert pod["topologySpreadConstraints"][0]["whenUnsatisfiable"] == "DoNotSchedule"
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "512Mi", "ephemeral-storage": "1Gi"}


def test_program_of_the_pod_has_all_imported_modules(packed: dict[str, Path], tmp_path: Path) -> None:
    objects = rendered(packed["nginx-ingress"], release("nginx-ingress", "helm-releases"))
    files = next(each.body["data"] for each in objects if each.name == "nginx-ingress-program")
    volumes = next(each for each in objects if each.kind == "Deployment").spec["template"]["spec"]["volumes"]
    (program,) = (each["configMap"]["items"] for each in volumes if each["name"] == "program")
    for item in program:
        (tmp_path / item["path"]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / item["path"]).write_text(files[item["key"]])
    code = (
        "from minicluster.stand_ins.ingress_controller import __main__, controller_settings;"
        "assert len(controller_settings.known('setting')) == 100"
    )
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, '{tmp_path}'); {code}"]
    subprocess.run(command, check=True, timeout=60, cwd=tmp_path)


def test_nginx_chart_has_no_value_for_a_liveness_probe() -> None:
    # helm-releases/nginx.yaml explains the missing liveness probe; set it when the chart supports one
    assert [key for key in known_keys("nginx-ingress") if "liveness" in key.lower()] == []
