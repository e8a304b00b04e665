"""Landed files are announced: in order, acknowledged before they count as told, and harmless when told again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from farandole.clock import Clock, iso
from farandole.errors import Unreachable
from farandole.event import Envelope, Record, event_type_of, record_key
from farandole.sources.files import EVENT_SOURCE, Seen
from farandole.sources.metadata import Sources

PAUSE = 0.3
"""Seconds between two passes over the raw folder; longer where a pass takes long: a quarter of the time is enough."""
BACKOFF = 2.0

Encode = Callable[[str, dict[str, Any]], bytes]
Landings = Iterable[tuple[str, Any]]


class Announcer:
    """Makes records of landings and sends them, each `times` times: copies stand later and have the same id.

    Upstream systems tell things twice now and then; `times` makes one of ours do so, for the demo and tests.
    `send` returns when all are acknowledged and raises Unreachable otherwise; the same call again says the
    same ids.
    """

    def __init__(
        self, encode: Encode, send: Callable[[Sequence[Record]], object], clock: Clock, times: int = 1
    ) -> None:
        self._encode, self._send, self.clock, self._times = encode, send, clock, times

    def announce(self, landings: Landings) -> int:
        """Announce events, each with its id; how many there were, copies not counted."""
        records = self.records(landings)
        for _ in range(self._times if records else 0):
            self._send(records)
        return len(records)

    def records(self, landings: Landings) -> list[Record]:
        """What is sent for them."""
        return [self._record(identity, event) for identity, event in landings]

    def _record(self, identity: str, event: Any) -> Record:
        event_type, value = str(event_type_of(event)), event.record()
        subject = f"{event.source}/{event.interval}"
        envelope = Envelope(identity, EVENT_SOURCE, event_type, iso(self.clock.now()), subject, identity)
        return Record(event_type, record_key(event, value), self._encode(event_type, value), [*envelope.headers()])


def watch(
    landed: Callable[[Iterable[Any], Seen], Landings],
    sources: Sources,
    announcer: Announcer,
    stop: threading.Event,
    say: Callable[..., None],
    *,
    until_drained: bool = False,
) -> None:
    """Pass over the raw folder until `stop` is set, or, with `until_drained`, until a pass finds nothing new.

    `landed` gives what is new since the last pass. What could not be told is new again in the next one, and a
    source whose file is wrong is said once and stops no other.
    """
    clock = announcer.clock
    seen: Seen = {}
    wrong: set[str] = set()
    while not stop.is_set():
        started = clock.monotonic()
        good, bad = sources.all()
        for error in bad:
            if str(error) not in wrong:
                say("source.wrong", error=error.message, place=error.place, hint=error.hint)
        wrong = {str(error) for error in bad}
        after = dict(seen)
        try:
            told = announcer.announce(landed(good, after))
        except (Unreachable, FileNotFoundError) as away:  # a file may go between being found and being read
            say("landing.waits", why=str(away))
            stop.wait(BACKOFF)
            continue
        seen = after
        if told:
            say("landing.told", files=told)
        elif until_drained:
            return
        stop.wait(max(PAUSE, 3 * (clock.monotonic() - started)))
