"""What a session does with a client that does not answer."""

from __future__ import annotations

import threading

import pytest

from farandole.kafka import sink
from farandole.kafka.sink import Commit, Session, Spoiled


class Deaf:
    """A producer whose offsets are never answered; it does all else."""

    def __init__(self) -> None:
        self.released, self.said = threading.Event(), []

    def send_offsets_to_transaction(self, *_: object) -> None:
        self.released.wait(20)
        self.said.append("late")

    def __getattr__(self, name: str) -> object:
        return lambda *_, **__: self.said.append(name)


def test_offsets_that_are_never_answered_spoil_the_transaction_and_its_session(monkeypatch):
    monkeypatch.setattr(sink, "COMMIT_TIMEOUT", -0.9)
    session, deaf = Session("me", {}), Deaf()
    session._producer = deaf
    with pytest.raises(Spoiled) as spoiled:
        session.publish([], Commit("topic", 0, 1, ""), None, "")
    deaf.released.set()
    assert "did not answer for 0.1 s" in str(spoiled.value)
    assert spoiled.value.place == "me"
    assert session._producer is None  # the next transaction opens a new one
    assert deaf.said[:3] == ["begin_transaction", "flush", "purge"]
