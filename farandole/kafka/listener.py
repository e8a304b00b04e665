"""The control topic as a service hears it: from its beginning at the start, then as commands come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from farandole.control import OF_PIPELINES, OF_RUNS, ORDER, RESUME, Command, pipeline_id
from farandole.errors import FarandoleError, SettingsError, Undecodable
from farandole.event import RawRecord
from farandole.kafka.reader import TopicReader
from farandole.kafka.registry import UnknownSchema

MOST = 10_000
"""Commands for runs that may wait here to be taken; beyond it the oldest are dropped."""
AGAIN, PATIENCE = 1.0, 30
"""Seconds between two tries, and how many of them a command is given whose schema the registry does not know."""


class Listener:
    """What is wanted of one pipeline. A thread of its own reads; the rest is for the polling thread."""

    def __init__(
        self,
        pipeline: str,
        reader: Callable[[], TopicReader],
        decode: Callable[[RawRecord], Mapping[str, Any] | None],
        say: Callable[..., None],
    ) -> None:
        self._pipeline, self._reader, self._decode, self._say = pipeline, reader, decode, say
        self._next: dict[int, int] = {}
        self._goal: dict[int, int] = {}
        self._news: dict[str, Command] = {}
        self._lock, self._dropped = threading.Lock(), 0
        self._ready, self._stop = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._listen, name="control", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def take(self) -> list[Command] | None:
        """What came since the last look, oldest first, of each id the newest: the first time, all that stands.

        None until everything was read that stood there when it began. Raises what cannot be mended by waiting.
        """
        if self._error is not None:
            raise self._error
        if not self._ready.is_set():
            return None
        with self._lock:
            news, self._news = self._news, {}
        return list(news.values())

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _listen(self) -> None:
        tries = 0
        while not self._stop.is_set():
            try:
                with self._reader() as reader:
                    self._follow(reader)
            except SettingsError as refused:
                self._error = refused
                return
            except FarandoleError as error:  # away, or moved under us: where it stood, or from what is left of it
                self._say("control.waits", error=str(error), tries=tries)
                tries += 1
            except BaseException as error:  # noqa: BLE001 - the service ends with it, instead of going on unsteered
                self._error = error
                return
            self._stop.wait(AGAIN)

    def _follow(self, reader: TopicReader) -> None:
        starts, ends = reader.starts(), reader.undecided_ends()
        if any(self._next.get(p, 0) > end for p, end in ends.items()):
            self._next = {}  # created anew
        self._next = {p: max(self._next.get(p, 0), start) for p, start in starts.items()}
        self._goal = self._goal or ends
        for batch in reader.read(self._next):
            for raw in batch:
                self._hear(raw)
                self._next[raw.partition] = raw.offset + 1
            self._next.update(reader.positions)
            if all(self._next.get(p, 0) >= end for p, end in self._goal.items()):
                self._ready.set()
            if self._stop.is_set():
                return

    def _hear(self, raw: RawRecord) -> None:
        """Take what is for this pipeline. What cannot be read is somebody else's, or of a later version."""
        name = (raw.key or b"").decode(errors="replace")
        try:
            told = self._decoded(raw)
        except (Undecodable, UnknownSchema) as error:
            self._say("command.unreadable", at=str(raw.position), error=str(error))
        else:
            if told is not None:
                self._keep(replace(Command.of(told), at=raw.timestamp))  # the broker's time, as other records have it
            elif name == pipeline_id(self._pipeline):  # taken off the topic: nothing holds the pipeline any more
                self._keep(Command(name, RESUME, self._pipeline, reason="the command was taken back", at=raw.timestamp))
            else:
                with self._lock:
                    self._news.pop(name, None)  # taken back before anybody here has taken it

    def _decoded(self, raw: RawRecord) -> Mapping[str, Any] | None:
        """A schema may be younger than what a replica of the registry knows; that of a foreign record stays unknown."""
        for _ in range(PATIENCE):
            try:
                return self._decode(raw)
            except UnknownSchema:
                if self._stop.wait(AGAIN):
                    break
        return self._decode(raw)

    def _keep(self, command: Command) -> None:
        mine = command.kind in (*OF_PIPELINES, ORDER) and command.pipeline == self._pipeline
        if not mine and not (command.kind in OF_RUNS and command.pipeline in ("", self._pipeline)):
            return
        with self._lock:
            self._news.pop(command.id, None)
            self._news[command.id] = command
            of_run = next((c for c in self._news.values() if c.kind in OF_RUNS), None)
            if len(self._news) > MOST and of_run is not None:
                del self._news[of_run.id]
                self._dropped += 1
                if self._dropped == 1:
                    self._say("command.dropped", run=of_run.run_id, why=f"more than {MOST} wait; others may follow")
