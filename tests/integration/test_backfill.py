"""March on the mart of the reference chain, of which four days are missing: the page about it is executed."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from farandole.lake import Lake
from tests.conftest import own_servers
from tests.integration.test_docs_commands import ROOT, Reader, lines

PAGE = "docs/howto/re-run-march.md"
MERGED, REFRESHED = "lake.table.merged.v1", "mart.delays.refreshed.v1"
MISSING = 4
WATCHER = '''"""Reads what the mart says."""

from pathlib import Path

from farandole import Pipeline, step, when
from schemas.events import DelaysRefreshed


def note(day: DelaysRefreshed) -> None:
    with Path("seen.txt").open("a") as file:
        file.write(day.interval.start.isoformat() + chr(10))


class Watcher(Pipeline):
    """Downstream of the mart."""

    name = "NAME"
    day = when(DelaysRefreshed)
    steps = [note]
    since = "now"
'''


def group(folder):
    """The pipeline's name, from that of its folder."""
    return folder.replace("_", "-")


def days(first, last):
    return [datetime(2013, 3, day, tzinfo=UTC) for day in range(first, last + 1)]


class March:
    """A desk with a mart of its own that was deployed on the fifth, and a pipeline after it."""

    def __init__(self, stack, folder: Path):
        self.reader = Reader(folder, {**stack.environment(), "FARANDOLE_LAKE": str(folder / "lake")})
        self.mart, self.watcher = (stack.unique(name).replace("-", "_") for name in ("march", "watcher"))
        self.folder = folder
        self.fill_lake(Lake(str(folder / "lake")))
        self.reader.does("farandole topology apply")
        self.tell(days(1, MISSING))
        own = (ROOT / "services/mart_delays/pipeline.py").read_text()
        own = own.replace('since = "beginning"', f'since = "now"\n    name = "{group(self.mart)}"')
        self.service(self.mart, own)
        self.service(self.watcher, WATCHER.replace("NAME", group(self.watcher)))
        self.reader.does("farandole topology apply")
        self.run()
        self.tell(days(MISSING + 1, 31))
        self.run()

    def service(self, name: str, text: str) -> None:
        home = self.folder / "services" / name
        home.mkdir()
        (home / "pipeline.py").write_text(text)

    def fill_lake(self, lake: Lake) -> None:
        for table in ("flights", "weather"):
            own = {"_changed_at": 1, "_lsn": 0}
            named = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
            told = {"carrier": "UA", "flight": 1} if table == "flights" else dict.fromkeys(named, 1.0)
            rows = [{"origin": "EWR", **told, **own, "_day": at.date(), "time_hour": at} for at in days(1, 31)]
            pq.write_table(pa.Table.from_pylist(rows), self.folder / table)
            lake.merge(table, str(self.folder / table), ("time_hour", "origin"))

    def tell(self, starts: list[datetime]) -> None:
        """Both tables are merged, for each of these days."""
        told = [
            {"table": t, "interval": {"start": f"{at:%FT%TZ}", "end": f"{at + timedelta(1):%FT%TZ}"}, "rows": 1}
            for at in starts
            for t in ("flights", "weather")
        ]
        (self.folder / "told.jsonl").write_text("\n".join(map(json.dumps, told)))
        self.reader.does(f"farandole events emit {MERGED} --file told.jsonl")

    def run(self) -> None:
        self.reader.does(f"farandole run {self.mart} --until-drained")
        self.reader.does(f"farandole run {self.watcher} --until-drained")

    def runs(self) -> Counter[str]:
        """How often each day of March was refreshed by this mart: an id for each run."""
        told = lines(self.reader.does(f"farandole events tail {REFRESHED} -n 5000 -o jsonl"))
        mine = {e["id"]: e for e in told if e["source"] == f"/farandole/{group(self.mart)}"}
        assert len(mine) == sum(e["source"] == f"/farandole/{group(self.mart)}" for e in told)
        return Counter(e["value"]["interval"]["start"][:10] for e in mine.values())

    def seen(self) -> Counter[str]:
        """How often each day came to the pipeline after it."""
        file = self.folder / "seen.txt"
        return Counter(line[:10] for line in file.read_text().splitlines()) if file.exists() else Counter()


def of(first, last, times):
    return Counter({f"{at:%F}": times for at in days(first, last)})


@pytest.fixture(scope="module")
def stack():
    """Servers of their own: what is told of March here is on the chain's own topics, which other tests count."""
    with own_servers() as servers:
        yield servers


@pytest.mark.timeout(590)
def test_march_is_brought_about_where_it_is_missing_and_then_run_again_for_nobody_else(stack, tmp_path: Path):
    march = March(stack, tmp_path)
    assert march.runs() == march.seen() == of(MISSING + 1, 31, 1)

    (march.folder / "lake/raw").mkdir(parents=True, exist_ok=True)  # landing's, whose page this is too
    text = (ROOT / PAGE).read_text()
    first, again, rest = re.split(r"^## (?=All of it|How fast)", text, flags=re.MULTILINE)
    said = follow(march, first)
    march.run()

    plan = next(told for command, told in said if "backfill plan" in command)
    assert (plan[0]["runs"], plan[0]["before"]) == (MISSING, {"done": 31 - MISSING, "missing": MISSING})
    assert plan[0]["reaches"] == [group(march.watcher)]
    assert [row["interval"][:10] for row in plan[0]["intervals"] if row["ordered"]] == [f"{d:%F}" for d in days(1, 4)]
    assert march.runs() == march.seen() == of(1, 31, 1)
    status = next(told for command, told in said if "backfill status" in command)
    assert (status[0]["state"], status[0]["done"], status[0]["total"]) == ("done", 2 * MISSING, 2 * MISSING)

    nothing = lines(march.reader.does(f"farandole backfill plan {march.mart} --from 2013-03-01 --to 2013-03-31"))
    assert (nothing[0]["runs"], nothing[0]["before"]) == (0, {"done": 31})

    follow(march, again)
    march.run()
    assert march.runs() == of(1, 31, 2)
    assert march.seen() == of(1, 31, 1)

    replay = next(told for command, told in follow(march, rest) if "farandole replay" in command)
    assert replay[0]["events"] == 0


def follow(march: March, text: str):
    page = march.folder / "page.md"
    page.write_text(text)
    said = march.reader.follows(str(page), {"mart_delays": march.mart})
    return [(command, lines(told) if told.startswith("{") else []) for command, told in said]


@pytest.mark.timeout(590)
def test_a_backfill_that_is_killed_goes_on_and_repeats_nothing(stack, tmp_path: Path):
    march = March(stack, tmp_path)
    span = f"{march.mart} --from 2013-03-01 --to 2013-03-31 --only all --cascade none --yes"
    march.reader.does(f"farandole backfill start {span}")

    for point in ("txn.outputs_produced:1", "txn.committed:2"):
        kill = f"FARANDOLE_KILL_AT={point} FARANDOLE_COMMIT_RECORDS=5"
        march.reader.does(f"{kill} farandole run {march.mart} --until-drained; test $? -eq 137 -o $? -eq 0")
    march.run()

    assert march.runs() == of(1, MISSING, 1) + of(MISSING + 1, 31, 2)
