"""In which order a takeover asks: who has lost the group must not get as far as the fence."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from farandole.errors import BrokerUnreachable
from farandole.identity import Standing
from farandole.owned import Owned
from farandole.takeover import Takeover


def test_a_client_without_an_answer_from_its_group_fences_nobody():
    def no_answer(_):
        raise BrokerUnreachable("committed offsets: Local: Timed out")

    fenced = []
    takeover = Takeover.__new__(Takeover)  # as far as it gets
    takeover.restore = None
    takeover.source = SimpleNamespace(committed=no_answer, topic_ids={})
    takeover.identity = SimpleNamespace(of=lambda names: {name: Standing("id", 1) for name in names})
    takeover.store = SimpleNamespace(inbox=SimpleNamespace(take_over=lambda *asked: fenced.append(asked)))
    with pytest.raises(BrokerUnreachable):
        takeover.take([Owned("in.v1", 0, 1)], lambda owned, _: owned)
    assert fenced == []
