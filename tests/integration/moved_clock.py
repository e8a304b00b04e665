"""The service ``clock`` as a process whose time runs from START at SPEED since ORIGIN (seconds of the machine's clock)."""

from __future__ import annotations

import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

from farandole.clock import SystemClock
from farandole.settings import load_settings
from farandole.telemetry import configure
from services.clock.service import main


class MovedClock(SystemClock):
    def __init__(self, start: str, origin: str, speed: str) -> None:
        self.start, self.origin, self.speed = datetime.fromisoformat(start).astimezone(UTC), float(origin), float(speed)

    def now(self) -> datetime:
        return self.start + timedelta(seconds=(time.time() - self.origin) * self.speed)


if __name__ == "__main__":
    configure()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    main(load_settings(), stop, clock=MovedClock(*sys.argv[1:4]), until_drained="--until-drained" in sys.argv)
