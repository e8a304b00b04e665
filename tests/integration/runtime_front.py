"""A server in front of the registry, which passes everything on until the test wants something else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx2


class Front:
    """`refuse` tells, by the path of a request, the status to answer with; None passes it on."""

    def __init__(self, registry_url: str) -> None:
        self.refuse: Callable[[str], int | None] = lambda _path: None
        self.refused: list[str] = []
        self.passed: list[str] = []
        self.origin = urlsplit(registry_url)
        front = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one_of_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                status = front.refuse(self.path)
                if status is not None:
                    front.refused.append(self.path)
                    self._answer(status, b'{"error_code": %d, "message": "by the test"}' % status)
                    return
                front.passed.append(self.path)
                url = f"{front.origin.scheme}://{front.origin.netloc}{self.path}"
                given = {"content-type": self.headers.get("content-type", "application/json")}
                answer = httpx2.request(self.command, url, content=body, headers=given, trust_env=False)
                self._answer(answer.status_code, answer.content)

            do_GET = do_POST = do_PUT = handle_one_of_any  # noqa: N815 - as the library calls them

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Not on the terminal."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}{self.origin.path}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def front_of(registry_url: str) -> Iterator[Front]:
    front = Front(registry_url)
    try:
        yield front
    finally:
        front.close()
