"""Records that cannot be read: set aside whole, with the reason, and the partition goes on."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.integration.runtime_front import front_of
from tests.integration.runtime_world import until


def reasons(world, pipeline="Double"):
    return {m.key().decode(): dict(m.headers())["farandole-dlq-reason"].decode() for m in world.letters(pipeline)}


def test_one_corrupt_record_among_a_thousand_is_set_aside_whole_and_the_others_are_settled(world):
    world.create("Double")
    corrupt = world.frame(world.module.SENT, world.number(500))[:-3]
    headers = [*world.headers("corrupt"), ("of-the-producer", b"\xff\x00")]
    world.send(range(500))
    world.put(world.module.SENT, corrupt, "k500", headers)
    world.flush()
    world.send(range(501, 1000))
    world.drain("Double")
    assert world.outputs() == [2 * n for n in range(1000) if n != 500]
    [letter] = world.letters("Double")
    assert (letter.key(), letter.value(), letter.headers()[: len(headers)]) == (b"k500", corrupt, headers)
    got = dict(letter.headers())
    assert (got["farandole-dlq-stage"], got["farandole-dlq-reason"]) == (b"decode", b"decode.corrupt")
    assert got["__dlq.errors.topic"].decode() == world.module.SENT
    assert Counter(r["state"] for r in world.runs("Double")) == {"done": 999, "dead": 1}
    assert world.lag("Double") == 0


def test_each_kind_of_poison_has_its_reason_and_stops_nothing(world, monkeypatch):
    monkeypatch.setattr("farandole.reading.SCHEMA_WAIT", 0.3)
    world.create("Double")
    sent, good = world.module.SENT, world.frame(world.module.SENT, world.number(1))
    other = {"type": "record", "name": "NumberSent", "fields": [{"name": "n", "type": "string"}]}
    renamed = json.loads(json.dumps(world.module.SCHEMAS[sent]).replace('"kind"', '"sort"'))
    grown = json.loads(json.dumps(world.module.SCHEMAS[sent]))
    grown["fields"].append({"name": "more", "type": ["null", "string"], "default": None})
    elsewhere = {name: world.registry.register(f"{world.name}-{name}-value", s) for name, s in
                 {"other": other, "renamed": renamed, "grown": grown}.items()}  # fmt: skip
    told = world.number(1)
    records = {
        "unknown": (b"\x00" + (2_000_000_000).to_bytes(4, "big") + good[5:], []),
        "truncated": (good[:-1], []),
        "left-over": (good + b"\x00", []),
        "magic": (b"\x01" + good[1:], []),
        "empty": (b"", []),
        "short": (good[:4], []),
        "text": (json.dumps(told).encode(), []),
        "bad-header": (good[5:], [("__value_schema_id", b"\x07")]),
        "other": (world.frame(sent, {"n": "one"}, schema=other, schema_id=elsewhere["other"]), []),
        "renamed": (
            world.frame(sent, {"n": 1, "key": "k", "sort": "x", "amount": None}, schema=renamed, schema_id=elsewhere["renamed"]), [],
        ),
    }  # fmt: skip
    well = {
        "grown": (world.frame(sent, {**told, "n": 2, "more": "x"}, schema=grown, schema_id=elsewhere["grown"]), []),
        "in-header": (
            world.frame(sent, world.number(3))[5:], [("__value_schema_id", b"\x00" + world.ids[sent].to_bytes(4, "big"))],
        ),
        "last": (world.frame(sent, world.number(4)), []),
    }  # fmt: skip
    for key, (value, headers) in {**records, **well}.items():
        world.put(sent, value, key, headers, 0)
    world.put(sent, None, "tombstone", (), 0)
    world.flush()
    world.drain("Double")
    assert reasons(world) == {
        "unknown": "decode.unknown-schema",
        "truncated": "decode.corrupt",
        "left-over": "decode.corrupt",
        "magic": "decode.not-framed",
        "empty": "decode.not-framed",
        "short": "decode.not-framed",
        "text": "decode.not-framed",
        "bad-header": "decode.not-framed",
        "other": "decode.incompatible",
        "renamed": "decode.incompatible",
    }
    assert {m.key().decode(): m.value() for m in world.letters("Double")} == {k: v for k, (v, _) in records.items()}
    assert world.outputs() == [4, 6, 8]
    assert world.filtered("Double") == {"tombstone": 1}
    assert world.lag("Double") == 0


def test_a_schema_that_comes_late_is_waited_for(world, monkeypatch):
    monkeypatch.setattr("farandole.kafka.registry.ABSENT_SECONDS", 0.2)
    world.create("Double")
    with front_of(world.registry_url) as front:
        unknown = f"/schemas/ids/{world.ids[world.module.SENT]}"
        front.refuse = lambda path: 404 if path.endswith(unknown) else None
        world.send([1, 2], partition=0)
        service = world.run("Double", schema_registry_url=front.url)
        until(lambda: len(front.refused) >= 2)  # it asked again
        front.refuse = lambda _path: None
        world.wait_drained("Double")
        service.stop()
    assert world.outputs() == [2, 4]
    assert world.letters("Double") == []
    assert "has no schema" in world.said("partition.waits")[0]["why"]


@pytest.mark.parametrize("status", [503, 401, 429])
def test_a_registry_that_refuses_is_waited_for_and_nothing_is_set_aside(world, status, monkeypatch):
    monkeypatch.setattr("farandole.reading.SCHEMA_WAIT", 0.0)  # it is no unknown schema, so it does not count
    world.create("Double")
    with front_of(world.registry_url) as front:
        front.refuse = lambda path: status if "/schemas/ids/" in path else None
        world.send(range(5), partition=0)
        service = world.run("Double", schema_registry_url=front.url)
        until(lambda: len(front.refused) >= 3)
        front.refuse = lambda _path: None
        world.wait_drained("Double")
        service.stop()
    assert world.outputs() == [0, 2, 4, 6, 8]
    assert world.letters("Double") == []


def test_one_look_up_per_schema_id_and_none_per_record(world):
    world.create("Double")
    with front_of(world.registry_url) as front:
        world.send(range(300))
        world.drain("Double", schema_registry_url=front.url)
        asked = [path for path in front.passed if path.endswith(f"/schemas/ids/{world.ids[world.module.SENT]}")]
    assert len(asked) == 1
    assert len(world.outputs()) == 300
