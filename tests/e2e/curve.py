"""Record replicas and backlog of a system over time, in the format of `sluice replay`."""

import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import redis

from ops.command import Unusable
from tests.e2e import objects
from tests.e2e.system import System

PERIOD_S = 1.0
SERVICE_S = 1.0
STOP_TIMEOUT_S = 60


@dataclass
class Recorder:
    """Sample replicas and backlog once per second on a separate thread, inside a `with` block."""

    system: System
    posted: int = 0
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(STOP_TIMEOUT_S)
        self._sample()

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began

    def came(self, count: int, at_s: float) -> None:
        """Record that the API accepted `count` tasks at a time."""
        self.arrivals.append((round(at_s, 2), count))
        self.posted += count

    def write(self, path: Path, sync_s: float) -> None:
        """Write the curve, with the settings of the ScaledObject and the HPA under which it was recorded."""
        spec = objects.get(objects.SCALER)["spec"]
        curve: dict[str, Any] = {
            "min": spec["minReplicaCount"],
            "max": spec["maxReplicaCount"],
            "value": float(spec["triggers"][0]["metadata"]["value"]),
            "sync_s": sync_s,
            "service_s": SERVICE_S,
            "arrivals": self.arrivals,
            "samples": self.samples,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(curve) + "\n")

    def _run(self) -> None:
        while not self._over.wait(PERIOD_S):
            with suppress(Unusable, redis.RedisError):  # a failed sample leaves a gap in the curve
                self._sample()

    def _sample(self) -> None:
        finished = self.system.finished()
        ready, desired = objects.replicas(objects.WORKER)
        # accepted tasks that have not ended: ready and unacked messages
        depth = max(0, self.posted - finished)
        self.samples.append({"t_s": round(self.now_s, 2), "ready": ready, "desired": desired, "depth": depth})
