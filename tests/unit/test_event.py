"""Envelopes to headers and back, with the cloudevents library as the judge; record keys are tested in test_plain."""

from __future__ import annotations

from datetime import UTC, datetime

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from farandole.event import Envelope, Interval, Position, envelope_of

AT = Position("lake.table.merged.v1", "topic-id", 3, 14, 1356998400123)
words = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20)
moments = st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)).map(
    lambda m: m.isoformat(timespec="milliseconds").replace("+00:00", "Z")
)
envelopes = st.builds(
    Envelope, id=words, source=words, type=words, time=moments, subject=words, correlation_id=words, causation_id=words,
    run_id=words, epoch=st.integers(0, 10**8), traceparent=words, tracestate=words,
)  # fmt: skip


class Bytes:
    """The format of data that the library is to leave alone."""

    def read_data(self, value, _content_type):
        return value

    def write_data(self, value, _content_type):
        return value


@given(envelopes)
def test_the_cloudevents_library_reads_what_we_write(envelope):
    event = from_binary(KafkaMessage(dict(envelope.headers()), None, b"value"), Bytes())
    assert event.get_id() == envelope.id
    assert event.get_source() == envelope.source
    assert event.get_type() == envelope.type
    assert event.get_subject() == envelope.subject
    assert event.get_time() == datetime.fromisoformat(envelope.time)
    assert event.get_datacontenttype() == "application/avro"
    assert event.get_extension("correlationid") == envelope.correlation_id
    assert event.get_extension("causationid") == envelope.causation_id
    assert event.get_extension("runid") == envelope.run_id
    assert int(event.get_extension("epoch") or 0) == envelope.epoch


@given(words, words, words, words)
def test_we_read_what_the_cloudevents_library_writes(identity, source, kind, subject):
    attributes = {"id": identity, "source": source, "type": kind, "subject": subject, "correlationid": "story"}
    attributes |= {
        "specversion": "1.0",
        "time": datetime(2013, 1, 1, tzinfo=UTC),
        "datacontenttype": "application/avro",
    }
    told = to_binary(CloudEvent(attributes, b"value"), Bytes())
    read = envelope_of(list(told.headers.items()), "other.type.v1", AT)
    assert (read.id, read.source, read.type, read.subject) == (identity, source, kind, subject)
    assert (read.time, read.correlation_id, read.derived) == ("2013-01-01T00:00:00Z", "story", False)


@given(envelopes)
def test_an_envelope_comes_back_from_its_headers(envelope):
    assert envelope_of(envelope.headers(), "other.type.v1", AT) == envelope


def test_a_record_without_headers_gets_what_is_missing_from_its_position():
    read = envelope_of(None, "lake.table.merged.v1", AT)
    assert read == Envelope(
        id="pos:topic-id/3/14",
        source="/kafka/lake.table.merged.v1",
        type="lake.table.merged.v1",
        time="2013-01-01T00:00:00.123Z",
        correlation_id="pos:topic-id/3/14",
        derived=True,
    )


@given(st.lists(st.tuples(st.text(max_size=12), st.none() | st.binary(max_size=12))))
def test_no_foreign_header_whatever_stops_an_event(headers):
    read = envelope_of([*headers, ("ce_epoch", b"seven"), ("ce_id", None)], "a.b.v1", AT)
    assert read.type
    assert read.id
    assert read.epoch >= 0


def test_what_is_empty_is_left_out():
    assert [name for name, _ in Envelope("i", "s", "t").headers()] == [
        "ce_specversion", "ce_id", "ce_source", "ce_type", "content-type",
    ]  # fmt: skip


def test_an_interval_is_half_open_and_reads_as_one():
    record = {"start": datetime(2013, 1, 1, tzinfo=UTC), "end": datetime(2013, 1, 2, tzinfo=UTC)}
    assert Interval.of(record).record() == record
    assert str(Interval.of(record)) == "2013-01-01T00:00Z/2013-01-02T00:00Z"
