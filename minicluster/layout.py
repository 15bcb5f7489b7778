"""Names, addresses and paths that several parts of a cluster use."""

from pathlib import Path

NODE = "node"
# The node's address is that of the bridge which connects the pods: Kubernetes accepts no loopback address.
BRIDGE = "pods0"
NODE_ADDRESS = "10.244.0.1"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
# Kubernetes gives the first address of the Service network to the API server
API_SERVICE_ADDRESS = "10.96.0.1"
API_PORT = 6443

# The state folder inside the namespaces. The path is short because paths of Unix sockets are limited.
INSIDE = Path("/run/node")
CERTIFICATES = INSIDE / "certificates"
VOLUMES = "volumes"
VOLUME_COUNT = 10

# Kubernetes' default of 15 s would slow every test that waits for scaling. All else has Kubernetes' defaults.
HPA_SYNC_S = 5
