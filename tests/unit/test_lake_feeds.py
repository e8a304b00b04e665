from __future__ import annotations

import json
from hashlib import sha256

from farandole.demo.answer import compare_mart, compare_tables, direct_join, mart_rows
from farandole.demo.feeds import write_feeds
from farandole.lake import Lake
from farandole.sources.files import scan, strays
from farandole.sources.metadata import Sources
from services.landing.handlers import landed_events
from services.mart_delays.handlers import DELAYS

SOURCES = Sources("topology/sources")


def test_every_hour_has_its_files_in_order_of_time_even_without_rows(tmp_path):
    told = list(write_feeds(tmp_path, 1))

    hours = [interval.start.hour for _, source, interval in told if source == "flights"]
    assert hours == list(range(24))
    assert [i.start for _, _, i in told] == sorted(i.start for _, _, i in told)
    assert (tmp_path / "flights/2013/01/01/00/flights.csv").read_text().count("\n") == 1
    assert strays(str(tmp_path), SOURCES.all()[0]) == []


def test_the_same_call_writes_the_same_bytes(tmp_path):
    def written(name: str) -> dict[str, str]:
        return {
            str(path.relative_to(tmp_path / name)): sha256(path.read_bytes()).hexdigest()
            for path, _, _ in write_feeds(tmp_path / name, 1)
        }

    assert written("one") == written("two")


def test_the_change_log_of_airlines_has_updates_and_deletes_in_order(tmp_path):
    lines = [
        json.loads(line)
        for path, source, _ in write_feeds(tmp_path, 2)
        if source == "airlines"
        for line in path.read_text().splitlines()
    ]

    assert {line["op"] for line in lines} == {"c", "u", "d"}
    places = [(line["source"]["ts_ms"], line["source"]["lsn"]) for line in lines]
    assert places == sorted(places)


def test_the_lake_comes_to_the_answer_row_for_row(tmp_path):
    lake, days = Lake(str(tmp_path)), 1
    list(write_feeds(tmp_path / "raw", days))

    for _, file in landed_events(lake.raw, SOURCES.all()[0]):
        for staged in lake.stage(SOURCES.source(file.source), file):
            lake.merge(staged.table, staged.uri, staged.key_columns)
    for file in scan(lake.raw, [SOURCES.source("flights")]):
        lake.refresh("delays", file.interval, DELAYS, {"flights": "time_hour", "weather": "time_hour"})

    assert compare_tables(lake) == []
    assert compare_mart(lake, days) == []
    assert mart_rows(lake) == direct_join(days).num_rows > 600
    assert "missing in delays" in compare_mart(lake, days + 1)[0]


def test_a_lake_without_a_mart_differs_and_says_so(tmp_path):
    assert compare_mart(Lake(str(tmp_path)), 1) == ["there is no delay mart"]
    assert mart_rows(Lake(str(tmp_path))) == 0
    assert "there is no table planes" in compare_tables(Lake(str(tmp_path)))
