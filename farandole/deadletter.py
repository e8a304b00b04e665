"""The dead letter: an event that a pipeline could not settle, kept whole, with the reason.

Key, value and headers of the event stay as they were, byte for byte; what is added stands under Kafka's
own names (KIP-1191, ``__dlq.errors.*``) and under ours (``farandole-dlq-*``).
"""

from __future__ import annotations

import re
import traceback
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import blake2b
from pathlib import PurePath
from types import TracebackType

from farandole.clock import iso
from farandole.delivery import Delivery
from farandole.event import RawRecord, Record
from farandole.ids import dead_letter_id, digest

STACKTRACE_BYTES = 8192
"""A stack trace keeps this many bytes at its end, where the error is."""
MESSAGE_BYTES = 2048
"""An error's message keeps this many bytes at its beginning."""
SHORT_BYTES = 512  # what a stack trace keeps when the letter would be too large otherwise

_OVERHEAD = 128  # of a record batch and a record, rounded up
_HEADER_OVERHEAD = 12  # two lengths of a header

RawHeaders = list[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an event could not be settled. `fingerprint` is the same for the same cause, whatever the values."""

    class_name: str
    message: str
    stage: str  # decode, match, run, emit
    step: str = ""
    traceback: str = ""
    fingerprint: str = ""
    attempts: int = 1
    first_failed_at: datetime | None = None
    reason: str = ""  # the closed word of an error that has one, such as decode.corrupt


@dataclass(frozen=True, slots=True)
class LetterContext:
    """Whose letter it is: the dead-letter topic with its number of partitions, the group, the run and its life."""

    topic: str
    partitions: int
    group: str
    version: str = ""
    run_id: str = ""
    life: int = 0
    key: bytes = b""  # the idempotency key, which a redrive keeps
    part: int = 1  # of a joined run: which of its events this is, and of how many
    parts: int = 1
    join_key: bytes = b""
    epoch: int = 0
    said: bytes = b""  # digest of the value that stands on the event's topic, where a person has edited it since


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it stands in its topic; read from ours, Kafka's, Connect's and Spring's headers."""

    id: str
    raw: RawRecord  # where the letter itself stands
    topic: str  # from here on: where the event stood
    topic_id: str
    partition: int
    offset: int
    group: str
    message: str
    stage: str
    step: str
    reason: str
    exception_class: str
    stacktrace: str
    fingerprint: str
    first_failed_at: str
    pipeline_version: str
    run_id: str
    life: int
    attempts: int
    event_id: str
    event_type: str
    pointer: str  # set where the letter was too large and only points to the event
    key: bytes = b""
    part: int = 1
    parts: int = 1
    join_key: bytes = b""
    timestamp: int = -1  # of the event, milliseconds since 1970; -1 unknown
    edited_from: str = ""  # digest of the value before a person edited it, hex
    epoch: int = 0

    @classmethod
    def of(cls, raw: RawRecord) -> DeadLetter:
        """From a record of a dead-letter topic; what its writer did not say is empty, or -1.

        Whose letter it is follows from the topic's name, ``dlq.<group>``, and else from the headers. A letter
        without a fingerprint of its own gets one from what it says of the error.
        """
        got = dict(raw.headers)
        run, life = _text(got, "farandole-dlq-run-id"), _number(got, "farandole-dlq-life", default=0)
        part, parts = (_number(got, f"farandole-dlq-{name}", default=1) for name in ("part", "parts"))
        event_type = _text(got, "ce_type")
        topic = _text(got, *_said_as("topic"), "x-original-topic") or event_type
        told = cls(
            id=dead_letter_id(run, life, part) if run else f"{raw.topic}/{raw.partition}:{raw.offset}",
            raw=raw,
            topic=topic,
            topic_id=_text(got, "farandole-dlq-topic-id"),
            partition=_number(got, *_said_as("partition")),
            offset=_number(got, *_said_as("offset")),
            group=owner_of(raw.topic) or _text(got, "__dlq.errors.group", "kafka_dlt-original-consumer-group"),
            message=_text(got, "__dlq.errors.message", *_exception("message")),
            stage=_text(got, "farandole-dlq-stage", "__connect.errors.stage"),
            step=_text(got, "farandole-dlq-step", "__connect.errors.class.name"),
            reason=_text(got, "farandole-dlq-reason"),
            exception_class=_text(
                got,
                "farandole-dlq-exception-class",
                "__connect.errors.exception.class.name",
                "kafka_dlt-exception-cause-fqcn",  # the other one is the listener's, the same for every cause
                "kafka_dlt-exception-fqcn",
            ),
            stacktrace=_text(got, "farandole-dlq-stacktrace", *_exception("stacktrace")),
            fingerprint=_text(got, "farandole-dlq-fingerprint"),
            first_failed_at=_text(got, "farandole-dlq-first-failed-at"),
            pipeline_version=_text(got, "farandole-dlq-pipeline-version"),
            run_id=run,
            life=life,
            attempts=_number(got, "__dlq.errors.delivery.count", "retry_topic-attempts"),
            event_id=_text(got, "ce_id"),
            event_type=event_type or topic,
            pointer=_text(got, "farandole-dlq-pointer"),
            key=_bytes(got, "farandole-dlq-key"),
            part=part,
            parts=parts,
            join_key=_bytes(got, "farandole-dlq-join-key"),
            timestamp=_number(got, "farandole-dlq-timestamp", "kafka_dlt-original-timestamp"),
            edited_from=_text(got, "farandole-dlq-edited-from"),
            epoch=_number(got, "farandole-dlq-epoch", default=0),
        )
        return told if told.fingerprint else replace(told, fingerprint=_foreign_fingerprint(told))

    def event(self, stood: RawRecord | None = None) -> RawRecord:
        """The event as it stood on its own topic, without what the letter added to it.

        `stood` is the event itself where this letter only points to it.
        """
        of = stood or self.raw
        headers = list(of.headers) if stood else _untouched(self.raw.headers)
        return RawRecord(
            self.topic, self.topic_id, self.partition, self.offset, self.timestamp, of.key, of.value, headers
        )

    def delivery(self, kind: str, redrive_id: str, actor: str, *, reason: str = "", edited_from: str = "") -> Delivery:
        """What brings this letter back to its pipeline: its key and its run, in their next life."""
        return Delivery(
            kind,
            self.run_id,
            self.key,
            self.topic,
            self.topic_id,
            self.partition,
            self.offset,
            self.timestamp,
            epoch=self.epoch,
            life=self.life + 1,
            part=self.part,
            parts=self.parts,
            join_key=self.join_key,
            first_failed_at=self.first_failed_at,
            redrive_id=redrive_id,
            edited_from=self.edited_from or edited_from,
            actor=actor,
            reason=reason,
        )


PREFIX = "dlq."
"""Dead letters of a pipeline stand in the topic of this and its name."""


def owner_of(topic: str) -> str:
    """The pipeline whose dead letters stand in a topic; empty where the name does not tell."""
    return topic.removeprefix(PREFIX) if topic.startswith(PREFIX) else ""


_ADDED_BY_OTHERS = re.compile(
    r"__dlq\.errors\.|farandole-dlq-|__connect\.errors\.|kafka_(?:dlt-|exception-|original-|deliveryAttempt$)"
    r"|retry_topic-|springDeserializerException|x-original-topic$"
)


def _untouched(headers: RawHeaders) -> RawHeaders:
    """The headers of the event: ours stand behind them in one block, those of others are known by their names.

    The event of a pipeline that listens to dead letters has headers of this kind of its own, and keeps them.
    """
    if any(name == "farandole-dlq-stage" for name, _ in headers):
        begins = max((at for at, (name, _) in enumerate(headers) if name == "__dlq.errors.topic"), default=-1)
        if begins >= 0:
            return headers[:begins]
    return [(name, value) for name, value in headers if not _ADDED_BY_OTHERS.match(name)]


def _foreign_fingerprint(letter: DeadLetter) -> str:
    place = letter.step or letter.stage
    return fingerprint(letter.group, place, letter.exception_class, letter.message, "")


def _said_as(name: str) -> tuple[str, str, str]:
    return f"__dlq.errors.{name}", f"__connect.errors.{name}", f"kafka_dlt-original-{name}"


def _exception(name: str) -> tuple[str, str]:
    return f"__connect.errors.exception.{name}", f"kafka_dlt-exception-{name}"


def _text(got: dict[str, bytes | None], *names: str) -> str:
    return next((value.decode("utf-8", "replace") for name in names if (value := got.get(name)) is not None), "")


def _bytes(got: dict[str, bytes | None], name: str) -> bytes:
    try:
        return bytes.fromhex(_text(got, name))
    except ValueError:
        return b""


def _number(got: dict[str, bytes | None], *names: str, default: int = -1) -> int:
    for name in names:
        if (value := got.get(name)) is None:
            continue
        if name.startswith(("kafka_", "retry_topic-")):  # Spring's integers are big-endian bytes, not text
            return int.from_bytes(value, "big", signed=True)
        return int(value) if value.removeprefix(b"-").isdigit() else default
    return default


def failure_of(
    error: BaseException,
    stage: str,
    step: str,
    pipeline: str,
    *,
    attempts: int = 1,
    first_failed_at: datetime | None = None,
) -> Failure:
    """The failure that an error is. An error that cannot even be printed is a failure too."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    message = _head(_said(error), MESSAGE_BYTES)
    return Failure(
        class_name=name,
        message=message,
        stage=stage,
        step=step,
        traceback=_tail("".join(traceback.format_exception(error)), STACKTRACE_BYTES),
        fingerprint=fingerprint(pipeline, step or stage, name, message, _where(error)),
        attempts=attempts,
        first_failed_at=first_failed_at,
        reason=str(getattr(error, "reason", "")),
    )


def fingerprint(pipeline: str, step: str, class_name: str, message: str, place: str) -> str:
    """Sixteen hex digits that are the same for the same cause.

    >>> one = fingerprint("merge", "write", "ValueError", "row 17 of 'a.csv' is bad", "write")
    >>> one == fingerprint("merge", "write", "ValueError", "row 4 of 'b.csv' is bad", "write")
    True
    """
    told = "\x00".join((pipeline, step, class_name, normalised(message), place))
    return blake2b(told.encode("utf-8", "replace"), digest_size=8).hexdigest()


_VALUES = (
    (re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"), "<uuid>"),
    (re.compile(r"""(?<!\w)(?:'[^'\n]*'|"[^"\n]*"|`[^`\n]*`)(?!\w)"""), "<text>"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]*\d)(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{8,}\b"), "<hex>"),
    (re.compile(r"[-+]?\d+(?:[.,:]\d+)*(?:[eE][-+]?\d+)?"), "<n>"),
)


