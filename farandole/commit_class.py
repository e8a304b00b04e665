"""What a slot thread does with a run: the three classes of commit, chosen from the declaration.

(i) ``events``: run; Kafka decides with the batch. (ii) ``database``: claim, effect, outbox and dedup row in
one SQL transaction, which decides. (iii) ``outside``: steps with checkpoints, then outbox and dedup row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from farandole.errors import Away, Fenced
from farandole.outcome import Books
from farandole.owned import GONE
from farandole.points import point
from farandole.resources import Database
from farandole.run import Kit, Run, RunState, advance
from farandole.store import Store
from farandole.store.inbox import Claim

Work = Callable[[Run], None]
Say = Callable[..., None]
PAUSE = 0.5
"""Seconds before a run is taken up again that stood still for no fault of its own."""


def work_of(commit_class: str, kit: Kit, store: Store, books: Books, say: Say) -> Work:
    """The work of a slot thread. It never raises: what belongs to a lost partition is dropped, the rest waits."""
    work = {"events": _on_events, "database": _on_database, "outside": _on_outside}[commit_class](kit, store, books)

    def guarded(run: Run) -> None:
        home, gate = run.home, kit.gate
        if home.phase == GONE or home.guard.stop or (home.leaving and not run.started_at):
            run.state, run.skipped = RunState.DONE, True  # somebody else's: nobody will write it down here
            return
        if gate is not None and gate.busy and not gate.admits(run):
            return
        try:
            if run.repairs and commit_class != "events":
                run.state = RunState.DEAD  # its effects stand: they must not happen once more
            else:
                work(run)
        except Fenced:
            home.fenced()
            run.state = RunState.DONE
        except Away as away:
            _leaves(run, away, kit)
        except Exception as error:  # noqa: BLE001 - the database went away under it: the run is not to blame
            say("run.waits", run=run.id, error=f"{type(error).__name__}: {error}")
            _later(run, kit)
        if run.repairs:
            run.holds = False  # whatever comes of it, the run is done, and nothing waits for it
        if gate is not None and gate.busy:
            gate.ended(run)

    return guarded


def _leaves(run: Run, away: Away, kit: Kit) -> None:
    """Its next step is detached: it goes to the retry topic as a parked run does, or rests there until that is over."""
    run.state, run.holds, run.pause = (RunState.RESTS if run.via else RunState.PARKED), True, away.pause
    run.ended_at, run.told = kit.clock.millis(), {"detached": away.step}


def _later(run: Run, kit: Kit) -> None:
    run.state = RunState.AGAIN
    run.due = kit.clock.monotonic() + PAUSE


def _on_events(kit: Kit, store: Store, books: Books) -> Work:
    del store, books
    return partial(advance, kit=kit)  # no frame of its own between a slot and the author's function


def _on_database(kit: Kit, store: Store, books: Books) -> Work:
    def work(run: Run) -> None:
        run.step, run.verdict, run.results, run.outputs, run.emitted, run.steps = 0, None, [], [], [], []
        life = run.life if run.via else -1
        claim = Claim(run.key, run.id, run.okey, run.cause.digest, run.cause.raw.offset, life, run.epoch)
        with store.transaction() as conn:
            known = store.inbox.lock_claim(conn, run.home.lane, claim)
            if known is not None:
                conn.rollback()
            else:
                advance(run, kit, Database(conn))
                _decide(run, conn, store, books)
        if known is None:
            point("sql.committed")
        elif known.state == "claimed":
            _later(run, kit)  # somebody else is at it: its outcome is ours too
        else:
            run.state, run.known = RunState.DONE, known
            run.stored = store.inbox.unpublished([known.run_id]).get(known.run_id, []) if known.unpublished else []

    return work


def _decide(run: Run, conn: object, store: Store, books: Books) -> None:
    """In the transaction of the effect: what was done is decided; what failed leaves nothing."""
    if run.state in (RunState.DONE, RunState.CAUGHT):
        store.inbox.record_decision(conn, run.home.lane, books.outcomes(run), books.outbox(run))  # type: ignore[arg-type]
        run.decided = True
        point("sql.before_commit")
        point("sql.commit_sent", after=0.0005)
    else:
        conn.rollback()  # type: ignore[attr-defined]
        run.outputs, run.emitted = [], []


def _on_outside(kit: Kit, store: Store, books: Books) -> Work:
    def work(run: Run) -> None:
        if run.verdict is None:
            advance(run, kit)
        else:
            run.state = run.verdict  # it had ended, and SQL could not be told
        if run.state in (RunState.DONE, RunState.CAUGHT):
            with store.transaction() as conn:
                store.inbox.record_decision(conn, run.home.lane, books.outcomes(run), books.outbox(run))
            run.decided = True
            point("outbox.committed")

    return work
