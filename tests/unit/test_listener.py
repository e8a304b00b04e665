"""What a service hears of the control topic, with a topic that a test writes."""

from __future__ import annotations

import threading
import time
from collections import deque

import pytest

from farandole.control import CANCEL, ORDER, PAUSE, PLAN, RESUME, Command, order_id, pipeline_id, run_id_of
from farandole.errors import BrokerUnreachable, SettingsError, Undecodable
from farandole.event import RawRecord
from farandole.kafka import listener as module
from farandole.kafka.listener import Listener
from farandole.kafka.registry import UnknownSchema


def until(told, timeout):
    end = time.monotonic() + timeout
    while not (found := told()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found


class Topic:
    """One partition, and a reader of it."""

    def __init__(self):
        self.records, self.troubles, self.opened = [], deque(), 0
        self.positions = {}

    def put(self, command, key=None):
        key = command.key if command is not None else key
        self.records.append(RawRecord("control", "t", 0, len(self.records), 5000 + len(self.records), key, command))

    def __call__(self):
        self.opened += 1
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def starts(self):
        if self.troubles:
            raise self.troubles.popleft()
        return {0: 0}

    def undecided_ends(self):
        return {0: len(self.records)}

    def read(self, offsets):
        at = offsets[0]
        while True:
            if self.troubles:
                raise self.troubles.popleft()
            batch, at = self.records[at:], len(self.records)
            self.positions = {0: at}
            yield batch
            threading.Event().wait(0.01)


def decode(raw):
    if isinstance(raw.value, Exception):
        raise raw.value
    return None if raw.value is None else raw.value.record()


@pytest.fixture
def topic(monkeypatch):
    monkeypatch.setattr(module, "AGAIN", 0.01)
    return Topic()


@pytest.fixture
def listen(topic):
    started = []

    def start(pipeline="merge"):
        said = []
        listener = Listener(pipeline, topic, decode, lambda event, **_: said.append(event))
        listener.said = said
        listener.start()
        started.append(listener)
        return listener

    yield start
    for listener in started:
        listener.close()
        assert not listener._thread.is_alive()


def heard(listener):
    found = []
    until(lambda: found.append(listener.take()) or found[-1], 5)
    return [(c.kind, c.pipeline or c.run_id, c.at) for c in found[-1]]


def steer(kind, pipeline="merge"):
    return Command(pipeline_id(pipeline), kind, pipeline, at=1)


def cancel(run, pipeline=""):
    return Command(run_id_of(run), CANCEL, pipeline, run, at=1)


def test_at_the_start_it_hears_the_newest_of_each_id_that_is_for_its_pipeline_at_the_brokers_time(topic, listen):
    for command in (steer(PAUSE), steer(PAUSE, "other"), steer(RESUME), cancel("r1"), cancel("r2", "other")):
        topic.put(command)
    topic.put(Command("plan:1", PLAN, "merge"))
    assert heard(listen()) == [("resume", "merge", 5002), ("cancel", "r1", 5003)]


def test_an_order_is_heard_by_its_pipeline_and_one_that_was_taken_back_is_not(topic, listen):
    mine, back, other = (Command(order_id(n), ORDER, p) for n, p in (("1", "merge"), ("2", "merge"), ("3", "other")))
    for command in (mine, back, other):
        topic.put(command)
    topic.put(None, back.key)
    assert heard(listen()) == [("order", "merge", 5000)]


def test_nothing_is_known_until_all_was_read_that_stood_there(topic, listen):
    topic.troubles.append(BrokerUnreachable("away"))
    topic.put(steer(PAUSE))
    listener = listen()
    first = until(lambda: (found := listener.take()) is not None and [found], 5)
    assert [c.kind for c in first[0]] == ["pause"]
    assert "control.waits" in listener.said


def test_an_empty_topic_is_an_answer(topic, listen):
    listener = listen()
    until(lambda: listener.take() == [], 5)


def test_news_come_as_they_are_given_also_across_a_broker_that_was_away(topic, listen):
    listener = listen()
    until(lambda: listener.take() is not None, 5)
    topic.put(steer(PAUSE))
    assert [k for k, *_ in heard(listener)] == ["pause"]
    topic.troubles.append(BrokerUnreachable("away"))
    until(lambda: topic.opened == 2, 5)
    topic.put(steer(RESUME))
    assert [k for k, *_ in heard(listener)] == ["resume"]


def test_a_command_that_was_taken_off_the_topic_holds_nothing_any_more(topic, listen):
    listener = listen()
    topic.put(steer(PAUSE))
    heard(listener)
    topic.put(None, pipeline_id("merge").encode())
    assert [k for k, *_ in heard(listener)] == ["resume"]


@pytest.mark.parametrize("trouble", [Undecodable("decode.corrupt", "junk"), UnknownSchema("no schema 7")])
def test_a_record_that_nobody_can_read_is_said_and_passed(topic, listen, trouble):
    topic.put(steer(PAUSE))
    topic.records.append(RawRecord("control", "t", 0, 1, 0, b"x", trouble))
    topic.put(cancel("r1"))
    listener = listen()
    assert [k for k, *_ in heard(listener)] == ["pause", "cancel"]
    assert "command.unreadable" in listener.said


def test_of_more_commands_for_runs_than_it_keeps_the_oldest_go_and_a_pause_never(topic, listen, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    topic.put(steer(PAUSE))
    for n in range(6):
        topic.put(cancel(f"r{n}"))
    listener = listen()
    assert [who for _, who, _ in heard(listener)] == ["merge", "r4", "r5"]
    assert listener.said.count("command.dropped") == 1


def test_what_no_waiting_mends_ends_the_service(topic, listen):
    topic.troubles.append(SettingsError("not allowed"))
    listener = listen()
    with pytest.raises(SettingsError):
        until(listener.take, 5)
