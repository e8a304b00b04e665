"""A one-step Farandole pipeline as an author writes it: dedup table, ledger and dead letters are on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from farandole import Pipeline, step, when
from farandole.event import fact


@fact(os.environ["HOP_ASKED"], key=("account",))
@dataclass(frozen=True, slots=True)
class Asked:
    """Something is to be worked out."""

    seq: int
    sent_ns: int
    account: str
    amount: float
    note: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Asked:
        return cls(record["seq"], record["sent_ns"], record["account"], record["amount"], record["note"])

    def record(self) -> dict[str, Any]:
        return asdict(self)


@fact(os.environ["HOP_ANSWERED"], key=("account",))
@dataclass(frozen=True, slots=True)
class Answered:
    """It was worked out."""

    seq: int
    sent_ns: int
    account: str
    total: float
    note: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Answered:
        return cls(record["seq"], record["sent_ns"], record["account"], record["total"], record["note"])

    def record(self) -> dict[str, Any]:
        return {
            "seq": self.seq,
            "sent_ns": self.sent_ns,
            "account": self.account,
            "total": self.total,
            "note": self.note,
        }


@step()
def work_out(asked: Asked) -> Answered:
    return Answered(asked.seq, asked.sent_ns, asked.account, asked.amount * 1.2, asked.note)


class Hop(Pipeline):
    """Work out what is asked."""

    name = os.environ["HOP_GROUP"]
    asked = when(Asked)
    steps = (work_out,)
    since = "beginning"
