"""The tables of the projection: a view of the ledger topic, dropped and built anew whenever that is easier.

Times are milliseconds since 1970, UTC; maps and headers are JSON text.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

VERSION = 5
"""Of these tables. A projection of another version is dropped and read anew from the ledger."""

metadata = MetaData()

projection_version = Table("projection_version", metadata, Column("version", Integer, primary_key=True))

ledger_position = Table(
    "ledger_position",
    metadata,
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    Column("topic_id", String, nullable=False),  # a recreated ledger is another ledger
    Column("checked_at", BigInteger, nullable=False),  # up to when all that the partition holds is here
)

run = Table(
    "run",
    metadata,
    Column("id", String, primary_key=True),
    Column("pipeline", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("life", Integer, nullable=False),
    Column("okey", LargeBinary),
    Column("parameters", Text, nullable=False),
    Column("interval_start", BigInteger),
    Column("interval_end", BigInteger),
    Column("error_class", String),
    Column("error_message", Text),
    Column("error_fingerprint", String),
    Column("error_stage", String),
    Column("error_step", String),
    Column("version", String, nullable=False),
    Column("instance", String, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("correlation_id", String, nullable=False),
    Column("causation_id", String, nullable=False),
    Column("traceparent", String, nullable=False),
    Column("join_key", String),
    Column("attempt", Integer, nullable=False),  # of a parked run: the next one, and when it is due
    Column("due", BigInteger),
    Column("detail", Text, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),  # the broker's time of the entry: the only clock all runs share
    Column("ledger_partition", Integer, nullable=False),
    Column("ledger_offset", BigInteger, nullable=False),
    Index("run_recorded", "recorded_at"),
    Index("run_pipeline", "pipeline", "recorded_at"),
    Index("run_state", "state", "recorded_at"),
    Index("run_correlation", "correlation_id"),
    Index("run_causation", "causation_id"),
)

run_step = Table(
    "run_step",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("state", String, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("error", Text),
    Column("reused", Boolean, nullable=False),
    Column("version", String, nullable=False),
)

run_event = Table(  # the edges of the graph: which events went into a run, which came out
    "run_event",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("direction", String, primary_key=True),  # in, out
    Column("ordinal", Integer, primary_key=True),
    Column("event_id", String, nullable=False),
    Column("event_source", String, nullable=False),
    Column("event_type", String, nullable=False),
    Column("topic", String, nullable=False),
    Column("topic_id", String, nullable=False),
    Column("partition", Integer),  # of what came out, only the broker knows where it stands
    Column("off", BigInteger),
    Column("signal", String, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("derived", Boolean, nullable=False),
    Column("correlation_id", String, nullable=False),
    Index("run_event_id", "event_id"),
    Index("run_event_position", "topic", "partition", "off"),
)

range_count = Table(  # what came to no run, counted
    "range_count",
    metadata,
    Column("id", String, primary_key=True),  # of the range entry
    Column("outcome", String, primary_key=True),  # filtered, duplicate
    Column("reason", String, primary_key=True),
    Column("pipeline", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("topic", String, nullable=False),
    Column("topic_id", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("start_off", BigInteger, nullable=False),
    Column("end_off", BigInteger, nullable=False),
    Column("events", BigInteger, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Index("range_count_pipeline", "pipeline", "recorded_at"),
)

fact = Table(
    "fact",
    metadata,
    Column("id", String, primary_key=True),
    Column("fact", String, nullable=False),
    Column("pipeline", String, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    Column("recorded_at", BigInteger, nullable=False),
    Index("fact_name", "fact", "recorded_at"),
)

expectation = Table(
    "expectation",
    metadata,
    Column("id", String, primary_key=True),
    Column("expectation", String, nullable=False),
    Column("name", String, nullable=False),
    Column("pipeline", String, nullable=False),
    Column("event_type", String, nullable=False),
    Column("criteria", Text, nullable=False),
    Column("day", String, nullable=False),  # the deadline's date in its zone
    Column("deadline", BigInteger, nullable=False),
    Column("alarm_at", BigInteger, nullable=False),  # deadline and grace
    Column("interval_start", BigInteger),
    Column("interval_end", BigInteger),
    Column("state", String, nullable=False),
    Column("arrived_at", BigInteger),
    Column("proof", Text, nullable=False),
    Column("actor", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("telling", String, nullable=False),
    Column("topic_offset", BigInteger, nullable=False),  # of the newest record of the id that was folded in
    Index("expectation_day", "day"),
    Index("expectation_state", "state", "deadline"),
    Index("expectation_name", "name", "deadline"),
)

expectation_position = Table(  # one row: which topic the table above was read from, and up to when
    "expectation_position",
    metadata,
    Column("topic_id", String, primary_key=True),
    Column("checked_at", BigInteger, nullable=False),
)

by_run = {run: run.c.id, run_step: run_step.c.run_id, run_event: run_event.c.run_id}
"""The tables that a run's entry fills, each with the column that names the run."""

by_entry = {range_count: range_count.c.id, fact: fact.c.id}
"""The tables that other entries fill, each with the column that names the entry."""
