"""Headless Chromium, driven by the DevTools protocol: loads a page, collects its errors and requests, takes pictures.

The browser resolves only HOST, to 127.0.0.1: some pages contact other hosts only if they are not on localhost.
"""

import base64
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from ops.apt import apt_install
from ops.servers.child import Child, until

PROGRAMS = ("chromium", "google-chrome", "chrome")
PACKAGE = "chromium"
HOST = "sluice.example"
START_DEADLINE_S = 60
ANSWER_TIMEOUT_S = 30
LARGEST_BYTES = 64 * 1024 * 1024


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self.errors: list[str] = []
        """JavaScript exceptions, and messages with the level warning or error."""
        self.requests: list[str] = []
        """The URLs of all requests, to any host."""
        self._socket = socket
        self._numbers = itertools.count(1)
        self._seen: set[str] = set()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")

    def open(self, path: Path, width: int, height: int = 900) -> None:
        """Load a file in a window of this size, without a network."""
        self._ask("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
        self.visit(path.as_uri(), width, height)

    def visit(self, url: str, width: int, height: int = 900) -> None:
        """Load a page in a window of this size."""
        self._seen.clear()
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._ask("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._seen:
            self._receive()

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, which may be a promise."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self._ask("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page as PNG."""
        answer = self._ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(ANSWER_TIMEOUT_S))
        method, about = message.get("method", ""), message.get("params", {})
        self._seen.add(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        if method == "Runtime.exceptionThrown":
            self.errors.append(about["exceptionDetails"]["exception"].get("description", "an exception"))
        if method == "Runtime.consoleAPICalled" and about["type"] in {"error", "warning", "assert"}:
            self.errors.append(str(about["args"]))
        if method == "Log.entryAdded" and about["entry"]["level"] in {"error", "warning"}:
            self.errors.append(about["entry"]["text"])
        return message


@contextmanager
def page(folder: Path) -> Iterator[Page]:
    """A tab of a browser with its own profile. Unusable if there is no browser and none can be installed."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        apt_install([PACKAGE])
        program = shutil.which(PACKAGE)
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0"]
    quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    alone = [f"--host-resolver-rules=MAP {HOST} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    # --no-sandbox: the sandbox needs rights that a container often lacks, and only our own pages are opened
    command = [str(program), *options, *quiet, *alone, f"--user-data-dir={folder}", "about:blank"]
    browser = Child("Chromium", command, log=folder / "browser.log", env=dict(os.environ))
    port = folder / "DevToolsActivePort"
    browser.start()
    try:
        browser.ready(lambda: port.exists() and len(port.read_text().split()) == 2, START_DEADLINE_S)
        number, path = port.read_text().split()
        with connect(f"ws://127.0.0.1:{number}{path}", max_size=LARGEST_BYTES) as socket:
            target = _browser_ask(socket, 1, "Target.createTarget", url="about:blank")["targetId"]
            tab = f"ws://127.0.0.1:{number}/devtools/page/{target}"
            with connect(tab, max_size=LARGEST_BYTES) as tab_socket:
                yield Page(tab_socket)
    finally:
        browser.stop()
        until(lambda: not browser.alive, START_DEADLINE_S, "the end of Chromium")


def _browser_ask(socket: ClientConnection, number: int, method: str, **parameters: Any) -> dict[str, Any]:
    socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
    while (answer := json.loads(socket.recv(ANSWER_TIMEOUT_S))).get("id") != number:
        pass
    result: dict[str, Any] = answer["result"]
    return result
