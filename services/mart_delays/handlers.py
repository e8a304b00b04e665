"""The delay mart: flights with the weather of their origin and hour."""

from __future__ import annotations

from farandole import Retry, resource, step
from farandole.lake import Lake, open_lake
from schemas.events import DelaysRefreshed, TableMerged

DELAYS = """
select f.*, w.temp, w.dewp, w.humid, w.wind_dir, w.wind_speed, w.wind_gust, w.precip, w.pressure, w.visib
from flights f left join weather w using (origin, time_hour)
order by f.time_hour, f.carrier, f.flight
"""


@resource
def lake() -> Lake:
    """The lake that FARANDOLE_LAKE names."""
    return open_lake()


@step(timeout="10m", retry=Retry(5, backoff="200ms..30s"), effect="idempotent")
def refresh(flights: TableMerged, weather: TableMerged, lake: Lake) -> DelaysRefreshed:
    """Make the interval anew from what both tables hold now; an hour without flights has no rows, and says so."""
    over = {flights.table: "time_hour", weather.table: "time_hour"}
    done = lake.refresh("delays", flights.interval, DELAYS, over)
    return DelaysRefreshed(flights.interval, done.rows, done.uri)