def normalised(message: str) -> str:
    """A message with its values taken out, so that fifty letters of one cause are one group.

    >>> normalised("row 17 of 'a.csv' failed at 0x7f31")
    'row <n> of <text> failed at <hex>'
    """
    for pattern, word in _VALUES:
        message = pattern.sub(word, message)
    return " ".join(message.split())


def letter_of(raw: RawRecord, failure: Failure, where: LetterContext, max_bytes: int = 1_000_000) -> Record:
    """The dead letter of a record, at most `max_bytes` large.

    When it would be larger the stack trace is cut; when even that is too large the letter is a pointer:
    it names the record by topic id, partition, offset and digest, and says so.
    """
    for stacktrace in (failure.traceback, _tail(failure.traceback, SHORT_BYTES), ""):
        letter = _letter(raw, raw.value, [*raw.headers, *_reasons(raw, failure, where, stacktrace)], where)
        if size_of(letter) <= max_bytes:
            return letter
    pointer = [*_reasons(raw, failure, where, _tail(failure.traceback, SHORT_BYTES)), *_pointer(raw)]
    small = [(name, value) for name, value in raw.headers if name.startswith("ce_") or name == "traceparent"]
    letter = _letter(raw, None, [*small, *pointer], where)
    if size_of(letter) <= max_bytes:
        return letter
    letter = _letter(raw, None, pointer, where)
    if size_of(letter) > max_bytes:
        letter.key = None
    return letter


def size_of(record: Record) -> int:
    """An upper bound of the bytes that a record takes in a batch of its own."""
    inside = len(record.key or b"") + len(record.value or b"")
    return _OVERHEAD + inside + sum(_HEADER_OVERHEAD + len(n.encode()) + len(v or b"") for n, v in record.headers)


def _letter(raw: RawRecord, value: bytes | None, headers: RawHeaders, where: LetterContext) -> Record:
    return Record(where.topic, raw.key, value, headers, raw.partition % where.partitions if where.partitions else -1)


def _reasons(raw: RawRecord, failure: Failure, where: LetterContext, stacktrace: str) -> RawHeaders:
    first = iso(failure.first_failed_at) if failure.first_failed_at else ""
    named = (
        ("__dlq.errors.topic", raw.topic),
        ("__dlq.errors.partition", str(raw.partition)),
        ("__dlq.errors.offset", str(raw.offset)),
        ("__dlq.errors.group", where.group),
        ("__dlq.errors.delivery.count", str(failure.attempts)),
        ("__dlq.errors.message", failure.message),
        ("farandole-dlq-topic-id", raw.topic_id),
        ("farandole-dlq-timestamp", str(raw.timestamp) if raw.timestamp >= 0 else ""),
        ("farandole-dlq-stage", failure.stage),
        ("farandole-dlq-step", failure.step),
        ("farandole-dlq-reason", failure.reason),
        ("farandole-dlq-exception-class", failure.class_name),
        ("farandole-dlq-stacktrace", stacktrace),
        ("farandole-dlq-fingerprint", failure.fingerprint),
        ("farandole-dlq-first-failed-at", first),
        ("farandole-dlq-pipeline-version", where.version),
        ("farandole-dlq-run-id", where.run_id),
        ("farandole-dlq-life", str(where.life)),
        ("farandole-dlq-key", where.key.hex()),
        ("farandole-dlq-join-key", where.join_key.hex()),
        ("farandole-dlq-epoch", str(where.epoch) if where.epoch else ""),
        ("farandole-dlq-edited-from", where.said.hex() if where.said not in (b"", digest(raw.value)) else ""),
        ("farandole-dlq-part", str(where.part) if where.parts > 1 else ""),
        ("farandole-dlq-parts", str(where.parts) if where.parts > 1 else ""),
    )
    return [(name, value.encode("utf-8", "replace")) for name, value in named if value]


def _pointer(raw: RawRecord) -> RawHeaders:
    told = f"{raw.topic_id}/{raw.partition}/{raw.offset}"
    return [("farandole-dlq-pointer", told.encode()), ("farandole-dlq-digest", digest(raw.value).hex().encode())]


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - an author's __str__ must not stop the letter
        return f"<{type(error).__name__}.__str__ raised {type(broken).__name__}>"


def _where(error: BaseException) -> str:
    """Where it was raised; what comes from a child process says it itself."""
    return getattr(error.__cause__, "place", "") or raised_at(error.__traceback__)


def raised_at(trace: TracebackType | None) -> str:
    """File and function of the innermost frame outside installed packages: line numbers move with each edit."""
    place = ""
    while trace is not None:
        code = trace.tb_frame.f_code
        path = PurePath(code.co_filename)
        if not place or not {"site-packages", "dist-packages"} & set(path.parts):
            place = f"{path.name}:{code.co_qualname}"
        trace = trace.tb_next
    return place


def _head(text: str, size: int) -> str:
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= size else raw[: size - 3].decode("utf-8", "ignore") + "…"


def _tail(text: str, size: int) -> str:
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= size else "…" + raw[len(raw) - size + 3 :].decode("utf-8", "ignore")
