"""The chain at work: services as processes of their own, feeds that land, a kill in the middle, and an end.

The end is a fact and no guess: every group has committed all that its topics hold.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from farandole.clock import Clock, SystemClock
from farandole.declaration import Declaration
from farandole.demo.display import Display
from farandole.demo.feeds import write_feeds
from farandole.demo.tally import LANDED, Tally
from farandole.demo.verdict import MERGE, Expected, expected
from farandole.errors import FarandoleError
from farandole.find import find_declaration
from farandole.kafka.admin import Admin
from farandole.kafka.reader import TopicReader
from farandole.ledger.database import read_projection
from farandole.ledger.entry import LEDGER_TOPIC
from farandole.ledger.projection import positions
from farandole.settings import Settings
from farandole.sources.metadata import Sources
from farandole.supervisor import Supervisor

SERVICES = ("landing", "relationalize", "merge", "mart_delays", "projector")
PIPELINES = ("relationalize", "merge", "mart_delays")
"""Those that consume, in the order in which one feeds the next."""
VICTIM = "merge"
TIMES = 2
"""How often every landing is told."""
TURN = 0.2
STALLED = 120.0
"""Seconds without any progress after which the demo gives up, and says how far it came."""
MISSED = 50.0
"""Seconds after which every broker has noticed that a member is gone."""
DEATHS = 4
"""Unexpected ends of one service in a row after which it is not worth waiting for it."""


@dataclass(slots=True)
class Played:
    """How it went. `killed` is the process id and the number of merges before it; `seconds` are by phase."""

    expected: Expected
    killed: tuple[int, int] | None = None
    seconds: dict[str, float] = field(default_factory=dict)


class Chain:
    """The reference chain over one lake, for one demo."""

    def __init__(self, settings: Settings, lake: str, raw: Path, tally: Tally, display: Display) -> None:
        self._settings, self._raw, self._tally, self._display = settings, raw, tally, display
        self._clock: Clock = SystemClock()
        self._declarations: list[Declaration] = [find_declaration(name) for name in PIPELINES]
        self._admin = Admin(settings.bootstrap(), settings.client_properties())
        self._logs = settings.state_dir / "logs"
        self._supervisor = Supervisor(
            environment={"FARANDOLE_LAKE": lake, "FARANDOLE_ANNOUNCE_TIMES": str(TIMES)},
            logs=self._logs,
            say=self._heard,
        )
        self._written = 0
        self._moved = self._clock.monotonic()
        self._last: object = None

    def play(self, days: int) -> Played:
        """Land `days` of data and wait until everything is settled. Raises FarandoleError if it comes to a stop."""
        self._nobody_else()
        started, before = self._clock.monotonic(), self._tally.records(LANDED)
        with self._running(), self._feeding(days) as fed:
            while not fed.is_set():
                self._turn({"files written": (self._written, max(self._written, days * 48))})
            self._display.counts({"files written": (self._written, self._written)})
            wanted = expected(str(self._raw), Sources("topology/sources").all()[0])
            played = Played(wanted)
            played.seconds["feeds written"] = self._clock.monotonic() - started
            self._settle(played, before)
            played.seconds["chain"] = self._clock.monotonic() - started
        return played

    def _nobody_else(self) -> None:
        """Whether the chain is ours alone, and the servers have nothing left of another lake. Raises FarandoleError.

        A member that was killed a moment ago is waited for until the broker misses it.
        """
        end = self._clock.monotonic() + MISSED
        for declaration in self._declarations:
            while self._admin.group(declaration.name).active:
                if self._clock.monotonic() > end:
                    raise FarandoleError(
                        f"{declaration.name} runs already, and the demo starts a chain of its own",
                        place=self._settings.bootstrap(),
                        hint="stop the services that run there, or name other servers",
                    )
                threading.Event().wait(TURN)
        waiting = any(declaration.name in self._tally.waiting.values() for declaration in self._declarations)
        if self._raw.exists() or not (waiting or not all(map(self._group_drained, self._declarations))):
            return
        raise FarandoleError(
            f"these servers have something left to do for another lake, and {self._raw.parent} is a new one",
            place=self._settings.bootstrap(),
            hint="name that lake in FARANDOLE_LAKE to finish it, or start on other servers (--fresh makes new ones)",
        )

    @contextmanager
    def _running(self) -> Iterator[None]:
        self._supervisor.start(SERVICES)
        try:
            yield
        finally:
            self._supervisor.stop()

    @contextmanager
    def _feeding(self, days: int) -> Iterator[threading.Event]:
        """Files land in the background, hour after hour; the event is set when all have."""
        fed, stop = threading.Event(), threading.Event()

        def write() -> None:
            try:
                for _ in write_feeds(self._raw, days):
                    self._written += 1
                    if stop.is_set():
                        return
            except Exception as error:  # noqa: BLE001 - raised where it is waited for
                self._tally.trouble = error
            fed.set()

        thread = threading.Thread(target=write, name="feeds")
        thread.start()
        try:
            yield fed
        finally:
            stop.set()
            thread.join()

    def _settle(self, played: Played, before: int) -> None:
        """Until all is told and settled, by the brokers' own count; half-way one service is killed."""
        runs, files = played.expected.runs(), len(played.expected.stories)
        already = self._tally.ended(MERGE, played.expected.stories)
        kill_at = already + (runs[MERGE] - already) // 2
        left = runs[MERGE] - already
        while True:
            done = {p: self._tally.ended(p, played.expected.stories) for p in runs}
            told = (self._tally.records(LANDED) - before) // TIMES
            self._turn({"landing": (min(told, files), files), **{p: (done[p], runs[p]) for p in runs}})
            if left > 1 and played.killed is None and done[MERGE] > kill_at:
                played.killed = (self._kill(), done[MERGE])
            if told >= files and (done == runs or self._quiet()) and self._drained():
                return  # if it is quiet for another reason, the verdict says what is missing

    def _kill(self) -> int:
        pid = self._supervisor.kill(VICTIM)
        self._display.say(
            f"{VICTIM} (process {pid}) killed with SIGKILL in the middle of its work; it will be started again"
        )
        return pid

    def _turn(self, counts: dict[str, tuple[int, int]]) -> None:
        """A moment of waiting, in which nothing may be wrong."""
        if self._tally.trouble is not None:
            raise self._tally.trouble
        self._supervisor.look()
        for child in self._supervisor.children:
            if child.died >= DEATHS:
                raise FarandoleError(
                    f"{child.service} died {child.died} times in a row",
                    place=str(self._logs / f"{child.service}-{child.number}.log"),
                    hint="the end of that file says why",
                )
        now = self._clock.monotonic()
        if counts != self._last:
            self._last, self._moved = counts, now
        elif now - self._moved > STALLED:
            how_far = ", ".join(f"{name} {done}/{of}" for name, (done, of) in counts.items())
            raise FarandoleError(
                f"nothing moved for {STALLED:g} s: {how_far}", place=str(self._logs), hint="the logs say why"
            )
        self._display.counts(counts)
        threading.Event().wait(TURN)

    def _quiet(self) -> bool:
        return self._clock.monotonic() - self._moved > 5.0  # noqa: PLR2004 - far longer than a hop

    def _drained(self) -> bool:
        """Whether all groups have committed all there is, asked in the chain's order, and the projection has it."""
        return all(self._group_drained(d) for d in self._declarations) and self._projected()

    def _group_drained(self, declaration: Declaration) -> bool:
        committed = self._admin.committed(declaration.name)
        parts = self._admin.partitions(declaration.topics)
        ends = self._admin.ends([(t, p) for t, many in parts.items() for p in range(many)], committed=True)
        return all(end == 0 or (at in committed and committed[at].offset >= end) for at, end in ends.items())

    def _projected(self) -> bool:
        with TopicReader(self._settings.bootstrap(), LEDGER_TOPIC, self._settings.client_properties()) as reader:
            ends = reader.ends()
        with closing(read_projection(self._settings.database("projector"))) as database, database.reading() as conn:
            read = positions(conn)
        return all(read.get(p, (0, ""))[0] >= end for p, end in ends.items())

    def _heard(self, event: str, **fields: object) -> None:
        if event == "service.died" and fields.get("code") != -9:  # noqa: PLR2004 - our own SIGKILL was said already
            self._display.say(f"{fields['service']} ended with code {fields['code']}; it is started again")
