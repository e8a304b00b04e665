"""A dead letter as a test of its pipeline: it fails as the letter says, until the cause is mended."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pprint import pformat
from typing import Any

from farandole.deadletter import DeadLetter
from farandole.event import RawRecord

Schemas = Mapping[int | str, Mapping[str, Any]]

_TEST = '''"""A dead letter of {pipeline}: {cause}.

Letter {id}, given up in {place}{first}{version}.
It stands in the ledger as run {run}, and its fingerprint is {fingerprint}.
"""

from base64 import b64decode
from datetime import datetime

from farandole.clock import ManualClock
from farandole.testing import Stage

WRITERS = {writers}
"""The schemas of the bytes below, by the ids that these carry."""

EVENTS = {events}
"""Topic, record key, value and headers of each event of the run."""


def test_{name}():
    # what its steps work with is opened as in production: give stand-ins by type, Stage(…, {{Lake: fake}})
    clock = ManualClock(datetime.fromisoformat("{now}"))  # when it failed first
    stage = Stage("{target}", clock=clock, writers=WRITERS)

    for topic, key, value, headers in EVENTS:
        stage.tell_raw(topic, value, key, headers)
    stage.wait("7d")  # its retries

    assert [f"{{dead.exception_class}}: {{dead.message}}\\n{{dead.stacktrace}}" for dead in stage.dead] == []
'''


def written(target: str, letters: Sequence[tuple[DeadLetter, RawRecord]], writers: Schemas) -> str:
    """The text of the test: the letters of one run with their events; `target` is what a Stage is given."""
    letter = letters[0][0]
    what = letter.exception_class.rpartition(".")[2] or letter.reason or letter.stage
    return _TEST.format(
        pipeline=letter.group,
        cause=_line(f"{letter.exception_class}: {letter.message}"),
        id=letter.id,
        place=f"{letter.stage} {letter.step}".strip(),
        first=f" since {letter.first_failed_at}" if letter.first_failed_at else "",
        version=f" by version {letter.pipeline_version}" if letter.pipeline_version else "",
        run=letter.run_id or "-",
        fingerprint=letter.fingerprint,
        writers=pformat(dict(writers), width=100, sort_dicts=False),
        events=_events([event for _, event in letters]),
        name=re.sub(r"\W+", "_", f"the_event_that_died_of_{what}_is_settled".lower()),
        target=target,
        now=letter.first_failed_at or "2013-01-01T00:00:00+00:00",
    )


def _events(events: Sequence[RawRecord]) -> str:
    lines = ["["]
    for event in events:
        lines += [
            "    (",
            f"        {event.topic!r},",
            f"        {_bytes(event.key)},",
            f"        {_bytes(event.value)},",
        ]
        lines += ["        ["]
        lines += [f"            ({name!r}, {value!r})," for name, value in event.headers]
        lines += ["        ],", "    ),"]
    return "\n".join([*lines, "]"])


def _bytes(value: bytes | None) -> str:
    from base64 import b64encode

    return "None" if value is None else f"b64decode({b64encode(value).decode()!r})"


def _line(text: str) -> str:
    """One line that may stand in a docstring."""
    return " ".join(text.split()).replace("\\", "\\\\").replace('"""', "'''").rstrip('"')[:100]
