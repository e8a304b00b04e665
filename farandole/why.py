"""Why a pipeline did, or did not, run about an interval: one cause of a closed list, from evidence. Pure.

The moves are tried in order: what became of its runs, then where its events stand, then why none came. The first
that applies is the answer; where nothing came that others make, the question goes on to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from farandole.event import Interval

CAUSES: dict[str, str] = {
    "ran": "it ran, and every run is done",
    "caught": "it ran, and an error that was foreseen became an event",
    "dead": "its event is a dead letter: the steps failed",
    "cancelled": "a person ended its run",
    "quarantined": "a record in its topic cannot be read, and nothing readable came about the interval",
    "join-expired": "the other events of its set did not come within the time of the join",
    "uncertain": "an effect outside is in doubt: a person decides",
    "resolved": "a person closed the dead letter without a run",
    "parked": "its next attempt is not due yet",
    "denied": "it may not do what it needs to take its event, by ACL",
    "paused": "a person paused the pipeline",
    "stopped": "its partition stopped, and waits for a person",
    "no-instance": "its event is there, and no instance of the pipeline runs",
    "breaker-open": "what its steps need is down",
    "behind": "it runs, and has not come to its event yet",
    "missed": "its event lies below the offset, and nothing became of it",
    "blind": "the projection is older than the offsets: the answer is in the ledger, and not read yet",
    "waiting": "an event that completes the set has not come, and no pipeline here makes it",
    "duplicate": "its event has the key of another run",
    "rewind-ignored": "its event lies before the pipeline's beginning, and a reset to it was ignored",
    "before-beginning": "its event lies before the offset at which the pipeline began",
    "filtered": "its event came, and the criteria refused it",
    "waived": "a person said that nothing has to come",
    "no-deadline": "nothing is expected of that day: a weekend or a holiday",
    "not-due": "its time has not come yet",
    "gap": "records of its topic are lost to it",
    "no-topic": "the topic that it listens to does not exist",
    "no-tick": "the clock did not tell the time of its schedule",
    "sent-nothing": "the pipeline before it ran, and gave no such event",
    "late": "the event has not come; others of its kind have",
    "never-sent": "no event of its kind has ever come",
}
"""Every cause there is, and what it means."""

FINE = frozenset({"ran", "caught", "waived", "no-deadline", "not-due"})
"""The causes that need nobody."""

Proof = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Landed:
    """An event about the interval: where it stands (``topic[3]@7``), and what the pipeline made of it.

    `outcome` is ``run`` (with the `run`), ``ahead`` of the committed offset, ``refused``, ``duplicate``, ``before`` the
    beginning, ``ignored`` with a rewind, ``unsettled`` or, of a record that nobody can read, ``unreadable``.
    """

    id: str
    event_type: str
    place: str
    at: datetime
    outcome: str
    run: Mapping[str, Any] | None = None
    why: str = ""

    @property
    def proof(self) -> Proof:
        """The event, as an answer names it."""
        return {"event": self.id, "type": self.event_type, "place": self.place, "at": self.at}


@dataclass(frozen=True, slots=True)
class Input:
    """What came by one subscription. `newest` is the last event that it would take, about whatever interval.

    `taken` says whether it ever took any. `expected` is how its event stands among what is expected, `producers` who
    here makes it, and `tick` the time that the clock had to tell. `cut`: more came than was looked at.
    """

    signal: str
    event_type: str
    there: bool = True
    landed: tuple[Landed, ...] = ()
    newest: Landed | None = None
    taken: bool = False
    producers: tuple[str, ...] = ()
    expected: Mapping[str, Any] | None = None
    tick: tuple[str, datetime] | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that is known of one pipeline and one interval at `now`.

    `current`: the projection is as new as the offsets. `denied`: rights it lacks; without `inputs` nobody could look.
    """

    pipeline: str
    interval: Interval
    now: datetime
    runs: tuple[Mapping[str, Any], ...] = ()
    inputs: tuple[Input, ...] = ()
    instances: int = 0
    lag: int = 0
    current: bool = True
    paused: Mapping[str, Any] | None = None
    stopped: tuple[Mapping[str, Any], ...] = ()
    breakers: tuple[Mapping[str, Any], ...] = ()
    gaps: tuple[Mapping[str, Any], ...] = ()
    ignored: tuple[Mapping[str, Any], ...] = ()
    denied: tuple[str, ...] = ()
    expected: Mapping[str, Any] | None = None
    nothing_due: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The one cause, at the pipeline where it lies. `chain` are the pipelines that wait for it, the asked one first."""

    cause: str
    pipeline: str
    says: str
    proof: tuple[Proof, ...] = ()
    following: str = ""
    chain: tuple[tuple[str, str], ...] = field(default=())
    interval: Interval | None = None

    @property
    def fine(self) -> bool:
        """Whether nobody is needed."""
        return self.cause in FINE

    def record(self) -> dict[str, Any]:
        """The answer as JSON has it."""
        return {
            "schema": "farandole.cli/why/1",
            "cause": self.cause,
            "means": CAUSES[self.cause],
            "pipeline": self.pipeline,
            "interval": self.interval and self.interval.record(),
            "says": self.says,
            "proof": list(self.proof),
            "next": self.following or None,
            "chain": [{"pipeline": who, "waits_for": what} for who, what in self.chain],
            "fine": self.fine,
        }


Upstream = Callable[[str, Input], Verdict]
"""The verdict on a pipeline that makes an input, about the same interval."""


def decide(e: Evidence, upstream: Upstream) -> Verdict:
    """The one cause. `upstream` is asked where nothing came that a pipeline here makes."""
    moves = (_run_ended_badly, _ran, _held, _lost_track, _waits, _nothing_came)
    found = next(told for move in moves if (told := move(e, upstream)))
    return replace(found, interval=found.interval or e.interval)


def _run_ended_badly(e: Evidence, _: Upstream) -> Verdict | None:
    for state in ("dead", "uncertain", "parked"):
        if runs := [run for run in e.runs if run["state"] == state and run["stage"] != "decode"]:
            return _of_state(e, state, runs)
    return None


def _of_state(e: Evidence, state: str, runs: Sequence[Mapping[str, Any]]) -> Verdict:
    one, proof = runs[0], tuple(_run(run) for run in runs[:5])
    letter = f"farandole dlq show {one['id']}"
    if state == "parked":
        behind = one["detail"].get("behind")
        why = f"behind {behind}" if behind else f"after {one['error'] or 'an error'}"
        says = f"parked until {_time(one['due'])} for attempt {one['attempt']}, {why}"
        return Verdict("parked", e.pipeline, says, proof, f"farandole runs release {one['id']}")
    if state == "uncertain":
        says = f"nobody knows whether the effect of step {one['step'] or '?'} took place: {one['error']}"
        return Verdict("uncertain", e.pipeline, says, proof, letter)
    if (one["error"] or "").startswith("Cancelled"):
        return Verdict("cancelled", e.pipeline, f"its run was ended by a person: {one['error']}", proof, letter)
    if (one["error"] or "").startswith("JoinExpired"):
        return Verdict("join-expired", e.pipeline, f"its set was given up: {one['error']}", proof, letter)
    step = f"step {one['step']}" if one["step"] else one["stage"] or "?"
    says = f"{_many(len(runs), 'dead letter')}, at {step}: {one['error']}"
    return Verdict("dead", e.pipeline, says, proof, letter)


def _ran(e: Evidence, _: Upstream) -> Verdict | None:
    done = [run for run in e.runs if run["state"] in ("done", "caught")]
    closed = [run for run in e.runs if run["state"] in ("resolved", "expired")]
    waits = any(event.outcome in ("ahead", "unsettled") for event in _events(e))
    if not (done or closed) or waits:
        return None
    if not done:
        said = closed[0]["detail"]
        says = f"closed by {said.get('actor', 'a person')}: {said.get('reason', 'without a reason')}"
        return Verdict("resolved", e.pipeline, says, tuple(_run(run) for run in closed[:5]))
    cause = "ran" if any(run["state"] == "done" for run in done) else "caught"
    last = max(done, key=lambda run: run["recorded_at"])
    says = f"{_many(len(done), 'run')} about it, the last one at {_time(last['recorded_at'])}"
    if e.ignored:
        says += f"; a reset of its offsets at {_time(e.ignored[-1]['recorded_at'])} was ignored, as it declares"
    return Verdict(cause, e.pipeline, says, tuple(_run(run) for run in done[:5]), f"farandole runs show {last['id']}")


def _held(e: Evidence, _: Upstream) -> Verdict | None:
    """An event is there, and not taken yet."""
    ahead = [event for event in _events(e) if event.outcome == "ahead"]
    there = tuple(event.proof for event in ahead[:5])
    if e.denied and (there or not e.inputs):
        return Verdict("denied", e.pipeline, "; ".join(e.denied), ({"lacks": e.denied}, *there), "kafka-acls.sh --list")
    if not ahead:
        return None
    if e.paused:
        says = f"paused by {e.paused['actor']} at {_time(e.paused['at'])}: {e.paused['reason']}"
        return Verdict("paused", e.pipeline, says, (dict(e.paused), *there), f"farandole resume {e.pipeline}")
    places = {event.place.partition("@")[0] for event in ahead}
    for one in e.stopped:
        if any(place.startswith(one["at"]) for place in places):
            says = f"{one['at']} stopped at {_time(one['since'])}: {one['why']}"
            return Verdict("stopped", e.pipeline, says, (dict(one), *there), f"farandole resume {e.pipeline}")
    if not e.instances:
        says = f"{_many(len(ahead), 'event')} about it {_stand(len(ahead))} unread, and its group has no member"
        return Verdict("no-instance", e.pipeline, says, there, f"farandole run {e.pipeline}")
    if e.breakers:
        one = e.breakers[-1]
        says = f"{one['name']} is down since {_time(one['since'])}: {one['error']}"
        return Verdict("breaker-open", e.pipeline, says, (dict(one), *there))
    says = f"it runs ({_many(e.instances, 'instance')}) and is {_many(e.lag, 'record')} behind"
    return Verdict("behind", e.pipeline, says, there)


def _lost_track(e: Evidence, _: Upstream) -> Verdict | None:
    """An event lies below the offset, and came to no run."""
    by = {
        outcome: [x for x in _events(e) if x.outcome == outcome]
        for outcome in ("unsettled", "duplicate", "ignored", "before")
    }
    if lost := by["unsettled"]:
        there = tuple(event.proof for event in lost[:5])
        if not e.current:
            return Verdict("blind", e.pipeline, CAUSES["blind"], there, "farandole run projector")
        says = f"{_many(len(lost), 'event')} about it {_stand(len(lost))} below the offset without an outcome"
        return Verdict("missed", e.pipeline, says, there, f"farandole reconcile {e.pipeline} --once")
    for outcome, cause, says in (
        ("duplicate", "duplicate", "its event has the key of another run, and counts as told again"),
        ("ignored", "rewind-ignored", "the offsets were reset to its event, and the pipeline declares to ignore that"),
        ("before", "before-beginning", "its event came before the pipeline began to listen"),
    ):
        if found := by[outcome]:
            following = f"farandole runs show {found[0].run['id']}" if found[0].run else ""
            said = f"{says}: {found[0].why}" if found[0].why else says
            return Verdict(cause, e.pipeline, said, tuple(event.proof for event in found[:5]), following)
    return None


def _waits(e: Evidence, upstream: Upstream) -> Verdict | None:
    """Some of a set are there: the cause is that of the first one that is not."""
    waiting = [run for run in e.runs if run["state"] == "waiting"]
    if not waiting:
        return None
    needed = [name.strip() for name in waiting[0]["detail"].get("missing", "").split(",")]
    missing = next((one for one in e.inputs if one.signal in needed), None)
    there = tuple(_run(run) for run in waiting[:5])
    if missing is None:
        return Verdict("waiting", e.pipeline, f"it waits for {', '.join(needed)}", there)
    found = _missing(e, missing, upstream)
    if found.cause in ("late", "never-sent"):
        says = f"{missing.signal} ({missing.event_type}) has not come; {_many(len(waiting), 'event')} of the set wait"
        return replace(found, cause="waiting", says=says, proof=(*there, *found.proof))
    return replace(found, proof=(*found.proof, *there)) if found.pipeline == e.pipeline else found


def _nothing_came(e: Evidence, upstream: Upstream) -> Verdict:
    """No event is there that it would have taken."""
    if e.expected and e.expected["state"] == "waived":
        return _waived(e.pipeline, e.expected)
    if e.nothing_due:
        return Verdict("no-deadline", e.pipeline, "it declares no deadline about that time: a weekend or a holiday")
    if e.gaps:
        one = e.gaps[-1]
        says = f"records of {one['topic']}[{one['partition']}] from {one['from']} on are lost to it ({one['state']})"
        return Verdict("gap", e.pipeline, says, (dict(one),), f"farandole gaps {e.pipeline}")
    if broken := [event for event in _events(e) if event.outcome == "unreadable"]:
        run = broken[0].run or {}
        says = f"{broken[0].place} cannot be read: {run.get('error') or broken[0].why}"
        following = f"farandole dlq show {run['id']}" if run else f"farandole dlq list {e.pipeline}"
        return Verdict("quarantined", e.pipeline, says, tuple(event.proof for event in broken[:5]), following)
    verdicts = [_missing(e, one, upstream) for one in e.inputs]
    # of several subscriptions without a join the one that says most: a fault before a filter, a filter before silence
    return min(verdicts, key=lambda v: _SAYS_LITTLE.index(v.cause) if v.cause in _SAYS_LITTLE else -1)


_SAYS_LITTLE = ("filtered", "sent-nothing", "no-tick", "late", "not-due", "never-sent", "no-topic")


def _missing(e: Evidence, one: Input, upstream: Upstream) -> Verdict:
    """Why no event came by a subscription."""
    if not one.there:
        return Verdict("no-topic", e.pipeline, f"there is no topic {one.event_type}", (), "farandole topology plan")
    refused = [event for event in one.landed if event.outcome == "refused"]
    if refused and not (one.taken and one.producers):
        return _refused(e, one, refused)
    if one.tick is not None:
        return _tick(e, one, one.tick)
    for who in one.producers:
        found = upstream(who, one)
        if found.cause not in ("ran", "caught"):
            return replace(found, chain=((e.pipeline, f"{one.event_type} of {who}"), *found.chain))
        if refused:
            return _refused(e, one, refused)
        says = f"{who} ran about it ({found.says}) and gave no {one.event_type} that {e.pipeline} takes"
        return Verdict("sent-nothing", who, says, found.proof, found.following, ((e.pipeline, one.event_type),))
    return _from_outside(e, one)


def _from_outside(e: Evidence, one: Input) -> Verdict:
    expected = one.expected or e.expected
    if expected and expected["state"] == "waived":
        return _waived(e.pipeline, expected)
    due = datetime.fromisoformat(expected["deadline"]) if expected else e.interval.end
    if e.now < due:
        by = f"it is expected by {_time(due)}" if expected else f"the interval ends at {_time(due)}"
        return Verdict("not-due", e.pipeline, f"{one.event_type} has not come; {by}")
    was = f", which was due at {_time(due)}" if expected else ""
    proof: list[Proof] = [{"expectation": expected["id"], "state": expected["state"]}] if expected else []
    look = f"farandole events tail {one.event_type}"
    if one.newest is None:
        return Verdict(
            "never-sent", e.pipeline, f"no {one.event_type} that it takes has ever come{was}", tuple(proof), look
        )
    proof.append(one.newest.proof)
    says = f"{one.event_type} about it has not come{was}; the last one came at {_time(one.newest.at)}"
    return Verdict("late", e.pipeline, says, tuple(proof), look)


def _refused(e: Evidence, one: Input, refused: Sequence[Landed]) -> Verdict:
    says = f"{_many(len(refused), 'event')} came, and {one.signal} takes none: {refused[0].why}"
    return Verdict(
        "filtered", e.pipeline, says, tuple(event.proof for event in refused[:5]), f"farandole check {e.pipeline}"
    )


def _tick(e: Evidence, one: Input, tick: tuple[str, datetime]) -> Verdict:
    name, nominal = tick
    if e.now < nominal:
        return Verdict("not-due", e.pipeline, f"schedule {name} ticks at {_time(nominal)}")
    last = f"; the last tick came at {_time(one.newest.at)}" if one.newest else "; none ever came"
    proof = (one.newest.proof,) if one.newest else ()
    return Verdict(
        "no-tick", e.pipeline, f"schedule {name} had to tick at {_time(nominal)}{last}", proof, "farandole run clock"
    )


def _waived(pipeline: str, row: Mapping[str, Any]) -> Verdict:
    says = f"waived by {row['actor']}: {row['reason']}"
    return Verdict("waived", pipeline, says, ({"expectation": row["id"], "state": row["state"]},))


def _events(e: Evidence) -> Iterable[Landed]:
    return (event for one in e.inputs for event in one.landed)


def _run(run: Mapping[str, Any]) -> Proof:
    named = {"run": run["id"], "state": run["state"], "at": run["recorded_at"]}
    if run["fingerprint"]:
        named["fingerprint"] = run["fingerprint"]
    return {**named, "events": list(run["events"])}


def _time(moment: datetime | str | None) -> str:
    if moment is None:
        return "?"
    when = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return f"{when:%Y-%m-%d %H:%M:%S}Z"


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _stand(count: int) -> str:
    return "stands" if count == 1 else "stand"
