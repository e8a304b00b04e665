"""Dead letters back to their pipeline: by cause, stopped by itself, killed and begun again, and to nobody else."""

from __future__ import annotations

import json
import signal
from collections import Counter

import pytest

from farandole.control import RESUME
from farandole.errors import FarandoleError
from tests.integration.dlq_office import Office
from tests.integration.runtime_world import until
from tests.integration.test_runtime_control import give


@pytest.fixture
def office(world):
    return Office(world)


def mended(world):
    """The next version of the code, in which the bugs are mended."""
    world.module = world.load(RUNTIME_MENDED="1")


def ends(office, pipeline):
    """How the plan's own ledger view says the runs of a pipeline stand."""
    return Counter(run["state"] for run in office.world.runs(pipeline))


def test_a_thousand_letters_of_three_causes_go_back_once_each_though_the_redrive_is_killed(world, office):
    world.create("Picky", "Bystander")
    for kind, numbers in (("bad", range(400)), ("odd", range(400, 750)), ("hot", range(750, 1000))):
        world.send(numbers, kind=kind)
    world.drain("Bystander")
    world.drain("Picky")
    assert len(world.letters("Picky")) == 1000

    causes = office.ask("groups", world.group("Picky"))
    assert [(c["exception"], c["letters"], c["open"], c["step"]) for c in causes] == [
        ("ValueError", 400, 400, "pick"),
        ("KeyError", 350, 350, "pick"),
        ("RuntimeError", 250, 250, "pick"),
    ]
    assert office.ask("groups", world.group("Picky"), "--exit-code", code=3) == causes

    mended(world)
    world.module.done.clear()
    service = world.run("Picky")
    words = ("redrive", *office.own("Picky"), "--rate", "400/s", "--yes")
    for sent in (0, 5, 300):
        killed = office.start(*words, "-o", "jsonl")
        first = json.loads(killed.stdout.readline())
        plan, told = first["plan"], {"sent": -1}
        while told["sent"] < sent:
            told = json.loads(killed.stdout.readline())
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        words = ("apply", plan, "--rate", "400/s")
    (kept,) = office.ask("plans", world.group("Picky"))
    assert (kept["plan"], kept["state"]) == (plan, "running")
    assert 300 <= kept["sent"] < 1000

    *_, last = office.ask("apply", plan, "--rate", "2000/s")

    assert (last["state"], last["settled"], last["failed"]) == ("finished", 1000, 0)
    assert ends(office, "Picky") == {"done": 1000}
    assert Counter(n for word, n in world.module.done) == dict.fromkeys(range(1000), 1)
    assert world.outputs() == [2 * n for n in range(1000)]
    assert {run["life"] for run in world.runs("Picky")} == {1}
    assert len(world.letters("Picky")) == 1000  # nothing was added and nothing taken away
    assert office.ask("groups", world.group("Picky"))[0]["open"] == 0
    assert world.records(world.declaration("Bystander").retry_topic) == []
    assert ends(office, "Bystander") == {"done": 1000}
    assert {run["life"] for run in world.runs("Bystander")} == {0}
    service.stop()

    (again,) = office.ask("redrive", *office.own("Picky"), "--yes")
    assert (again["runs"], again["left_out"]) == (0, {"settled": 1000})
    assert office.ask("apply", plan)[0]["state"] == "finished"


def test_eight_steps_that_failed_at_the_sixth_go_on_there_with_the_next_version(world, office, monkeypatch):
    world.create("Eight")
    world.send([7])
    monkeypatch.setenv("FARANDOLE_VERSION", "1.0")
    world.drain("Eight")
    assert [word for word, _ in world.module.done] == [f"step{n}" for n in range(1, 7)]
    (dead,) = world.runs("Eight", "dead")

    mended(world)
    monkeypatch.setenv("FARANDOLE_VERSION", "2.0")
    world.run("Eight")
    (_, *_, last) = office.ask("redrive", dead["id"], *office.own("Eight"), "--yes")

    assert last["settled"] == 1
    assert [word for word, _ in world.module.done] == ["step6", "step7", "step8"]
    (run,) = world.runs("Eight")
    assert (run["state"], run["version"], run["life"], run["id"]) == ("done", "2.0", 1, dead["id"])
    assert [step["reused"] for step in run["steps"]] == [True] * 5 + [False] * 3
    (shown,) = office.ask("show", dead["id"], *office.own("Eight"))
    assert [(life["life"], life["state"], life["version"]) for life in shown["lives"] if life["state"] != "parked"] == [
        (0, "dead", "1.0"),
        (1, "done", "2.0"),
    ]
    assert "step5 kept from before" in office.see("show", dead["id"], *office.own("Eight"))


