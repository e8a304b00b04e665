"""What the commands that read the projection share: the connection to ask with, and how old the answer is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.output import plain

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

STALE_SECONDS = 15.0
"""From this age on an answer says how old it is."""


@contextmanager
def projection() -> Iterator[Connection]:
    """A connection to the projection; tells (on stderr) how old what it answers is.

    Raises FarandoleError, with the remedy, where there is no projection yet.
    """
    from farandole.clock import SystemClock
    from farandole.ledger.database import read_projection
    from farandole.ledger.queries import checked_at
    from farandole.settings import load_settings

    database = read_projection(load_settings().database("projector"))
    try:
        with database.reading() as conn:
            checked = checked_at(conn)
            now = SystemClock().now()
            if checked is None:
                tell("the projector has not finished reading the ledger yet: this answer may lack runs")
            elif (age := (now - checked).total_seconds()) > STALE_SECONDS:
                tell(f"as of {local(checked.isoformat())}, {lasted(age)} ago; for newer: farandole run projector")
            yield conn
    finally:
        database.close()


def tell(text: str) -> None:
    """A remark for the person, beside the answer."""
    click.secho(text, dim=True, err=True)


def emit_one(answer: Any, output: str | None) -> bool:
    """Print one answer as JSON, unless a person is to read it: then False, and nothing is printed."""
    output = output or ("table" if sys.stdout.isatty() else "jsonl")
    if output not in {"json", "jsonl"}:
        return False
    indent = 2 if output == "json" else None
    click.echo(json.dumps(answer, default=plain, ensure_ascii=False, indent=indent))
    return True


def local(moment: str | None) -> str:
    """A time in RFC 3339 as a person reads it: in the zone of this machine."""
    from datetime import datetime

    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M:%S %Z}" if moment else "-"


def lasted(seconds: float | None) -> str:
    """A span as a person reads it."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 or not seconds else f"{seconds * 1000:.0f} ms"


def moment_of(text: str, option: str) -> datetime | None:
    """The time that an option means: a span before now (2h, 1d), or a time; None where it is not given."""
    from datetime import UTC, datetime, timedelta

    from farandole.clock import SystemClock, seconds

    if not text:
        return None
    try:
        return SystemClock().now() - timedelta(seconds=seconds(text))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a span (2h, 1d) nor a time (2013-01-01T06:00Z)", param_hint=option
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def actor() -> str:
    """Who gives a command: FARANDOLE_ACTOR, else the user at this machine."""
    import getpass
    import os
    import socket

    if named := os.environ.get("FARANDOLE_ACTOR"):
        return named
    try:
        user = getpass.getuser()
    except OSError:  # a user without a name, as in many containers
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
