"""Runs RabbitMQ and its own epmd as child processes on free loopback ports, with a generated password, in one folder.

`make up` and the tests use this class. All ports listen only on the loopback interface.
"""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from apps.contract import topology
from ops.definitions import ADMIN
from ops.files import private_folder, write_private
from ops.management import Management
from ops.servers.child import Child
from ops.servers.ports import free_ports, is_open
from ops.servers.programs import Programs

START_DEADLINE_S = 90.0  # RabbitMQ starts in 6 s on idle cores, and many times slower when tests share the cores
ERLANG_NETWORK = "-noinput -start_epmd false -kernel inet_dist_use_interface"
# few scheduler threads without busy waiting, because the machine is shared with other processes
ERLANG_THREADS = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"


class RabbitMQ:
    """One RabbitMQ node, 3.10 to 4.3, with its epmd. The first start in an empty folder creates the admin user.

    `root` is the root file system that RabbitMQ runs in (ops/servers/newer.py), or None for this machine's. A subclass
    for a node of a cluster sets the class attributes; `enter` is a command that runs programs in the node's namespaces
    (tests/chaos/cluster.py).
    """

    host = "127.0.0.1"
    name = "sluice@localhost"
    ports: Sequence[int] = ()
    enter: Sequence[str | Path] = ()
    more_configuration: Sequence[str] = ()

    def __init__(
        self,
        folder: Path,
        programs: Programs,
        *,
        password: str | None = None,
        logs: Path | None = None,
        root: Path | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.password = password or secrets.token_urlsafe(24)
        self.port, self.management_port, distribution_port, epmd_port = self.ports or free_ports(4)
        self.management = Management(f"http://{self.host}:{self.management_port}", ADMIN, self.password)
        self._root = root
        logs = logs or self.folder
        self.environment = self._environment(distribution_port, epmd_port)
        epmd = [*self.enter, *self._epmd(programs), "-port", str(epmd_port), "-address", self.host]
        self.epmd = Child("epmd", epmd, log=logs / "epmd.log", env=self.environment)
        server = self.command(programs.rabbitmq_server)
        self.node = Child("RabbitMQ", server, log=logs / "rabbitmq.log", env=self.environment)
        self._epmd_port = epmd_port

    @property
    def version(self) -> tuple[int, ...]:
        """The version of the running node, for example (3, 10, 8)."""
        return self.management.version

    def url(self, user: str = ADMIN, password: str | None = None, vhost: str = "/") -> str:
        """The AMQP URL of a virtual host."""
        user, password, vhost = (quote(text, safe="") for text in (user, password or self.password, vhost))
        return f"amqp://{user}:{password}@{self.host}:{self.port}/{vhost}"

    def start(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Start the node, or restart it with the same data and ports, and wait until AMQP and management answer.

        Raises Unusable if they do not answer within `deadline_s` seconds; then the node is stopped.
        """
        self.launch(deadline_s)
        self.wait_ready(deadline_s)

    def launch(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Start epmd and the node without waiting for the node: nodes of a cluster wait for each other."""
        self._write_configuration()
        if not self.epmd.alive:
            self.epmd.start()
            self.epmd.ready(lambda: is_open(self._epmd_port, self.host), deadline_s)
        self.node.start()

    def wait_ready(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Wait until AMQP and management answer. Otherwise, stop the node and raise Unusable."""
        try:
            self.node.ready(self._answers, deadline_s)
        except BaseException:
            self.stop()
            raise

    def stop(self, deadline_s: float = 30.0) -> None:
        """Stop the node, which flushes its data, and then its epmd."""
        self.node.stop(deadline_s)
        self.epmd.stop()

    def kill(self) -> None:
        """Send SIGKILL to the node. epmd keeps running, as after a crash of the broker. start() restarts the node."""
        self.node.kill()

    def suspend(self) -> None:
        """Suspend the Erlang VM with SIGSTOP: connections stay open, but nothing is answered."""
        self.node.suspend()

    def resume(self) -> None:
        """Resume a suspended node."""
        self.node.resume()

    def _answers(self) -> bool:
        return self.management.answers() and is_open(self.port, self.host)

    def _environment(self, distribution_port: int, epmd_port: int) -> dict[str, str]:
        data = Path("/srv") if self._root else self.folder
        interface = self.host.replace(".", ",")
        return {
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(data),  # the folder of the Erlang cookie, which must differ from other nodes of this user
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": self.host,
            "ERL_INETRC": str(data / "inetrc"),
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_USE_LONGNAME": str("." in self.name).lower(),
            "RABBITMQ_CONF_ENV_FILE": str(data / "none"),  # the system-wide file would override these variables
            "RABBITMQ_CONFIG_FILE": str(data / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(data / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(data / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(data / "data"),
            "RABBITMQ_LOG_BASE": str(data / "log"),
            "RABBITMQ_LOGS": "-",
            # makes the script exec the Erlang VM, so that the VM receives our signals and the parent-death signal
            "RABBITMQ_ALLOW_INPUT": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{ERLANG_NETWORK} {{{interface}}} {ERLANG_THREADS}",
        }

    def command(self, program: str | Path, *arguments: str) -> list[str | Path]:
        """The command line that runs a program of RabbitMQ (rabbitmq-server, rabbitmqctl, ...) where the node runs."""
        if self._root is None:
            return [*self.enter, program, *arguments]
        # A mount namespace of the node's own: the mounts disappear even if the node is killed.
        enter = 'mount -t proc proc "$0/proc" && mount --bind "$1" "$0/srv" && shift && exec chroot "$0" "$@"'
        inside = Path("/usr/lib/rabbitmq/bin") / Path(program).name
        return [*self.enter, "unshare", "--mount", "sh", "-c", enter, self._root, self.folder, inside, *arguments]

    def _epmd(self, programs: Programs) -> list[str | Path]:
        if self._root is None:
            return [programs.epmd]
        (epmd,) = self._root.glob("usr/lib/erlang/erts-*/bin/epmd")
        return ["chroot", self._root, Path("/") / epmd.relative_to(self._root)]

    def _write_configuration(self) -> None:
        private_folder(self.folder)
        write_private(self.folder / "enabled_plugins", "[rabbitmq_management].\n")
        # Erlang then uses neither DNS nor its resolver process, which outlives the node as an orphan.
        write_private(self.folder / "inetrc", '{lookup, [file]}.\n{host, {127,0,0,1}, ["localhost"]}.\n')
        lines = (
            f"listeners.tcp.1 = {self.host}:{self.port}",
            f"management.tcp.ip = {self.host}",
            f"management.tcp.port = {self.management_port}",
            f"default_user = {ADMIN}",
            f"default_pass = {self.password}",
            f"max_message_size = {topology.MESSAGE_MAX_BYTES}",
            "disk_free_limit.absolute = 50MB",  # the default refuses every publish on a nearly full disk
            *self.more_configuration,
        )
        write_private(self.folder / "advanced.config", topology.ADVANCED_CONFIG + "\n")
        write_private(self.folder / "rabbitmq.conf", "\n".join(lines) + "\n")
