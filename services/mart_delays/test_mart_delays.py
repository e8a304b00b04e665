"""The mart joins flights to the weather of their origin and hour, and says how many rows an interval has."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from farandole import Interval
from farandole.lake import Lake
from farandole.testing import Stage
from schemas.events import TableMerged
from services.mart_delays.handlers import refresh
from services.mart_delays.pipeline import MartDelays

AT = datetime(2013, 1, 1, 10, tzinfo=UTC)
HOUR = Interval(AT, datetime(2013, 1, 1, 11, tzinfo=UTC))
WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")


def merged(lake: Lake, folder: Path, table: str, rows: list[dict[str, object]]) -> TableMerged:
    own = {"_changed_at": 1, "_lsn": 0, "_day": AT.date(), "time_hour": AT}
    pq.write_table(pa.Table.from_pylist([{**row, **own} for row in rows]), folder / table)
    done = lake.merge(table, str(folder / table), ("time_hour", "origin"))
    return TableMerged(table, HOUR, done.rows)


def test_a_flight_meets_the_weather_of_its_origin_and_hour_or_none(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    flown = [{"carrier": "UA", "flight": 1, "origin": "EWR"}, {"carrier": "UA", "flight": 2, "origin": "JFK"}]
    flights = merged(lake, tmp_path, "flights", flown)
    weather = merged(lake, tmp_path, "weather", [{"origin": "EWR", **dict.fromkeys(WEATHER, 1.0)}])

    done = refresh(flights, weather, lake)

    assert (done.interval, done.rows) == (HOUR, 2)
    rows = pq.read_table(done.uri.removeprefix("file://")).to_pylist()
    assert [(row["flight"], row["temp"]) for row in rows] == [(1, 1.0), (2, None)]


def test_an_hour_is_refreshed_once_when_both_its_feeds_are_in(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    flights = merged(lake, tmp_path, "flights", [{"carrier": "UA", "flight": 1, "origin": "EWR"}])
    weather = merged(lake, tmp_path, "weather", [{"origin": "EWR", **dict.fromkeys(WEATHER, 1.0)}])
    stage = Stage(MartDelays, {Lake: lake})

    stage.tell(flights, TableMerged("planes", HOUR, 3))
    assert (stage.sent, stage.waiting) == ([], [flights])

    stage.tell(weather, flights)
    assert [(event.interval, event.rows) for event in stage.sent] == [(HOUR, 1)]
    assert (len(stage.filtered), stage.waiting) == (1, [])
