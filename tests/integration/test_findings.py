"""What a sweep finds besides missed events is told when it begins, and not again while it lasts."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

from farandole.reconciler.reconciler import open_reconciler
from tests.integration.runtime_world import ROOT, until
from tests.integration.test_reconcile import lose


def sweep(world, *declarations, everybody=()):
    """The findings by kind, what began, and what ended; each sweep is a reconciler of its own."""
    settings = world.settings(database_url=f"sqlite:///{world.folder}/reconciler.db")
    with open_reconciler(settings, declarations, readers=everybody) as one:
        return list(one.sweep())


def kinds(swept):
    return [(one.kind, one.topic) for told in swept for one in told.findings.standing]


def listening(world, name, where):
    """Double under another name and with other criteria."""
    double = world.declaration("Double")
    (one,) = double.subscriptions
    return replace(double, name=f"{double.name}-{name}", subscriptions=(replace(one, where=where),))


def test_a_filter_that_takes_nothing_any_more_is_told_once_and_its_end_too(world):
    world.create("Double")
    double = world.declaration("Double")
    world.send(range(150))
    world.drain("Double")
    (swept,) = sweep(world, double)
    assert kinds([swept]) == []
    world.send(range(150, 300), kind="skip")
    world.drain("Double")
    (swept,) = sweep(world, double)
    assert kinds([swept]) == [("matches-nothing", world.module.SENT)]
    says = swept.findings.standing[0].says
    assert "number (kind != 'skip') took none of the last 150 events" in says
    assert "it took 150 before" in says
    assert len(swept.findings.begun) == 1
    assert not swept.whole
    told = swept.entry()
    assert not told.id.split(":")[-1].startswith("day-")
    assert json.loads(told.detail["findings"])[0]["kind"] == "matches-nothing"
    (swept,) = sweep(world, double)
    assert kinds([swept]) == [("matches-nothing", world.module.SENT)]
    assert swept.findings.begun == swept.findings.ended == []
    assert swept.entry().id.split(":")[-1].startswith("day-"), "it was told before"
    for file in world.folder.glob("reconciler*"):
        file.unlink()
    (swept,) = sweep(world, double)
    assert swept.findings.standing[0].says == says
    world.send([300])
    world.drain("Double")
    (swept,) = sweep(world, double)
    assert kinds([swept]) == []
    assert len(swept.findings.ended) == 1
    assert swept.whole


def test_events_that_all_who_listen_refuse_are_counted_and_what_one_takes_is_not(world):
    odd, even = listening(world, "odd", "kind == 'odd'"), listening(world, "even", "kind == 'even'")
    world.create(odd, even)
    world.send(range(10), kind="odd")
    world.send(range(10, 20), kind="even")
    world.send(range(20, 27), kind="add")
    both = [odd, even]
    for one in both:
        world.drain(one)
    *_, listened = sweep(world, *both, everybody=both)
    assert kinds([listened]) == [("nobody-takes", world.module.SENT), ("nobody-listens", world.module.DOUBLED)][::-1]
    taken = next(one for one in listened.findings.standing if one.kind == "nobody-takes")
    assert taken.says.startswith(f"7 events of {world.module.SENT} were taken by nobody")
    assert len(listened.findings.begun) == 2
    assert listened.whole, "both may be as somebody wants it"
    world.send(range(27, 30), kind="add")
    world.drain(odd)
    *_, listened = sweep(world, *both, everybody=both)
    assert "7 events" in listened.findings.standing[-1].says, "one of them has not judged the others yet"
    world.drain(even)
    *_, listened = sweep(world, *both, everybody=both)
    assert "10 events" in listened.findings.standing[-1].says
    assert not listened.findings.changed
    mended = [replace(odd, subscriptions=listening(world, "", "kind in ['odd', 'add']").subscriptions), even]
    *_, listened = sweep(world, *mended, everybody=mended)
    assert [kind for kind, _ in kinds([listened])] == ["nobody-listens"], "it counts anew by what they declare now"
    assert len(listened.findings.ended) == 1


def test_a_sweep_of_some_pipelines_says_nothing_of_what_others_may_take(world):
    odd, even = listening(world, "odd", "kind == 'odd'"), listening(world, "even", "kind == 'even'")
    world.create(odd, even)
    world.send(range(10), kind="odd")
    world.drain(even)
    assert [told.pipeline for told in sweep(world, even, everybody=[odd, even])] == [even.name]


def test_the_command_shows_findings_and_leaves_with_three(world):
    world.create("Double")
    world.send(range(120), kind="skip")
    world.drain("Double")
    told = subprocess.run(
        [sys.executable, "-m", "farandole", "reconcile", "tests.integration.runtime_pipelines:Double", "--once", "-o", "json"],
        cwd=ROOT, env=world.environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    (row,) = json.loads(told.stdout)
    assert told.returncode == 3
    assert [(one["kind"], one["hint"]) for one in row["findings"]] == [("matches-nothing", False)]
    assert "number (kind != 'skip') has taken none of 120 events" in told.stderr


def haul(world, n):
    """A run that rests at its long step, and the process that holds it."""
    world.quick_session("Haul")
    holder = world.start("Haul")
    told = world.number(n, amount=-1)
    world.hold.write_text("")
    world.put(world.module.SENT, world.frame(world.module.SENT, told), told["key"], world.headers(f"n{n}"))
    world.flush()
    until(lambda: any(line.startswith(f"haul {n} ") for line in world.done()), 90, world.log)
    return holder


def abandoned(world):
    (swept,) = sweep(world, world.declaration("Haul"))
    return swept, [one for one in swept.findings.standing if one.kind == "abandoned"]


def test_a_run_whose_holder_is_gone_is_found_until_another_holds_it(world):
    world.create("Haul")
    holder = haul(world, 1)
    swept, found = abandoned(world)
    assert found == [], "somebody is at it"
    holder.kill()
    swept, (one,) = until(lambda: (told := abandoned(world))[1] and told, 60)
    (run,) = world.runs("Haul", "parked")
    assert f"1 run has begun and not ended, and no instance holds {world.declaration('Haul').retry_topic}[" in one.says
    assert f"{run['id']} (at step haul, last in the hands of {run['instance']})" in one.says
    assert [row["topic"] for row in swept.rows() if row["findings"]] == [world.declaration("Haul").retry_topic]
    assert not swept.whole
    assert not abandoned(world)[0].findings.changed, "told once"
    world.start("Haul")
    until(lambda: not abandoned(world)[1], 90, world.log)
    world.hold.unlink()
    until(lambda: world.outputs() == [2], 90, world.log)


def test_a_parked_run_that_the_position_has_passed_is_found(world):
    world.create("Haul")
    holder = haul(world, 1)
    holder.kill()
    until(lambda: abandoned(world)[1], 60)
    retry = world.declaration("Haul").retry_topic
    (record,) = world.records(retry)
    lose(world, "Haul", record.partition(), 1, topic=retry)
    world.hold.unlink()
    service = world.run("Haul")
    (one,) = until(lambda: [one for one in abandoned(world)[1] if one.subject == "passed"], 60)
    assert f"its own position in {retry} has passed them: {world.runs('Haul', 'parked')[0]['id']}" in one.says
    service.stop()
    assert world.outputs() == []
