"""A headless Chromium that a test moves the mouse in, by its debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tornado.websocket import WebSocketClientConnection, websocket_connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZE = 1000, 700


async def _connect(url: str) -> WebSocketClientConnection:
    return await websocket_connect(url)


class Browser:
    """One page in one browser; each call waits until the page has drawn what it shows."""

    def __init__(self, profile: Path) -> None:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0"]
        self._process = subprocess.Popen(
            [str(CHROMIUM), *flags, f"--user-data-dir={profile}", f"--window-size={SIZE[0]},{SIZE[1]}", "about:blank"],
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._process.stderr is not None
        found = next(filter(None, (re.search(r"ws://[^\s]+", line) for line in self._process.stderr)))
        self._loop = asyncio.new_event_loop()
        self._number = 0
        self.errors: list[str] = []
        self._socket = self._loop.run_until_complete(_connect(found.group()))
        targets = self._send("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime"):
            self._send(f"{domain}.enable")
        metrics = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        self._send("Emulation.setDeviceMetricsOverride", **metrics)

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session := getattr(self, "_session", None):
            message["sessionId"] = session
        return self._loop.run_until_complete(asyncio.wait_for(self._answer(message), 20))

    async def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        await self._socket.write_message(json.dumps(message))
        while True:
            text = await self._socket.read_message()
            assert text is not None, "the browser ended"
            got = json.loads(text)
            if got.get("method") == "Runtime.exceptionThrown":
                self.errors.append(got["params"]["exceptionDetails"]["exception"].get("description", "error"))
            if got.get("id") == message["id"]:
                assert "error" not in got, got
                result: dict[str, Any] = got["result"]
                return result

    def ask(self, script: str) -> Any:
        """What a line of JavaScript says."""
        return self._send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"].get(
            "value"
        )

    def drawn(self) -> str:
        """Wait until everything is drawn: slide, layer and signature, with ``|`` between."""
        for _ in range(400):
            # two frames: what was asked for is drawn in the next one
            self._send("Runtime.evaluate", awaitPromise=True, expression="new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")  # fmt: skip
            if (found := self.ask("document.body && document.body.dataset.drawn")) and not self.errors:
                return str(found)
            assert not self.errors, self.errors
        msg = "nothing was drawn"
        raise AssertionError(msg)

    def open(self, page: Path, address: str = "") -> str:
        """Open a file, with what follows ``#`` in its address."""
        self._send("Page.navigate", url="about:blank")
        self._send("Page.navigate", url=page.resolve().as_uri() + (f"#{address}" if address else ""))
        return self.drawn()

    def picture(self) -> np.ndarray:
        """Pixels ``(h, w, 3)`` of what is seen."""
        self.drawn()
        data = base64.b64decode(self._send("Page.captureScreenshot")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """``mousePressed``, ``mouseMoved``, ``mouseReleased`` or ``mouseWheel`` at a place."""
        button = {} if kind == "mouseWheel" else {"button": "left", "clickCount": 1}
        self._send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button, **more)

    def choose(self, menu: str, value: str) -> str:
        """Choose an entry of a menu."""
        self.ask(
            f"(m => {{ m.value = {json.dumps(value)}; m.dispatchEvent(new Event('change')); }})(document.getElementById('{menu}'))"
        )
        return self.drawn()

    def close(self) -> None:
        """End the browser."""
        self._socket.close()
        self._loop.close()
        os.killpg(self._process.pid, signal.SIGKILL)  # its helpers too
        self._process.wait()
