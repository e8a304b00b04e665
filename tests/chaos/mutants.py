"""Mutants: the library with one safeguard switched off. Each must be killed by a test, or the safeguard is not tested.

``python -m tests.chaos.mutants`` runs every mutant against the tests that must kill it, and prints which of them did.
It is also a plugin of pytest (``-p tests.chaos.mutants``) that switches off what CHAOS_MUTANT names, and the pipelines
of the chaos tests do the same in the processes of services. No code of the library knows of any of this.
"""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]


def everywhere(old: Any, new: Any) -> None:
    """Put `new` in the place of `old` in every module of the library that has it by name."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "farandole":
            for known, value in list(vars(module).items()):
                if value is old:
                    setattr(module, known, new)


def fence_in_settle() -> None:
    """An old owner may write what it likes."""
    import sqlalchemy as sa

    from farandole.store import fence, inbox  # noqa: F401 - loaded, so that its names are replaced

    def moved(conn: Any, pipeline: str, lane: Any, *rest: Any) -> bool:
        stands = conn.scalar(sa.select(fence.position.c.fence).where(fence.row_of(pipeline, lane)))
        return bool(move(conn, pipeline, dataclasses.replace(lane, fence=stands), *rest))

    move = fence.move
    everywhere(move, moved)
    everywhere(fence.hold, lambda *_, **__: None)


def lease_token() -> None:
    """Who had a lease once may keep results for ever."""
    from farandole.store import checkpoints, fence, rows  # noqa: F401 - loaded, so that its names are replaced

    def held(conn: Any, pipeline: str, lane: Any, **more: Any) -> None:
        if not isinstance(lane, rows.Lease):
            hold(conn, pipeline, lane, **more)

    hold = fence.hold
    everywhere(hold, held)


def lease_lost() -> None:
    """Who has lost its lease goes on."""
    from farandole.detached import Detached

    Detached._lose = lambda *_: None  # type: ignore[method-assign]


def log_too_short() -> None:
    """A log that was found too short is none any more once it has grown."""
    from farandole import rewind, takeover  # noqa: F401 - as above

    def start(found: Any, *rest: Any) -> Any:
        return where(dataclasses.replace(found, cut=None), *rest)

    where = rewind.where_to_start
    everywhere(where, start)


def session_per_partition() -> None:
    """Every session has an id of its own: nobody is fenced by anybody."""
    from farandole.kafka.sink import Session

    made = Session.__init__

    def random(self: Any, transactional_id: str, *rest: Any, **more: Any) -> None:
        made(self, f"{transactional_id}-{uuid.uuid4().hex}", *rest, **more)

    Session.__init__ = random  # type: ignore[method-assign]


def session_thrown_away() -> None:
    """A session that aborted, or heard noise, is used again."""
    from farandole.kafka.sink import Session

    told, publish = Session._after, Session.publish

    def after(self: Any, error: BaseException) -> Any:
        fatal = any(getattr(each, "fatal", bool)() for each in error.args)
        if not fatal:
            self.drop = lambda: None
        try:
            return told(self, error)
        finally:
            self.__dict__.pop("drop", None)

    def quietly(self: Any, *rest: Any) -> Any:
        self._noisy = False
        return publish(self, *rest)

    Session._after, Session.publish = after, quietly  # type: ignore[method-assign]


def assigned_at_a_number() -> None:
    """Until it is placed a partition stands at its end, wherever the brokers say that is."""
    from confluent_kafka import OFFSET_END

    from farandole.kafka import source

    source.NOWHERE = OFFSET_END


def claim() -> None:
    """Whoever comes runs the key."""
    from farandole.store.claims import Claims

    Claims.claim = lambda *_: {}  # type: ignore[method-assign]
    Claims.lock = lambda *_: None  # type: ignore[method-assign]


def outbox_on_hit() -> None:
    """A key that SQL has settled is a duplicate, whether Kafka was told or not."""
    from farandole.store import claims

    known = claims._known
    everywhere(known, lambda row: dataclasses.replace(known(row), unpublished=False))


def ledger_tail() -> None:
    """A takeover believes the committed offset, and asks nobody what became of the records below it."""
    from farandole.takeover import Tail, Takeover

    Takeover._tails = lambda self, partitions, taken: ({o.key: Tail() for o in partitions}, 0)  # type: ignore[method-assign]
    Takeover._proven = lambda self, owned, position, start, tail: start  # type: ignore[method-assign]


def rule_of_lives() -> None:
    """Every delivery runs."""
    from farandole import delivery, intake  # noqa: F401 - as above
    from farandole.store.claims import Claims

    everywhere(delivery.admit, lambda *_: delivery.RUN)
    Claims._goes_on = lambda *_: True  # type: ignore[method-assign]  # it compares the lives once more, and sets


def rule_of_marks() -> None:
    """Every committed offset counts as our own."""
    from farandole import rewind, settle, takeover  # noqa: F401 - as above

    everywhere(rewind.mark_of, lambda _: rewind.Mark(0, 0, 0))


def topic_id_in_keys() -> None:
    """The key of a position tells topics apart by nothing."""
    from farandole import ids, intake, reading  # noqa: F401 - as above

    key = ids.position_key
    everywhere(key, lambda topic_id, partition, offset: key("", partition, offset))


def hold_first() -> None:
    """A run that is parked leaves its partition before the row that holds its record key is written."""
    from farandole.holding import Holding

    leave = Holding.leave

    def left(self: Any, runs: Any) -> None:
        write, self_type = Holding._write, Holding
        self_type._write = lambda *_: []  # type: ignore[method-assign]
        try:
            leave(self, runs)
        finally:
            self_type._write = write  # type: ignore[method-assign]

    Holding.leave = left  # type: ignore[method-assign]


def lock_before_look() -> None:
    """The dedup table is asked before the claim is inserted."""
    from farandole.store.claims import Claims

    locked, settled = Claims.claim, Claims.settled

    def looked(self: Any, conn: Any, lane: Any, claims: Iterable[Any]) -> Any:
        claims = list(claims)
        before = settled(self, conn, lane.epoch, [claim.key for claim in claims])
        self.settled = lambda *_: before
        try:
            return locked(self, conn, lane, claims)
        finally:
            del self.settled

    Claims.claim = looked  # type: ignore[method-assign]


def synchronous_full() -> None:
    """A commit of SQLite may be lost with the power."""
    from sqlalchemy import event

    from farandole.store import engine

    made = engine._sqlite_engine

    def hasty(*given: Any) -> Any:
        fast = made(*given)
        event.listen(fast, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
        return fast

    everywhere(made, hasty)


def bytes_consumed() -> None:
    """Bytes left over after a record are nobody's business."""
    from io import BytesIO

    from farandole.kafka import codec

    class Consumed(BytesIO):
        def tell(self) -> int:
            return len(self.getbuffer())

    codec.BytesIO = Consumed  # type: ignore[misc]


