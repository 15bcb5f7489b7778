"""Names, addresses and paths that several modules use."""

from pathlib import Path

NODE = "node"
# The node has the address of the pods' bridge, because Kubernetes does not accept a loopback address.
BRIDGE = "pods0"
NODE_ADDRESS = "10.244.0.1"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
# Kubernetes assigns the first address of the Service network to the API server.
API_SERVICE_ADDRESS = "10.96.0.1"
API_PORT = 6443

# The state folder inside of the namespaces. The path is short because the length of Unix socket paths is limited.
INSIDE = Path("/run/node")
CERTIFICATES = INSIDE / "certificates"
VOLUMES = "volumes"
VOLUME_COUNT = 10

# Kubernetes' default of 15 s would slow down tests that wait for scaling. Other HPA settings have Kubernetes' defaults.
HPA_SYNC_S = 5
