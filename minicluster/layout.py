"""Names and numbers that the cluster's parts agree on."""

from pathlib import Path

NODE = "node"
# the bridge that pods are plugged into is the node's address: a loopback address may not be one
BRIDGE = "pods0"
NODE_ADDRESS = "10.244.0.1"
POD_NETWORK = "10.244.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
# the first of the network is always the API server's Service
API_SERVICE_ADDRESS = "10.96.0.1"
API_PORT = 6443

# The state folder as it is seen inside of the namespaces: short, as sockets need it.
INSIDE = Path("/run/node")
CERTIFICATES = INSIDE / "certificates"
VOLUMES = "volumes"
VOLUME_COUNT = 10

# Kubernetes' default of 15 s makes each step of a test wait; everything else is as users have it.
HPA_SYNC_S = 5
