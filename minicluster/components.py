"""The command lines of the Kubernetes components. Control plane and node run on one machine."""

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
    """The store of the API server. It does not sync to disk, because its data need not survive the cluster."""
    url = f"http://127.0.0.1:{ETCD_PORT}"
    return [
        # Go names the program after its package path, etcd/server/v3 without the version
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
        # for `kubectl exec` and `logs`. InternalIP, because the node's name cannot be resolved.
        f"--kubelet-client-certificate={pki / 'admin.crt'}", f"--kubelet-client-key={pki / 'admin.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        # the API server forwards the HPA's requests for metrics to KEDA
        f"--requestheader-client-ca-file={pki / 'ca.crt'}", "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki / 'front-proxy.crt'}", f"--proxy-client-key-file={pki / 'front-proxy.key'}",
    ]  # fmt: skip


def controller_manager(programs: Path) -> list[str]:
    """The controller manager. Each controller has its own service account."""
    return [
        str(programs / "kube-controller-manager"), f"--kubeconfig={ADMIN}", "--leader-elect=false",
        "--use-service-account-credentials", f"--root-ca-file={CERTIFICATES / 'ca.crt'}",
        f"--service-account-private-key-file={CERTIFICATES / 'service-account.key'}",
        "--allocate-node-cidrs", f"--cluster-cidr={POD_NETWORK}",
        f"--horizontal-pod-autoscaler-sync-period={HPA_SYNC_S}s",
    ]  # fmt: skip


def scheduler(programs: Path) -> list[str]:
    """The scheduler. Without leader election, because there is only one."""
    return [str(programs / "kube-scheduler"), f"--kubeconfig={ADMIN}", "--leader-elect=false"]


def containerd() -> list[str]:
    """Debian's containerd, which starts Debian's runc."""
    return ["containerd", f"--config={FILES / 'containerd.toml'}"]


def kubelet(programs: Path, cgroup: str) -> list[str]:
    """The kubelet. Its pods' control groups are below `cgroup`, so that clusters do not remove each other's groups."""
    return [
        str(programs / "kubelet"), f"--config={FILES / 'kubelet.yaml'}", f"--root-dir={INSIDE / 'kubelet'}",
        f"--kubeconfig={CERTIFICATES / 'node.kubeconfig'}", f"--cert-dir={CERTIFICATES}",
        f"--hostname-override={NODE}", f"--node-ip={NODE_ADDRESS}", f"--cgroup-root={cgroup}",
    ]  # fmt: skip


def proxy(programs: Path) -> list[str]:
    """kube-proxy with iptables. The zeros keep the machine's limits for connection tracking."""
    return [
        str(programs / "kube-proxy"), f"--kubeconfig={ADMIN}", f"--hostname-override={NODE}",
        f"--cluster-cidr={POD_NETWORK}", "--proxy-mode=iptables", "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
    ]  # fmt: skip
