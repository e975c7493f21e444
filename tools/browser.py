"""A headless browser by its own protocol, over two pipes: pages, pictures of them, what they say.

Needs Chromium or Chrome (Debian, Ubuntu: ``apt-get install chromium``) and nothing of Python. The
browser has no network, so that a page which loads anything from elsewhere says so.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

#: What such browsers are called.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: Software draws 3D graphics, the same on every machine; no name but this machine has an address.
OPTIONS = (
    "--headless=new", "--no-sandbox", "--no-first-run", "--disable-dev-shm-usage",
    "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-pipe",
)  # fmt: skip
#: Seconds to wait for a page; machines that are shared may be slow.
PATIENCE = 120.0


def find_browser() -> str | None:
    """Return the path of a browser (`$PHICALC_BROWSER`, or the first that is here), or None."""
    return shutil.which(os.environ.get("PHICALC_BROWSER", "")) or next(
        filter(None, map(shutil.which, NAMES)), None
    )


class Browser:
    """A browser with one page, to be used in a ``with`` statement.

    Parameters
    ----------
    path
        The program; `find_browser` finds one.

    Attributes
    ----------
    complaints
        What the page has complained of since it was opened: errors and warnings of its scripts,
        and files that could not be loaded.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.complaints: list[str] = []

    def __enter__(self) -> Browser:
        """Start it."""
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_read, self._to_write = os.pipe()
        self._from_read, to_answer = os.pipe()

        def connect() -> None:  # the protocol wants these numbers; copies first, so none is lost
            ends = os.dup(to_read), os.dup(to_answer)
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        command = [self.path, *OPTIONS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            command, preexec_fn=connect, close_fds=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_answer)
        self._numbers, self._rest = itertools.count(1), b""
        self._messages: deque[dict[str, Any]] = deque()
        self._session: str | None = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in targets if each["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._to_write)
        os.close(self._from_read)
        self._profile.cleanup()

    def open(self, address: str, *, width: int, height: int = 900) -> None:
        """Load a page, as wide and high (in pixels of CSS) as given, and wait until it is there."""
        self.complaints.clear()
        self.resize(width=width, height=height)
        self._is_loaded = False
        self.call("Page.navigate", url=address)
        while not self._is_loaded:
            self._note(self._receive())
        self._settle()

    def resize(self, *, width: int, height: int) -> None:
        """Make the window as wide and high (in pixels of CSS) as given; a narrow one is a phone."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self._settle()

    def _settle(self) -> None:
        """Wait until the page has drawn itself."""
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 300)))")

    def run(self, script: str) -> Any:
        """Return the value of an expression of JavaScript in the page.

        Raises
        ------
        RuntimeError
            If it fails.
        """
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"]))
        return found["result"].get("value")

    def picture(self, file: Path) -> Path:
        """Save what is to be seen as PNG."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        file.write_bytes(base64.b64decode(data))
        return file

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result.

        Raises
        ------
        RuntimeError
            If the browser refuses or dies.
        TimeoutError
            If it does not answer.
        """
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": arguments}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._to_write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        """Return the next message of the browser."""
        start = time.monotonic()
        os.set_blocking(self._from_read, False)
        while not self._messages:
            try:
                received = os.read(self._from_read, 1 << 20)
            except BlockingIOError:
                if time.monotonic() - start > PATIENCE:
                    raise TimeoutError(f"{self.path} says nothing for {PATIENCE:.0f} s") from None
                time.sleep(0.01)
                continue
            if not received:
                raise RuntimeError(f"{self.path} has ended by itself")
            *whole, self._rest = (self._rest + received).split(b"\0")
            self._messages += map(json.loads, whole)
        return self._messages.popleft()

    def _note(self, message: dict[str, Any]) -> None:
        """Keep what an event tells of the page."""
        method, about = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._is_loaded = True
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(about["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(about["args"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(about["entry"]["text"] + " " + about["entry"].get("url", ""))
        elif method == "Network.loadingFailed" and not about.get("canceled"):
            self.complaints.append(f"{about['type']}: {about['errorText']}")