class Mutant(NamedTuple):
    """What it switches off, and the tests that must kill it; the cheapest first."""

    off: Callable[[], None]
    killers: tuple[str, ...]


def stable_offset() -> None:
    """A sweep begins where the output topics ended at the last one, decided or not."""
    from farandole.reconciler.outputs import Outputs

    def begin(self: Outputs, declaration: Any, cluster: Any) -> None:
        begun(self, declaration, cluster)
        for name, (topic_id, at) in self._stable.items():
            ends = cluster.admin.ends([(name, p) for p in at], committed=False)
            self._stable[name] = (topic_id, {p: ends[name, p] for p in at})

    begun = Outputs.begin
    Outputs.begin = begin  # type: ignore[method-assign]


def repaired_digest() -> None:
    """What a run gives by now is published under the old ids, whatever it gave before."""
    from farandole import outcome, repair  # noqa: F401 - loaded, so that its names are replaced

    def blind(run: Any, told: Any) -> Any:
        given = {one["id"]: one["digest"] for one in run.emitted}
        run.repairs = {identity: given.get(identity, said) for identity, said in run.repairs.items()}
        return repaired(run, told)

    repaired = repair.repaired
    everywhere(repaired, blind)


MUTANTS = {
    "fence in settle": Mutant(
        fence_in_settle,
        ("tests/contract/test_store_inbox.py::test_a_fenced_owner_settles_nothing_at_all_while_its_neighbour_does",),
    ),
    "session per partition": Mutant(
        session_per_partition,
        ("tests/integration/test_runtime_sessions.py::test_the_successor_s_session_fences_its_predecessor",),
    ),
    "session thrown away after noise": Mutant(
        session_thrown_away,
        (
            "tests/chaos/test_one_kill.py::test_a_late_end_of_an_earlier_transaction_ends_no_later_one",
            "tests/chaos/test_late.py::test_an_end_of_a_transaction_that_arrives_late_does_not_end_the_next_one",
        ),
    ),
    "assigned at a number": Mutant(
        assigned_at_a_number,
        (
            "tests/chaos/test_late.py::test_a_partition_that_is_placed_while_the_brokers_are_slow_to_answer_is_read_without_a_gap",
        ),
    ),
    "claim": Mutant(
        claim,
        ("tests/contract/test_store_claims.py::test_of_two_owners_claiming_the_same_keys_at_once_each_key_has_one",),
    ),
    "outbox on hit": Mutant(
        outbox_on_hit, ("tests/chaos/test_one_kill.py::test_what_sql_decided_is_published_by_the_successor",)
    ),
    "ledger tail at takeover": Mutant(
        ledger_tail, ("tests/chaos/test_one_kill.py::test_what_kafka_knows_is_not_run_again_for_a_copy",)
    ),
    "rule of lives": Mutant(
        rule_of_lives,
        ("tests/unit/test_stage_parking.py",),
    ),
    "rule of marks": Mutant(
        rule_of_marks,
        (
            "tests/unit/test_rewind.py",
            "tests/integration/test_runtime_offsets.py::test_a_jump_forward_is_refused_and_every_record_is_settled",
        ),
    ),
    "topic id in keys of positions": Mutant(
        topic_id_in_keys, ("tests/unit/test_ids.py::test_a_position_key_changes_with_topic_id_partition_and_offset",)
    ),
    "hold row first": Mutant(
        hold_first,
        (
            "tests/integration/test_runtime_parking.py::test_what_comes_before_sql_was_told_of_a_parked_run_stands_behind_it_all_the_same",
        ),
    ),
    "claim before the look into the dedup table": Mutant(
        lock_before_look, ("tests/contract/test_store_claims.py::test_no_key_is_applied_twice_while_the_days_turn",)
    ),
    "token of a lease": Mutant(
        lease_token, ("tests/contract/test_store_leases.py::test_who_lost_its_lease_keeps_nothing",)
    ),
    "lease lost, step told to end": Mutant(
        lease_lost, ("tests/unit/test_detached.py::test_who_lost_its_lease_is_told_to_end_and_keeps_nothing",)
    ),
    "log too short, and grown": Mutant(
        log_too_short,
        ("tests/unit/test_rewind.py::test_a_log_that_was_too_short_stays_so_when_it_grows_until_a_person_accepts_it",),
    ),
    "synchronous=FULL": Mutant(
        synchronous_full,
        ("tests/contract/test_store_opening.py::test_a_sqlite_commit_reaches_the_disk_before_it_answers",),
    ),
    "stable offset of outputs": Mutant(
        stable_offset,
        (
            "tests/unit/test_reconciler_outputs.py::test_an_output_that_was_written_before_its_run_was_read_is_looked_for_where_nothing_was_decided_yet",
        ),
    ),
    "digest of a repaired output": Mutant(
        repaired_digest,
        (
            "tests/integration/test_reconcile_outputs.py::test_where_the_code_gives_something_else_by_now_nothing_is_published_and_a_person_is_told",
        ),
    ),
    "bytes consumed": Mutant(
        bytes_consumed, ("tests/unit/test_codec.py::test_every_truncation_and_every_addition_is_corrupt",)
    ),
}


