"""The pipeline of `farandole_hop` with an account that it cannot work out: tried nine times, over minutes."""

from __future__ import annotations

import os

from bench.contenders.farandole_hop import Answered, Asked
from farandole import Pipeline, Retry, step, when

POISON = os.environ.get("HOP_POISON", "")


@step(retry=Retry(9, backoff="1s..1m"))
def work_out(asked: Asked) -> Answered:
    if asked.account == POISON:
        raise ValueError(f"{asked.account} cannot be worked out")
    return Answered(asked.seq, asked.sent_ns, asked.account, asked.amount * 1.2, asked.note)


class Poison(Pipeline):
    """Work out what is asked, but for one account."""

    name = os.environ["HOP_GROUP"]
    asked = when(Asked)
    steps = (work_out,)
    since = "beginning"
