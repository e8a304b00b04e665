"""Two signals of one type, joined by their interval."""

from __future__ import annotations

from farandole import Pipeline, by, when
from schemas.events import TableMerged
from services.mart_delays.handlers import refresh


class MartDelays(Pipeline):
    """Refresh an interval of the delay mart when its flights and its weather are both merged."""

    flights = when(TableMerged, where="table == 'flights'")
    weather = when(TableMerged, where="table == 'weather'")
    join = by("interval", within="6h")
    steps = [refresh]
    since = "beginning"
    owner = "team-analytics"
