"""The command lines of the Kubernetes components: control plane and node are one machine here."""

from pathlib import Path

from minicluster.layout import (
    API_PORT,
    CERTIFICATES,
    HPA_SYNC_S,
    INSIDE,
    NODE,
    NODE_ADDRESS,
    POD_NETWORK,
    SERVICE_NETWORK,
)

FILES = Path(__file__).parent / "files"
ADMIN = CERTIFICATES / "admin.kubeconfig"
ETCD_PORT = 2379
CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")


def etcd(programs: Path) -> list[str]:
    """The store of the API server. It does not sync to the disk, as its data need not outlive the cluster."""
    url = f"http://127.0.0.1:{ETCD_PORT}"
    return [
        # Go names the program after the last part of its package path that is no version
        str(programs / "server"), f"--data-dir={INSIDE / 'etcd'}", "--unsafe-no-fsync",
        f"--listen-client-urls={url}", f"--advertise-client-urls={url}",
    ]  # fmt: skip


def api_server(programs: Path) -> list[str]:
    """The API server. It listens on every address of the network namespace."""
    pki = CERTIFICATES
    return [
        str(programs / "kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{ETCD_PORT}",
        f"--secure-port={API_PORT}", f"--advertise-address={NODE_ADDRESS}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}", "--authorization-mode=Node,RBAC", "--allow-privileged=true",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--tls-cert-file={pki / 'apiserver.crt'}", f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        # for `kubectl exec` and `logs`; by address, because the node's name cannot be resolved
        f"--kubelet-client-certificate={pki / 'admin.crt'}", f"--kubelet-client-key={pki / 'admin.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        # the API server forwards the HPA's requests for metrics to KEDA
        f"--requestheader-client-ca-file={pki / 'ca.crt'}", "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki / 'front-proxy.crt'}", f"--proxy-client-key-file={pki / 'front-proxy.key'}",
    ]  # fmt: skip


def controller_manager(programs: Path) -> list[str]:
    """The controllers, each with a service account of its own."""
    return [
        str(programs / "kube-controller-manager"), f"--kubeconfig={ADMIN}", "--leader-elect=false",
        "--use-service-account-credentials", f"--root-ca-file={CERTIFICATES / 'ca.crt'}",
        f"--service-account-private-key-file={CERTIFICATES / 'service-account.key'}",
        "--allocate-node-cidrs", f"--cluster-cidr={POD_NETWORK}",
        f"--horizontal-pod-autoscaler-sync-period={HPA_SYNC_S}s",
    ]  # fmt: skip


def scheduler(programs: Path) -> list[str]:
    """The scheduler. It is the only one, so it elects no leader."""
    return [str(programs / "kube-scheduler"), f"--kubeconfig={ADMIN}", "--leader-elect=false"]


def containerd() -> list[str]:
    """Debian's containerd, which starts Debian's runc."""
    return ["containerd", f"--config={FILES / 'containerd.toml'}"]


def kubelet(programs: Path, cgroup: str) -> list[str]:
    """The kubelet. Its pods are below `cgroup`, so that two clusters on a machine do not remove each other's."""
    return [
        str(programs / "kubelet"), f"--config={FILES / 'kubelet.yaml'}", f"--root-dir={INSIDE / 'kubelet'}",
        f"--kubeconfig={CERTIFICATES / 'node.kubeconfig'}", f"--cert-dir={CERTIFICATES}",
        f"--hostname-override={NODE}", f"--node-ip={NODE_ADDRESS}", f"--cgroup-root={cgroup}",
    ]  # fmt: skip


def proxy(programs: Path) -> list[str]:
    """kube-proxy with iptables. The zeros leave the machine's connection tracking limits as they are."""
    return [
        str(programs / "kube-proxy"), f"--kubeconfig={ADMIN}", f"--hostname-override={NODE}",
        f"--cluster-cidr={POD_NETWORK}", "--proxy-mode=iptables", "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
    ]  # fmt: skip
