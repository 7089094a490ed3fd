"""A directory served over HTTP on this machine, with a record of what was asked for."""

from __future__ import annotations

import functools
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Served:
    """Where a directory is served, and the files that were asked for."""

    address: str = ""
    asked: list[str] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)  # end of a path -> status sent in place of the file


@contextmanager
def served(directory: Path) -> Iterator[Served]:
    record = Served()

    class Handler(SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            record.asked.append(self.path)
            status = next((status for end, status in record.answers.items() if self.path.endswith(end)), None)
            if status is None:
                super().do_GET()
            else:
                self.send_error(status)

        def list_directory(self, path: Any) -> None:  # as most servers
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(directory))) as server:
        server.daemon_threads = True
        record.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield record
        finally:
            server.shutdown()
            thread.join()
