"""Every version that is chosen here and not in a manifest or a lock file. Update them together with their tests."""

from pathlib import Path

# The oldest and the newest Kubernetes that both KEDA 2.21 and Flux 2.9 support; what is rendered is valid for both.
KUBERNETES = ("1.34", "1.36")

FLUX = "2.9.4"
KEDA = "2.21.0"

# Go modules whose CRDs become the schemas of KEDA's and Flux's objects: KEDA's, the first, is the chart's version (and
# lists what its scalers read), the others are what Flux's release is made of.
CRD_MODULES = (
    f"github.com/kedacore/keda/v2@v{KEDA}",
    "github.com/fluxcd/source-controller@v1.9.5",
    "github.com/fluxcd/kustomize-controller@v1.9.5",
    "github.com/fluxcd/helm-controller@v1.6.1",
)

# The sums of these modules, as a go.sum has them: `go mod download` outside of a module checks none by itself.
CRD_SUMS = {
    "github.com/kedacore/keda/v2@v2.21.0": "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
    "github.com/fluxcd/source-controller@v1.9.5": "h1:MFPyCodUi9hZIMaKDsC/rYbNoyzpvrAdrPVixj7W9F0=",
    "github.com/fluxcd/kustomize-controller@v1.9.5": "h1:/XY2zy3K7fntyppEXIHG7oRMzmfgIt50eJzUfaPX1Kc=",
    "github.com/fluxcd/helm-controller@v1.6.1": "h1:b0XKTQCGlQy4nOGfEFMbn/e+/j9IMEHSDlKecbZkG9M=",
}

# Programs that no Python package has, built from their Go module: name -> (package, version). ops/go/<name> has the
# sum of each module that goes into one.
PROGRAMS = {
    "kubeconform": ("github.com/yannh/kubeconform/cmd/kubeconform", "v0.8.0"),
    "helm": ("helm.sh/helm/v4/cmd/helm", "v4.2.4"),
    "sops": ("github.com/getsops/sops/v3/cmd/sops", "v3.13.3"),
    "vegeta": ("github.com/tsenart/vegeta/v12", "v12.13.0"),
    "actionlint": ("github.com/rhysd/actionlint/cmd/actionlint", "v1.7.12"),
    "kind": ("sigs.k8s.io/kind", "v0.32.0"),
    "age-keygen": ("filippo.io/age/cmd/age-keygen", "v1.3.2"),
}
# The oldest Go that builds them; where the machine's is older, requirements/go.txt has one.
GO = (1, 26)

# The chart versions, each with the record of its value keys and their types (ops/validate/chart-keys).
# KEDA's is of 2.20.2: the chart 2.21.0 could not be had when it was made. The code of 2.21.0 was, its CRDs are used.
CHART_KEYS = {
    "rabbitmq": ("0.21.18", "rabbitmq-0.21.18.txt"),
    "redis": ("0.34.18", "redis-0.34.18.txt"),
    "nginx-ingress": ("2.6.4", "nginx-ingress-2.6.4.txt"),
    "keda": (KEDA, "keda-2.20.2.txt"),
}
CHART_KEYS_FOLDER = Path(__file__).parent / "validate" / "chart-keys"

# What the controller of that NGINX chart reads: its ConfigMap keys and annotations, by ops/validate/controller_keys.
CONTROLLER = "5.5.4"
CONTROLLER_KEYS_FOLDER = Path(__file__).parent / "validate" / "controller-keys"
