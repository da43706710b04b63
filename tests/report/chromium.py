"""A headless Chromium that a test steers with keys and a pointer, over its DevTools protocol and a pipe."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
KEYS = {"Tab": 9, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}


class Chromium:
    """One tab. `errors` are the lines of its console, `requests` the addresses that it asked for; no host is found."""

    def __init__(self, profile: Path) -> None:
        command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
                   f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", "about:blank"]  # fmt: skip
        pipe = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'  # commands are read from 3, answers written to 4
        self.process = subprocess.Popen(["sh", "-c", pipe, "sh", *command], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._sent, self._session, self._rest = 0, "", b""
        pages = self.send("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in pages if target["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{part}.enable")

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()

    def send(self, method: str, **params: Any) -> Any:
        """The answer to a command; events that come before it are kept."""
        assert self.process.stdin
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        self.process.stdin.write(json.dumps(message).encode() + b"\0")
        self.process.stdin.flush()
        while (answer := self._receive()).get("id") != self._sent:
            event, about = answer.get("method"), answer.get("params", {})
            if event == "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])
            elif event in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.errors.append(json.dumps(about)[:1000])
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout
        while b"\0" not in self._rest:
            more = self.process.stdout.read1(65536)  # type: ignore[attr-defined]
            assert more, "Chromium has ended"
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))

    def open(self, page: Path, width: int = 1200, height: int = 900, **features: str) -> None:
        """Args: features: of the media, such as prefers_reduced_motion="reduce"."""
        self.errors.clear()
        self.requests.clear()
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.send("Emulation.setEmulatedMedia", features=named)
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.send("Page.navigate", url=page.as_uri())
        self.wait("document.readyState === 'complete' && location.protocol === 'file:'")

    def ask(self, code: str) -> Any:
        """The value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not self.ask(condition):
            assert time.monotonic() < end, f"never came: {condition}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        about = {"key": key, "windowsVirtualKeyCode": KEYS[key], **({"text": key} if len(key) == 1 else {})}
        self.send("Input.dispatchKeyEvent", type="keyDown", **about)
        self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def point(self, x: float, y: float, click: bool = False) -> None:
        kinds = ("mouseMoved", *(("mousePressed", "mouseReleased") if click else ()))
        for kind in kinds:
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left" if click else "none", clickCount=1)