def switch_off() -> None:
    """What CHAOS_MUTANT names, in this process."""
    if name := os.environ.get("CHAOS_MUTANT"):
        MUTANTS[name].off()


def pytest_configure(config: Any) -> None:
    switch_off()


# ---- the run


def verdict(name: str, killers: tuple[str, ...]) -> tuple[int, str]:
    """How the tests end with the mutant: pytest's code, and which of them failed by what."""
    words = ["-q", "-p", "tests.chaos.mutants", "-p", "no:cacheprovider", "--timeout=240", *killers]
    env = {**os.environ, "CHAOS_MUTANT": name, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    failed = sorted(set(re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.MULTILINE)))
    anomalies = sorted(set(re.findall(r"Anomaly\(name='([\w-]+)'", done.stdout)))
    return done.returncode, ", ".join(failed) + (f" ({', '.join(anomalies)})" if anomalies else "") or done.stdout[
        -600:
    ]


def main(names: list[str]) -> int:
    """Every mutant, or those named. 1 if one survives, or if a test fails without any; 2 for a name that is none."""
    if unknown := [name for name in names if name not in MUTANTS]:
        print(f"no such mutant: {', '.join(unknown)}; there are {', '.join(MUTANTS)}")
        return 2
    wanted = {name: mutant for name, mutant in MUTANTS.items() if not names or name in names}
    killers = tuple(dict.fromkeys(test for mutant in wanted.values() for test in mutant.killers))
    code, said = verdict("", killers)
    if code:
        print(f"without a mutant its killers must pass, and do not: {said}")
        return 1
    survived = 0
    print(f"\n{'safeguard switched off':44} killed by")
    for name, mutant in wanted.items():
        code, said = verdict(name, mutant.killers)
        survived += code != 1
        print(f"{name:44} {said if code == 1 else f'SURVIVED (pytest ended with {code})'}", flush=True)
    print(f"\n{len(wanted) - survived} killed, {survived} survived")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
