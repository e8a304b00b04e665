"""A dead letter as a test: it fails as the letter says while the bug is there, and passes after."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from farandole.deadletter import DeadLetter, Failure, LetterContext, letter_of
from farandole.event import RawRecord
from farandole.kafka.codec import schema_named
from farandole.testing import Stage
from farandole.testing.log import StageCodec
from farandole.testing.written import written

ROOT = Path(__file__).parents[2]

SENT = {
    "type": "record",
    "name": "Sent",
    "fields": [{"name": "n", "type": "long"}, {"name": "key", "type": "string", "default": ""}],
}
LATER = SENT | {"fields": [*SENT["fields"], {"name": "unit", "type": "string", "default": "m"}]}

PIPELINE = '''
from dataclasses import dataclass
from typing import Any

from farandole import Pipeline, by, when
from farandole.event import fact

class Any_:
    @classmethod
    def of(cls, record: Any) -> Any:
        return cls(**{name: record[name] for name in cls.__annotations__})

    def record(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__annotations__}

@fact("written.sent.v1", key=("key",))
@dataclass(frozen=True)
class Sent(Any_):
    n: int
    key: str
    unit: str

@fact("written.other.v1", key=("key",))
@dataclass(frozen=True)
class Other(Any_):
    n: int
    key: str
    unit: str

def halve(sent: Sent) -> None:
    if sent.unit != "m" or sent.n == 13:
        raise ValueError(f"{sent.n} has bad luck")

def add(sent: Sent, other: Other) -> None:
    if sent.n + other.n == 13:
        raise ValueError(f"{sent.n} and {other.n} have bad luck")

class Halves(Pipeline):
    """Halves what is sent."""
    name = "halves"
    sent = when(Sent)
    steps = [halve]
    since = "beginning"

class Sums(Pipeline):
    """Adds two."""
    name = "sums"
    sent = when(Sent)
    other = when(Other)
    join = by("key", within="1h")
    steps = [add]
    since = "beginning"
'''


def a_letter(topic, value, group, *, part=1, parts=1):
    raw = RawRecord(topic, "T", 0, 3, 1000, b"k", value, [("ce_id", b"e%d\xff" % part), ("none", None)])
    failure = Failure('V"""alueError', 'bad \\ luck """', "run", "halve", "trace", "f1")
    made = letter_of(raw, failure, LetterContext(f"dlq.{group}", 1, group, "1.2", "run-1", 0, b"\1", part, parts))
    return DeadLetter.of(RawRecord(made.topic, "D", 0, part, 2000, made.key, made.value, made.headers)), raw


def bytes_of(n, schema_id):
    return b"\x00" + schema_id.to_bytes(4, "big") + StageCodec({"t": SENT}).encode("t", {"n": n, "key": "k"})[5:]


def asked(folder, text):
    """What pytest says of the test, in a project of its own."""
    (folder / "own_pipelines.py").write_text(PIPELINE)
    avro = folder / "schemas" / "avro"
    avro.mkdir(parents=True, exist_ok=True)
    for topic in ("written.sent.v1", "written.other.v1"):
        (avro / f"{topic}.avsc").write_text(json.dumps(LATER))
    (folder / "test_letter.py").write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_letter.py"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
    )  # fmt: skip


def mend(folder):
    pipeline = folder / "own_pipelines.py"
    pipeline.write_text(pipeline.read_text().replace("== 13", "== 14"))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_letter.py"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
    )  # fmt: skip


def test_the_test_fails_with_the_letters_exception_until_the_bug_is_mended(tmp_path):
    letter = a_letter("written.sent.v1", bytes_of(13, 17), "halves")
    text = written("own_pipelines:Halves", [letter], {17: SENT})

    failed = asked(tmp_path, text)
    passed = mend(tmp_path)

    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert "ValueError: 13 has bad luck" in failed.stdout
    assert (passed.returncode, "1 passed" in passed.stdout) == (0, True), passed.stdout


def test_the_letters_of_a_joined_run_are_one_test(tmp_path):
    letters = [
        a_letter("written.sent.v1", bytes_of(6, 17), "sums", part=1, parts=2),
        a_letter("written.other.v1", bytes_of(7, 18), "sums", part=2, parts=2),
    ]
    text = written("own_pipelines:Sums", letters, {17: SENT, 18: SENT})

    failed = asked(tmp_path, text)
    passed = mend(tmp_path)

    assert "ValueError: 6 and 7 have bad luck" in failed.stdout, failed.stdout + failed.stderr
    assert (passed.returncode, "1 passed" in passed.stdout) == (0, True), passed.stdout


def test_bytes_that_nobody_can_read_fail_as_undecodable(tmp_path):
    text = written("own_pipelines:Halves", [a_letter("written.sent.v1", b"\x01junk", "halves")], {})

    failed = asked(tmp_path, text)

    assert failed.returncode == 1
    assert "Undecodable" in failed.stdout


def test_the_bytes_of_a_letter_keep_the_meaning_of_their_schemas_id_on_a_stage():
    """However many schemas a stage has of its own, and in whatever order."""
    codec = StageCodec({"a": SENT, "written.sent.v1": LATER, "b": SENT}, {1: SENT, "0" * 8: SENT})

    assert codec.decode("written.sent.v1", bytes_of(13, 1)) == {"n": 13, "key": "k", "unit": "m"}
    assert Stage.__init__.__annotations__["writers"]


def test_the_schema_that_a_value_names_is_found_before_it_or_in_its_header():
    guid = "01234567-89ab-cdef-0123-456789abcdef"

    assert schema_named(b"\x00\x00\x00\x00\x11rest") == 17
    assert schema_named(b"rest", [("__value_schema_id", b"\x00\x00\x00\x00\x12")]) == 18
    assert schema_named(b"rest", [("__value_schema_id", b"\x00\x00\x00\x13")]) == 19
    assert schema_named(b"rest", [("__value_schema_id", b"\x01" + bytes.fromhex(guid.replace("-", "")))]) == guid
    assert schema_named(b"\x01junk") is None
    assert schema_named(None) is None