def test_a_redrive_stops_by_itself_while_the_bug_is_still_there(world, office):
    world.create("Picky")
    world.send(range(5), kind="bad")
    world.run("Picky")
    until(lambda: len(world.letters("Picky")) == 5)

    *_, last = office.ask("redrive", *office.own("Picky"), "--yes", code=3)

    assert (last["state"], last["step"], last["sent"], last["failed"]) == ("stopped", 1, 1, 1)
    assert len(world.letters("Picky")) == 6
    (cause,) = office.ask("groups", world.group("Picky"))
    assert (cause["letters"], cause["states"]) == (6, {"open": 5, "died again": 1})
    again = office.see("apply", last["plan"], code=3)
    assert "stopped: 1 of 1 runs of this step failed again" in again
    assert len(world.letters("Picky")) == 6
    # the letter of the second life is open, and begins the third
    (plan,) = office.ask("redrive", *office.own("Picky"), "--plan")
    assert (plan["runs"], plan["left_out"]) == (5, {"died again": 1})


def test_what_a_guard_gave_up_before_it_stopped_the_line_can_go_back_before_the_line_goes_on(world, office):
    world.create("Deployed")
    world.send(range(200))
    world.module.deployed["broken"] = True
    service = world.run("Deployed")
    until(lambda: len(world.said("partition.stopped")) == world.partitions)
    letters = len(world.letters("Deployed"))
    assert letters == 21 * world.partitions

    (*_, failed) = office.ask("redrive", *office.own("Deployed"), "--yes", code=3)
    assert (failed["state"], failed["failed"]) == ("stopped", 1)
    world.module.deployed["broken"] = False
    (cause,) = office.ask("groups", world.group("Deployed"))
    (*_, last) = office.ask("redrive", *office.own("Deployed"), "--group", cause["fingerprint"], "--yes")
    assert (last["settled"], last["failed"]) == (letters, 0)
    assert len(world.outputs()) == letters, "the line itself stands still"

    give(world, RESUME, "Deployed", reason="fixed")
    world.wait_drained("Deployed")
    assert world.outputs() == [2 * n for n in range(200)]
    service.stop()


def test_a_plan_says_all_and_does_nothing(world, office):
    world.create("Picky")
    world.send(range(20), kind="bad")
    world.send(range(20, 25), kind="odd")
    world.drain("Picky")
    cause = office.ask("groups", world.group("Picky"))[0]["fingerprint"]

    said = office.see("redrive", "--group", cause, *office.own("Picky"), "--rate", "10/s", "--plan")

    retry, source = world.declaration("Picky").retry_topic, world.module.SENT
    assert f"20 letters → {retry} only; no other subscriber of {source} receives anything" in said
    assert "1 → 10 → 9 runs   at 10/s, 2.0 s at least" in said
    assert "stops      when more than 5.0% of a step fail again" in said
    assert "farandole dlq apply" in said
    assert world.records(retry) == []


def test_letters_go_by_id_by_record_key_and_by_time(world, office):
    world.create("Picky")
    world.send(range(17), kind="bad")  # each with a record key of its own
    world.drain("Picky")
    letter = office.ask("list", world.group("Picky"), "--key", "k3")[0]

    def planned(*words):
        return office.ask("redrive", *words, *office.own("Picky"), "--plan")[0]["runs"]

    assert planned(letter["id"]) == planned(letter["run_id"]) == planned(letter["event_id"]) == 1
    assert planned("--key", "k3") == 1
    assert planned("--since", letter["failed_at"]) >= 1
    assert planned("--until", "1h") == 0
    assert planned("--since", "1h") == 17


