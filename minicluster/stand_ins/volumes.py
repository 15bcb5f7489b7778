"""Persistent volumes without a provisioner, as folders of the node."""

from pathlib import Path
from typing import Any

CLASS = "folders"
# larger than every claim in this repository; the size of a folder is not limited
SIZE = "10Gi"


def objects(folder: Path, node: str, count: int) -> list[dict[str, Any]]:
    """The default StorageClass, and a PersistentVolume for each of folder/0 to folder/<count - 1>."""
    annotations = {"storageclass.kubernetes.io/is-default-class": "true"}
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": annotations},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    return [storage_class, *(_volume(folder / str(number), node) for number in range(count))]


def _volume(folder: Path, node: str) -> dict[str, Any]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{CLASS}-{folder.name}"},
        "spec": {
            "storageClassName": CLASS,
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(folder)},  # not hostPath, because the kubelet would ignore fsGroup
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }
