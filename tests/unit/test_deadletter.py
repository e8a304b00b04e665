from __future__ import annotations

from datetime import UTC, datetime

import pytest

from farandole.deadletter import (
    STACKTRACE_BYTES,
    DeadLetter,
    Failure,
    LetterContext,
    failure_of,
    letter_of,
    normalised,
    size_of,
)
from farandole.delivery import Delivery
from farandole.errors import Undecodable
from farandole.event import RawRecord
from farandole.ids import dead_letter_id, digest

START = datetime(2013, 1, 1, tzinfo=UTC)
WHERE = LetterContext("dlq.merge", 3, "merge", "1.2", "run-1", 2)


def a_record(value=b"\x00\x01value", headers=(("ce_id", b"e1"), ("empty", None), ("ce_id", b"twice"))):
    return RawRecord("in.v1", "T1", 5, 42, 1000, b"\xffkey", value, list(headers))


def failed(error, **more):
    try:
        raise error
    except type(error) as caught:
        return failure_of(caught, "run", "write", "merge", **more)


def as_dict(letter):
    return {name: (value or b"").decode() for name, value in letter.headers}


def test_key_value_and_headers_of_the_event_stand_as_they_were():
    raw = a_record()

    letter = letter_of(raw, failed(ValueError("no")), WHERE)

    assert (letter.key, letter.value, letter.headers[:3]) == (raw.key, raw.value, raw.headers)
    assert (letter.topic, letter.partition) == ("dlq.merge", 5 % 3)


def test_a_letter_says_what_kafka_says_and_more():
    failure = failed(ValueError("row 17 is bad"), attempts=4, first_failed_at=START)

    told = as_dict(letter_of(a_record(), failure, WHERE))

    assert {name: told[name] for name in told if name.startswith("__dlq.")} == {
        "__dlq.errors.topic": "in.v1",
        "__dlq.errors.partition": "5",
        "__dlq.errors.offset": "42",
        "__dlq.errors.group": "merge",
        "__dlq.errors.delivery.count": "4",
        "__dlq.errors.message": "row 17 is bad",
    }
    assert told["farandole-dlq-stage"] == "run"
    assert told["farandole-dlq-step"] == "write"
    assert told["farandole-dlq-exception-class"] == "ValueError"
    assert told["farandole-dlq-first-failed-at"] == "2013-01-01T00:00:00.000Z"
    assert told["farandole-dlq-pipeline-version"] == "1.2"
    assert (told["farandole-dlq-run-id"], told["farandole-dlq-life"]) == ("run-1", "2")
    assert told["farandole-dlq-fingerprint"] == failure.fingerprint
    assert "raise error" in told["farandole-dlq-stacktrace"]


def test_a_letter_is_read_back():
    letter = letter_of(a_record(), failed(Undecodable("decode.corrupt", "3 bytes left over")), WHERE)
    stood = RawRecord(letter.topic, "D1", letter.partition, 7, 2000, letter.key, letter.value, letter.headers)

    read = DeadLetter.of(stood)

    assert read.id == dead_letter_id("run-1", 2)
    assert (read.topic, read.topic_id, read.partition, read.offset) == ("in.v1", "T1", 5, 42)
    assert (read.reason, read.group, read.life, read.attempts) == ("decode.corrupt", "merge", 2, 1)


def test_a_long_stack_trace_keeps_its_end():
    def deep(n):
        return deep(n - 1) if n else int("no number ü")

    def other(n):
        return deep(0) if not n else (other(n - 1) if n % 2 else deep(n - 1))

    failure = Failure("E", "m", "run", traceback="ü" * STACKTRACE_BYTES)
    with pytest.raises(ValueError) as caught:
        other(300)
    from_error = failure_of(caught.value, "run", "s", "merge")

    assert len(from_error.traceback.encode()) <= STACKTRACE_BYTES
    assert from_error.traceback.rstrip().endswith("invalid literal for int() with base 10: 'no number ü'")
    assert letter_of(a_record(), failure, WHERE).value == a_record().value


def test_a_letter_that_would_be_too_large_loses_its_stack_trace_first():
    raw = a_record(b"v" * 5000)
    failure = Failure("E", "m", "run", traceback="t" * 8000)

    letter = letter_of(raw, failure, WHERE, max_bytes=7000)

    assert letter.value == raw.value
    assert size_of(letter) <= 7000
    assert 0 < len(as_dict(letter)["farandole-dlq-stacktrace"]) <= 512


def test_a_letter_that_is_still_too_large_points_to_its_event_and_says_so():
    raw = a_record(b"v" * 5000)

    letter = letter_of(raw, Failure("E", "m", "run"), WHERE, max_bytes=3000)

    told = as_dict(letter)
    assert (letter.key, letter.value) == (raw.key, None)
    assert told["farandole-dlq-pointer"] == "T1/5/42"
    assert told["farandole-dlq-digest"] == digest(raw.value).hex()
    assert told["ce_id"] == "twice"
    assert DeadLetter.of(RawRecord("dlq.merge", "D", 0, 0, headers=letter.headers)).pointer == "T1/5/42"


