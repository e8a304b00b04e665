"""The three commit classes, and what each safeguard is for: without it, exactly this goes wrong."""

from __future__ import annotations

import pytest

from tests.models.commit_world import (
    EFFECT_LOST,
    EFFECT_TWICE,
    OUTPUT_LOST,
    OUTPUT_TWICE,
    OUTSIDE_LOST,
    OUTSIDE_TWICE,
    PUBLISH,
    CommitModel,
    Faults,
    Protocol,
)

LOG = ("a", "a", "b")  # an event told twice, at two offsets, and another one
KILLS = Faults(kills=2, takeovers=1)
ABORTS = Faults(kills=1, takeovers=1, aborts=1)

EVENT_TO_EVENT = Protocol(PUBLISH)
DATABASE = Protocol(("decide in SQL", *PUBLISH), publishes_outbox=True)
EXTERNAL = ("claim", "external effect", "complete", *PUBLISH)
IDEMPOTENT = Protocol(EXTERNAL, publishes_outbox=True, honours_key=True)
AT_MOST_ONCE = Protocol(EXTERNAL, publishes_outbox=True, doubts=True)
AT_LEAST_ONCE = Protocol(EXTERNAL, publishes_outbox=True)


def anomalies(protocol: Protocol, faults: Faults = KILLS) -> frozenset[str]:
    return CommitModel(protocol, LOG).explore(faults).anomalies


@pytest.mark.parametrize(
    ("protocol", "faults"),
    [
        pytest.param(EVENT_TO_EVENT, KILLS, id="event to event"),
        pytest.param(EVENT_TO_EVENT, ABORTS, id="event to event, with aborts and a new session after each"),
        pytest.param(DATABASE, KILLS, id="database"),
        pytest.param(IDEMPOTENT, KILLS, id="external, idempotent"),
        pytest.param(AT_MOST_ONCE, KILLS, id="external, at most once"),
    ],
)
def test_the_protocol_in_use_shows_no_anomaly_under_kills_takeover_and_zombie(protocol, faults):
    assert anomalies(protocol, faults) == set()


def test_event_to_event_without_the_ledger_tail_at_takeover_gives_outputs_twice():
    assert anomalies(Protocol(PUBLISH, catches_up=False)) == {OUTPUT_TWICE}


def test_event_to_event_with_the_dedup_row_first_loses_outputs():
    assert anomalies(Protocol(("dedup row", *PUBLISH))) == {OUTPUT_LOST}


def test_event_to_event_without_transactions_gives_outputs_twice():
    assert anomalies(Protocol(("produce at once", "commit offset at once", "settle"), catches_up=False)) == {
        OUTPUT_TWICE
    }


def test_a_session_used_again_after_an_abort_loses_outputs_to_a_late_end_of_transaction():
    reused = Protocol(PUBLISH, renews_session=False)
    assert anomalies(reused, Faults(kills=1, takeovers=0, aborts=1)) == {OUTPUT_LOST}


def test_a_dedup_hit_that_skips_without_publishing_the_outbox_loses_outputs():
    assert anomalies(Protocol(("decide in SQL", *PUBLISH))) == {OUTPUT_LOST}


def test_an_outbox_that_is_not_cleared_from_the_ledger_gives_outputs_twice():
    assert anomalies(Protocol(("decide in SQL", *PUBLISH), publishes_outbox=True, catches_up=False)) == {OUTPUT_TWICE}


def test_kafka_first_and_sql_after_loses_the_sql_effect():
    kafka_first = Protocol(("produce", "send offset", "commit", "SQL effect", "dedup row"))
    assert anomalies(kafka_first) == {EFFECT_LOST}


def test_an_effect_and_its_dedup_row_in_two_transactions_give_the_effect_twice():
    two_transactions = Protocol(("SQL effect", "dedup row", *PUBLISH))
    assert anomalies(two_transactions) == {EFFECT_TWICE, OUTPUT_LOST}


def test_an_effect_without_a_key_may_happen_twice_as_at_least_once_says():
    assert anomalies(AT_LEAST_ONCE) == {OUTSIDE_TWICE}


def test_an_external_effect_after_its_dedup_row_may_be_lost():
    marked_first = Protocol(("dedup row", "external effect", *PUBLISH))
    assert anomalies(marked_first) == {OUTSIDE_LOST, OUTSIDE_TWICE, OUTPUT_LOST}


def test_an_external_effect_before_its_dedup_row_without_claim_or_key_may_happen_twice():
    marked_after = Protocol(("external effect", "dedup row", *PUBLISH))
    assert anomalies(marked_after) == {OUTSIDE_TWICE, OUTPUT_LOST}
