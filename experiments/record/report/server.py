"""A report that follows its runs, served on this machine alone."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from experiments.record.report.markup import text
from experiments.record.report.runs import inside

WATCHED = ("config.json", "versions.json", "*/metrics.jsonl", "grid.mp4", "*/videos/*.mp4")


def state_of(folders: Sequence[Path]) -> str:
    """A word that changes whenever what a report shows has changed on the disk."""
    found = hashlib.sha256()
    for folder in folders:
        for pattern in WATCHED:
            for path in sorted(folder.glob(pattern)):
                if inside(folder, path):
                    status = path.stat()
                    found.update(f"{path}:{status.st_size}:{status.st_mtime_ns};".encode())
    return found.hexdigest()[:16]


class Watcher:
    """Makes the page anew when the runs have gone on, and not more often.

    Args:
        render: the page, of a word for the state that it shows.
    """

    def __init__(self, folders: Sequence[Path], render: Callable[[str], str]) -> None:
        self._folders, self._render = folders, render
        self._lock, self._made, self._page = threading.Lock(), "", ""

    def state(self) -> str:
        """That of now."""
        return state_of(self._folders)

    def page(self) -> str:
        """The page as things stand."""
        with self._lock:
            now = self.state()
            if now != self._made:
                self._page, self._made = self._render(now), now
            return self._page


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, watcher: Watcher, *args: object, **kwargs: object) -> None:
        self._watcher = watcher
        super().__init__(*args, **kwargs)  # pyright: ignore[reportArgumentType]

    def do_GET(self) -> None:
        """The page, or the word for its state."""
        port = self.connection.getsockname()[1]
        ours = (f"127.0.0.1:{port}", f"localhost:{port}")  # a foreign page would come by a name of its own
        if self.headers.get("Host") not in ours:
            self._answer(403, "text/plain", "this page is for this machine alone")
        elif self.path not in ("/", "/state"):
            self._answer(404, "text/plain", "there is nothing here; the report is at /")
        else:
            try:
                kind = "text/plain" if self.path == "/state" else "text/html"
                self._answer(200, kind, self._watcher.state() if self.path == "/state" else self._watcher.page())
            except (ValueError, OSError) as error:  # a folder that went away
                self._answer(503, "text/html", f"<!doctype html><title>No report</title><p>{text(error)}")

    def _answer(self, status: int, kind: str, body: str) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line for each request says nothing to a user."""


def make_server(watcher: Watcher, port: int) -> ThreadingHTTPServer:
    """A server on this machine's own address; `serve_forever()` runs it.

    Raises:
        OSError: the port is taken.
    """
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, watcher))
    except OSError as error:
        raise OSError(f"--port={port} cannot be had ({error.strerror}); give another") from error
    server.daemon_threads = True
    return server