def test_headers_too_large_for_a_letter_are_left_in_the_event():
    raw = a_record(headers=[("huge", b"h" * 9000), ("ce_id", b"e1")])

    letter = letter_of(raw, Failure("E", "m", "run"), WHERE, max_bytes=3000)

    assert [name for name, _ in letter.headers if name in {"huge", "ce_id"}] == ["ce_id"]
    assert size_of(letter) <= 3000


def test_even_a_huge_key_and_envelope_leave_a_letter_within_the_limit():
    raw = RawRecord("in.v1", "T1", 5, 42, key=b"k" * 9000, value=b"v", headers=[("ce_id", b"i" * 9000)])

    letter = letter_of(raw, Failure("E", "m", "run"), WHERE, max_bytes=3000)

    assert letter.key is None
    assert size_of(letter) <= 3000


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("row 17 of 'a.csv' failed", "row 4 of 'b.csv' failed"),
        ("id 6f1c2a00-aaaa-bbbb-cccc-0123456789ab", "id 00000000-0000-0000-0000-000000000000"),
        ("digest deadbeef01 at 0x7f00", "digest 0123456789abcdef at 0x1"),
        ("took 3.5 s  at 2013-01-01T06:00:00Z", "took 10 s at 2014-12-31T23:59:59Z"),
        ('key "x y" is missing', 'key "z" is missing'),
    ],
)
def test_one_cause_has_one_fingerprint_whatever_the_values(one, other):
    assert failed(ValueError(one)).fingerprint == failed(ValueError(other)).fingerprint


def test_other_causes_have_other_fingerprints():
    assert failed(ValueError("a")).fingerprint != failed(ValueError("b")).fingerprint
    assert failed(ValueError("a")).fingerprint != failed(KeyError("a")).fingerprint
    assert normalised("can't read, won't read") == "can't read, won't read"


def test_an_error_that_cannot_be_printed_is_a_failure_all_the_same():
    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError

    failure = failed(MuteError())

    assert "__str__ raised RuntimeError" in failure.message
    assert failure.class_name.endswith("MuteError")


def test_a_message_without_end_is_cut_and_odd_text_does_no_harm():
    failure = failed(ValueError("x" * 10_000_000))
    odd = failed(ValueError("\ud800 lone"))

    assert len(failure.message.encode()) <= 2048
    assert size_of(letter_of(a_record(), failure, WHERE)) < 20_000
    assert b"lone" in dict(letter_of(a_record(), odd, WHERE).headers)["__dlq.errors.message"]


def test_connects_letters_are_read():
    headers = [
        ("__connect.errors.topic", b"in.v1"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"99"),
        ("__connect.errors.stage", b"VALUE_CONVERTER"),
        ("__connect.errors.exception.class.name", b"org.apache.DataException"),
        ("__connect.errors.exception.message", b"bad"),
        ("__connect.errors.exception.stacktrace", b"at x"),
    ]
    read = DeadLetter.of(RawRecord("dlq.sink", "D", 0, 8, headers=headers))

    assert (read.topic, read.partition, read.offset, read.stage) == ("in.v1", 3, 99, "VALUE_CONVERTER")
    assert (read.exception_class, read.message, read.stacktrace) == ("org.apache.DataException", "bad", "at x")
    assert (read.group, read.id) == ("sink", "dlq.sink/0:8")


def test_springs_letters_are_read_with_their_binary_numbers():
    headers = [
        ("kafka_dlt-original-topic", b"in.v1"),
        ("kafka_dlt-original-partition", (3).to_bytes(4, "big")),
        ("kafka_dlt-original-offset", (99).to_bytes(8, "big")),
        ("kafka_dlt-original-consumer-group", b"billing"),
        ("kafka_dlt-exception-fqcn", b"java.lang.Exception"),
        ("kafka_dlt-exception-message", b"bad"),
        ("retry_topic-attempts", (4).to_bytes(4, "big")),
    ]
    read = DeadLetter.of(RawRecord("in.v1.DLT", "D", 0, 8, headers=headers))

    assert (read.partition, read.offset, read.attempts, read.group) == (3, 99, 4, "billing")
    assert (read.exception_class, read.message) == ("java.lang.Exception", "bad")


# ---- the event back


def stood(letter, **more):
    return RawRecord(letter.topic, "D1", letter.partition, 7, 2000, letter.key, letter.value, letter.headers, **more)


def test_the_event_comes_back_out_of_its_letter_as_it_stood():
    raw = a_record()

    assert DeadLetter.of(stood(letter_of(raw, failed(ValueError("no")), WHERE))).event() == raw


def test_an_event_that_was_a_dead_letter_itself_keeps_the_headers_of_that_one():
    first = letter_of(a_record(), failed(ValueError("first")), WHERE)
    first.headers += [("kafka_dlt-original-topic", b"elsewhere"), ("__connect.errors.stage", b"X")]
    event = stood(first)

    second = letter_of(event, failed(KeyError("second")), LetterContext("dlq.triage", 1, "triage", run_id="r2"))

    assert DeadLetter.of(stood(second)).event() == event


