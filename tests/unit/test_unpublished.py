"""What SQL decided and Kafka was not told goes out with the record that made it, whoever comes first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from farandole.event import RawRecord
from farandole.intake import Intake
from farandole.ledger.entry import LEDGER_TOPIC
from farandole.owned import RUNNING, Owned
from farandole.run import Run
from farandole.unpublished import Unpublished


def record(offset: int) -> RawRecord:
    return RawRecord("in.v1", "id", 0, offset, 0, b"k", b"v", [])


def of(made_by: int) -> Intake:
    """An intake that knows one decided run, of the record at that offset."""
    entry = {"via": [], "triggers": [{"topic_id": "id", "partition": 0, "offset": made_by}]}
    books = SimpleNamespace(stored=lambda row: row)
    intake = Intake.__new__(Intake)
    intake.unpublished = Unpublished(books, SimpleNamespace(decode=lambda *_: entry))
    intake.unpublished.stored = {"run": [SimpleNamespace(topic=LEDGER_TOPIC, value=b"")]}
    return intake


@pytest.mark.parametrize("made_by", [3, 4, 5])
def test_copies_of_a_decided_event_in_one_batch_publish_it_once_with_the_record_that_made_it(made_by: int):
    intake, owned = of(made_by), Owned("in.v1", 0, 1, phase=RUNNING)
    known = SimpleNamespace(run_id="run", digest=b"")
    for offset in (3, 4, 5):
        reading = SimpleNamespace(raw=record(offset), offset=offset, owned=owned, slot=None, come=None, signal=None)
        intake._settled_before(reading, known)
    published = [(ended.published, [slot.offset for slot in ended.slots]) for ended in owned.ended]
    assert published == [(["run"], [made_by])]
    assert owned.open == 0


@pytest.mark.parametrize("made_by", [3, 4, 5])
def test_a_run_that_finds_its_key_decided_publishes_it_with_whichever_of_its_records_made_it(made_by: int):
    intake, owned = of(made_by), Owned("in.v1", 0, 1, phase=RUNNING)
    intake.parking, intake.in_flight = SimpleNamespace(over=lambda _run: None), {}
    first, *copies = (
        SimpleNamespace(raw=record(offset), owned=owned, slot=owned.admit(offset), come=None) for offset in (3, 4, 5)
    )
    run = Run("run", b"key", b"", (SimpleNamespace(raw=first.raw, via=""),), (0, b"key"), owned, [first.slot])
    run.copies, run.known, run.stored = copies, SimpleNamespace(run_id="run"), intake.unpublished.stored["run"]
    intake.known_meanwhile(run)
    published = [(ended.published, [slot.offset for slot in ended.slots]) for ended in owned.ended]
    assert published == [(["run"], [made_by])]
    assert owned.open == 0
