"""A TCP proxy in front of a server: slow, deaf, cut, or losing the answer to one request, as it is told while it runs.

Kafka tells clients where its brokers are, so each broker has a second listener whose advertised port is the proxy's.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

HOST = "127.0.0.1"

Trap = Callable[[bytes], bool]
"""Whether the answer to what was just sent is the one that gets lost."""


@dataclass
class Proxy:
    """From a port of its own to `to`. What it does to connections is set at any time, from any thread."""

    to: int
    port: int = 0
    at: str = HOST
    towards: str = HOST
    delay: float = 0.0  # seconds that each piece takes, in both directions
    refusing: bool = False  # new connections are closed at once
    silent: bool = False  # nothing passes any more, and nobody is told
    deaf: bool = False  # what is asked arrives; the answers do not
    trap: Trap | None = None
    trapped: int = 0
    late: Trap | None = None  # the request that arrives `late_by` seconds after its connection was cut
    late_by: float = 2.0
    arrived: int = 0  # trapped and late requests that are with the server by now
    passed: int = 0  # bytes from the server
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def start(self) -> Proxy:
        """Listen, in a thread of its own."""
        self._loop = asyncio.new_event_loop()
        ready: threading.Event = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="proxy", daemon=True)
        self._thread.start()
        assert ready.wait(10), "the proxy does not listen"
        return self

    def stop(self) -> None:
        """Close everything."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def well(self) -> None:
        """As if nothing had ever been; connections that lost something are cut."""
        lost = self.silent or self.deaf
        self.delay, self.refusing, self.silent, self.deaf, self.trap, self.late = 0.0, False, False, False, None, None
        if lost:
            self.cut()

    def cut(self) -> None:
        """Close every connection, in the middle of whatever it does."""
        self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        for writer in list(self._open):
            with contextlib.suppress(Exception):
                writer.transport.abort()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, self.at, self.port))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        self._cut()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            back, forth = await asyncio.open_connection(self.towards, self.to)
        except OSError:
            writer.transport.abort()
            return
        line = _Line(self, writer)
        self._open |= {writer, forth}
        try:
            await asyncio.gather(line.ask(reader, forth), line.answer(back, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open -= {writer, forth}
            for each in (writer, forth):
                each.transport.abort()


class _Line:
    """One connection."""

    def __init__(self, proxy: Proxy, asking: asyncio.StreamWriter) -> None:
        self.proxy, self.asking, self.lost = proxy, asking, False

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await self._next(reader):
            trap = self.proxy.trap
            if trap is not None and trap(data):
                self.lost, self.proxy.trapped = True, self.proxy.trapped + 1
            late = self.proxy.late
            if late is not None and late(data):
                self.lost = True
                self.asking.transport.abort()
                await asyncio.sleep(self.proxy.late_by)
            writer.write(data)
            await writer.drain()
            if self.lost:  # the server has it, and does it; who asked will never know
                await asyncio.sleep(0.3)
                self.proxy.arrived += 1
                raise ConnectionAbortedError
        writer.write_eof()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await self._next(reader):
            if not (self.lost or self.proxy.deaf):
                self.proxy.passed += len(data)
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        data = await reader.read(65536)
        if data and self.proxy.delay:
            await asyncio.sleep(self.proxy.delay)
        for _ in iter(lambda: self.proxy.silent, False):
            await asyncio.sleep(0.05)
        return data


def first(trap: Trap, times: int = 1) -> Trap:
    """A trap that springs so often and no more."""
    left = iter(range(times))
    return lambda data: trap(data) and next(left, None) is not None


def end_of_transaction(data: bytes) -> bool:
    """Whether a client of Kafka asks for the end of a transaction: EndTxn, whose number is 26."""
    return any(frame[:2] == b"\x00\x1a" for frame in _frames(data))


def commit_in_sql(data: bytes) -> bool:
    """Whether a client of PostgreSQL asks for a commit: a simple query, or a statement that it parses."""
    return b"COMMIT" in data


def _frames(data: bytes) -> Iterator[bytes]:
    """The requests in a piece that begins with one, as librdkafka sends them."""
    while len(data) >= 6:
        size = int.from_bytes(data[:4], "big")
        yield data[4 : 4 + size]
        data = data[4 + size :]


def relay(towards: str, ports: list[int]) -> None:
    """Inside another network namespace: the same ports on its own loopback, until the process is ended."""
    for port in ports:
        Proxy(port, port, towards=towards).start()
    threading.Event().wait()


if __name__ == "__main__":
    relay(sys.argv[1], [int(port) for port in sys.argv[2:]])