def test_the_event_of_a_pointer_letter_is_the_one_that_it_points_to():
    raw = a_record(b"v" * 5000)
    letter = DeadLetter.of(stood(letter_of(raw, Failure("E", "m", "run"), WHERE, max_bytes=3000)))

    assert letter.event(raw) == raw


def test_a_delivery_carries_the_next_life_of_the_letters_run():
    where = LetterContext("dlq.merge", 3, "merge", "1.2", "run-1", 2, b"key", 1, 2, b"join", epoch=4)
    failure = failed(ValueError("no"), first_failed_at=START)

    delivery = DeadLetter.of(stood(letter_of(a_record(), failure, where))).delivery("redrive", "p1", "ada@desk")

    assert delivery == Delivery(
        "redrive", "run-1", b"key", "in.v1", "T1", 5, 42, 1000, epoch=4, life=3, part=1, parts=2, join_key=b"join",
        first_failed_at="2013-01-01T00:00:00.000Z", redrive_id="p1", actor="ada@desk",
    )  # fmt: skip


CONNECT = [  # as Kafka Connect's sink writes them, errors.deadletterqueue.context.headers.enable=true
    ("__connect.errors.topic", b"in.v1"),
    ("__connect.errors.partition", b"3"),
    ("__connect.errors.offset", b"99"),
    ("__connect.errors.connector.name", b"lake-sink"),
    ("__connect.errors.task.id", b"0"),
    ("__connect.errors.stage", b"VALUE_CONVERTER"),
    ("__connect.errors.class.name", b"io.confluent.connect.avro.AvroConverter"),
    ("__connect.errors.exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
    ("__connect.errors.exception.message", b"Failed to deserialize data for topic in.v1 to Avro: "),
    ("__connect.errors.exception.stacktrace", b"org.apache.kafka.connect.errors.DataException: ...\n\tat io..."),
]
SPRING = [  # as DeadLetterPublishingRecoverer writes them behind a retry topic; numbers are big-endian bytes
    ("kafka_original-topic", b"in.v1"),
    ("kafka_exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
    ("retry_topic-attempts", bytes.fromhex("00000004")),
    ("retry_topic-backoff-timestamp", bytes.fromhex("0000019355b0a1f8")),
    ("retry_topic-original-timestamp", bytes.fromhex("0000019355afb400")),
    ("kafka_dlt-original-topic", b"in.v1"),
    ("kafka_dlt-original-partition", bytes.fromhex("00000003")),
    ("kafka_dlt-original-offset", bytes.fromhex("00000000000186a3")),
    ("kafka_dlt-original-timestamp", bytes.fromhex("0000019355afb400")),
    ("kafka_dlt-original-timestamp-type", b"CreateTime"),
    ("kafka_dlt-original-consumer-group", b"billing"),
    ("kafka_dlt-exception-fqcn", b"org.springframework.kafka.listener.ListenerExecutionFailedException"),
    ("kafka_dlt-exception-cause-fqcn", b"java.lang.IllegalStateException"),
    ("kafka_dlt-exception-message", b"Listener failed; order 4711 is closed"),
    ("kafka_dlt-exception-stacktrace", b"org.springframework...\n"),
]
OWN = [("ce_id", b"e1"), ("ce_source", b"/shop"), ("trace", None)]


@pytest.mark.parametrize("added", [CONNECT, SPRING])
def test_the_event_comes_back_out_of_letters_that_others_wrote(added):
    letter = DeadLetter.of(RawRecord("dlq.sink", "D", 0, 8, 5000, b"k", b"v", [*OWN, *added]))

    event = letter.event()

    assert (event.topic, event.partition, event.key, event.value, event.headers) == ("in.v1", 3, b"k", b"v", OWN)


def test_springs_offsets_and_times_are_read_beyond_what_text_would_give():
    letter = DeadLetter.of(RawRecord("orders.DLT", "D", 0, 8, 5000, b"k", b"v", SPRING))

    assert (letter.partition, letter.offset, letter.attempts) == (3, 100_003, 4)
    assert letter.timestamp == 0x0000019355AFB400
    assert letter.exception_class == "java.lang.IllegalStateException"


def test_letters_of_others_are_grouped_by_their_cause_too():
    def fingerprint(message, headers=SPRING):
        told = [h for h in headers if h[0] != "kafka_dlt-exception-message"]
        return DeadLetter.of(
            RawRecord("dlq.x", "D", 0, 8, headers=[*told, ("kafka_dlt-exception-message", message)])
        ).fingerprint

    assert fingerprint(b"order 1 is closed") == fingerprint(b"order 2 is closed") != fingerprint(b"no such order")


def test_whose_letter_it_is_follows_from_its_topic():
    assert DeadLetter.of(RawRecord("dlq.merge", "D", 0, 8, headers=SPRING)).group == "merge"
    assert DeadLetter.of(RawRecord("orders.DLT", "D", 0, 8, headers=SPRING)).group == "billing"
