"""Landing tells what stands in the raw folder, with ids that a rescan repeats."""

from __future__ import annotations

from pathlib import Path

from farandole.sources.metadata import Sources
from services.landing.handlers import landed_events

SOURCES = Sources("topology/sources")


def test_a_file_told_twice_is_one_event(tmp_path: Path) -> None:
    hour = tmp_path / "weather/2013/01/01/06"
    hour.mkdir(parents=True)
    (hour / "weather.csv").write_text("origin\n")
    sources, _ = SOURCES.all()

    first = list(landed_events(str(tmp_path), sources))
    again = list(landed_events(str(tmp_path), sources))

    assert first == again
    ((_, event),) = first
    assert (event.source, event.format, event.size) == ("weather", "csv", 7)
    assert str(event.interval) == "2013-01-01T06:00Z/2013-01-01T07:00Z"


def test_a_file_that_is_still_written_is_not_told(tmp_path: Path) -> None:
    hour = tmp_path / "weather/2013/01/01/06"
    hour.mkdir(parents=True)
    (hour / ".weather.csv.part").write_text("origin\n")

    assert list(landed_events(str(tmp_path), SOURCES.all()[0])) == []