def test_what_a_plan_has_sent_is_left_out_of_the_next_until_it_is_applied_again(world, office):
    world.create("Picky")
    world.send(range(3), kind="bad")
    world.drain("Picky")
    pipeline = office.own("Picky")

    *_, last = office.ask("redrive", *pipeline, "--yes", "--wait", "300ms", code=3)  # its service does not run
    assert (last["state"], last["sent"]) == ("waiting", 1)
    (plan,) = office.ask("redrive", *pipeline, "--plan")
    assert (plan["runs"], plan["left_out"]) == (2, {f"sent by a plan {last['plan']}": 1})

    mended(world)
    world.module.done.clear()
    world.run("Picky")
    *_, done = office.ask("apply", last["plan"])
    assert (done["state"], done["settled"]) == ("finished", 3)
    assert sorted(n for _, n in world.module.done) == [0, 1, 2]


def test_two_tools_at_once_run_each_letter_once(world, office):
    world.create("Picky")
    world.send(range(200), kind="bad")
    world.drain("Picky")
    mended(world)
    world.module.done.clear()
    words = ("redrive", *office.own("Picky"), "--rate", "1000/s", "--plan")
    plans = [office.ask(*words)[0]["plan"] for _ in range(2)]
    tools = [office.start("apply", plan, "-o", "jsonl") for plan in plans]
    world.run("Picky")

    for tool in tools:
        said = tool.communicate()[0].splitlines()
        assert (tool.returncode, json.loads(said[-1])["settled"]) == (0, 200)

    assert Counter(n for _, n in world.module.done) == dict.fromkeys(range(200), 1)
    assert world.outputs() == [2 * n for n in range(200)]


def test_all_events_of_a_joined_run_go_back_together(world, office):
    world.create("Meeting")
    module = world.module
    for pair in ("a", "b"):
        for topic, n in ((module.LEFT, 1), (module.RIGHT, 2)):
            world.put(topic, world.frame(topic, {"pair": pair, "n": n}), pair, world.headers(f"{topic}-{pair}"))
    world.flush()
    world.drain("Meeting")
    assert len(world.letters("Meeting")) == 4
    letters = office.ask("list", world.group("Meeting"))

    mended(world)
    world.run("Meeting")
    (plan, *_, last) = office.ask("redrive", letters[0]["id"], *office.own("Meeting"), "--yes")

    assert (plan["letters"], plan["runs"], last["settled"]) == (2, 1, 1)
    assert [v["n"] for v in world.values(module.PAIRED)] == [3]
    states = Counter(letter["state"] for letter in office.ask("list", world.group("Meeting")))
    assert states == {"settled": 2, "open": 2}


def test_letters_are_resolved_with_a_reason_and_never_run(world, office):
    world.create("Picky")
    world.send(range(4), kind="bad")
    world.send([4], kind="odd")
    world.drain("Picky")
    world.module.done.clear()
    world.run("Picky")
    cause = office.ask("groups", world.group("Picky"))[0]["fingerprint"]

    assert "Missing parameter: reason" in str(office.refused("resolve", "--group", cause, "--yes"))
    (plan, *_, last) = office.ask(
        "resolve", "--group", cause, *office.own("Picky"), "--reason", "booked by hand, ticket 812", "--yes"
    )

    assert (plan["act"], plan["steps"], last["state"], last["settled"]) == ("resolve", [4], "finished", 4)
    assert world.module.done == []
    resolved = world.runs("Picky", "resolved")
    assert len(resolved) == 4
    assert {run["detail"]["reason"] for run in resolved} == {"booked by hand, ticket 812"}
    assert all("@" in run["detail"]["actor"] for run in resolved)
    assert Counter(row["state"] for row in office.ask("list", world.group("Picky"))) == {"resolved": 4, "open": 1}
    assert len(office.ask("list", world.group("Picky"), "--state", "open")) == 1


def test_a_letter_goes_back_with_a_mended_value_and_stays_as_it_is(world, office):
    world.create("Picky")
    world.send([7, 8], kind="bad")
    world.drain("Picky")
    world.run("Picky")
    before = [(m.value(), m.headers()) for m in world.letters("Picky")]
    letter = next(row for row in office.ask("list", world.group("Picky")) if row["key"] == "k7")

    (planned,) = office.ask("edit", letter["id"], *office.own("Picky"), "--set", "kind=good", "--plan")
    assert '-  "kind": "bad",' in planned["difference"]
    assert office.ask("list", world.group("Picky"), "--state", "open", "--key", "k7")
    (_, told) = office.ask(
        "edit", letter["id"], *office.own("Picky"), "--set", "kind=good", "--reason", "a typing error", "--yes"
    )

    assert told["state"] == "settled"
    assert world.outputs() == [14]
    assert [(m.value(), m.headers()) for m in world.letters("Picky")] == before
    (sent,) = world.records(world.declaration("Picky").retry_topic)
    assert b"farandole-edited-from" in {name.encode() for name, _ in sent.headers()}
    assert world.runs("Picky", "done")[0]["life"] == 1
    assert "is not open: settled" in str(
        office.refused("edit", letter["id"], *office.own("Picky"), "--set", "kind=well", "--yes")
    )
    assert "nothing was changed" in str(office.refused("edit", letter["id"], *office.own("Picky"), "--set", "kind=bad"))
    assert "field n" in str(office.refused("edit", letter["id"], *office.own("Picky"), "--set", "n=seven"))


def test_what_could_not_be_read_is_replaced_and_run(world, office):
    world.create("Picky")
    world.put(world.module.SENT, b"\x01garbage", "k1", world.headers("n1"))
    world.flush()
    world.drain("Picky")
    world.run("Picky")
    (letter,) = office.ask("list", world.group("Picky"))
    assert letter["stage"] == "decode"

    value = json.dumps(world.number(1, amount=None))
    told = office.ask("edit", letter["id"], *office.own("Picky"), "--json", "-", "--yes", text=value)[-1]

    assert told["state"] == "settled"
    assert world.outputs() == [2]


def test_a_quarantined_letter_runs_once_the_code_can_judge_it(world, office):
    world.create("Large")
    world.send([3], amount="a text")  # the condition `amount > 5` cannot be judged
    world.drain("Large")
    (letter,) = office.ask("list", world.group("Large"))
    assert (letter["stage"], letter["life"]) == ("match", 0)

    world.module.Large.declaration = later = world.module.Double.declaration.__class__(
        **{
            name: getattr(world.module.Large.declaration, name)
            for name in world.module.Large.declaration.__dataclass_fields__
            if name != "subscriptions"
        },
        subscriptions=world.module.Double.declaration.subscriptions,
    )
    world.run(later)
    *_, last = office.ask("redrive", letter["id"], *office.own("Large"), "--yes")

    assert last["settled"] == 1
    assert world.outputs() == [6]


def test_a_letter_that_points_to_its_event_goes_back_with_the_event(world, office, monkeypatch):
    monkeypatch.setattr("farandole.outcome.MAX_LETTER", 2000)
    world.create("Picky")
    world.send([7], kind="bad", amount="x" * 5000)
    world.drain("Picky")
    (letter,) = office.ask("list", world.group("Picky"))
    mended(world)
    world.run("Picky")

    *_, last = office.ask("redrive", letter["id"], *office.own("Picky"), "--yes")

    assert (last["settled"], world.outputs()) == (1, [14])


def test_a_letter_whose_event_is_gone_is_told_of_and_stops_nothing(world, office, monkeypatch):
    monkeypatch.setattr("farandole.outcome.MAX_LETTER", 2000)
    world.create("Picky")
    world.send([7], kind="bad", amount="x" * 5000)
    world.send([8], kind="bad")
    world.drain("Picky")
    mended(world)
    world.run("Picky")
    monkeypatch.setattr("farandole.letters.digest", lambda _: b"another record")

    said = office.see("redrive", *office.own("Picky"), "--yes")

    assert "another record stands there now" in said
    assert world.outputs() == [16]


def test_without_a_word_about_which_letters_nothing_is_meant(world, office):
    assert "say which letters" in str(office.refused("redrive", "--yes"))
    world.create("Picky")
    with pytest.raises(FarandoleError, match="no dead letter"):
        raise office.refused("redrive", "no-such-letter", *office.own("Picky"), "--plan")


def test_letters_that_are_named_alone_are_found_in_whatever_topic_they_stand(world, office):
    world.create("Picky", "Large")
    world.send([1], kind="bad")
    world.send([3], amount="a text")
    world.drain("Picky")
    world.drain("Large")
    one, other = (office.ask("list", world.group(p))[0] for p in ("Picky", "Large"))

    assert office.ask("show", one["id"])[0]["pipeline"] == world.group("Picky")
    assert office.ask("redrive", one["run_id"], "--plan")[0]["pipeline"] == world.group("Picky")
    assert "of several pipelines" in str(office.refused("redrive", one["id"], other["id"], "--plan"))
