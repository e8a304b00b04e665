"""The registry client against a real registry."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from farandole.clock import ManualClock
from farandole.errors import Undecodable
from farandole.kafka.codec import SCHEMA_ID_HEADER, Codec
from farandole.kafka.registry import Registry, SchemaRefused, UnknownSchema, UnreadableSchema
from farandole.schemagen import load_schemas

SCHEMAS = load_schemas(Path(__file__).parents[2] / "schemas/avro")
SCHEMA = SCHEMAS["lake.table.merged.v1"]
DAY = {"start": datetime(2013, 1, 1, tzinfo=UTC), "end": datetime(2013, 1, 2, tzinfo=UTC)}
ROW = {"table": "flights", "interval": DAY, "rows": 842, "deleted": 0, "version": -1}


def changed(*fields: dict) -> dict:
    return {**SCHEMA, "fields": [*SCHEMA["fields"], *fields]}


@pytest.fixture
def registry(stack):
    client = Registry(stack.registry_url)
    yield client
    client.close()


@pytest.fixture
def subject(stack, registry):
    name = f"{stack.unique('reg')}-value"
    yield name
    if name in registry.subjects():
        registry._ask("DELETE", f"/subjects/{name}")


@pytest.fixture
def asked(registry) -> list[str]:
    """The requests that reach the registry from here on."""
    paths: list[str] = []
    registry._http.event_hooks["request"].append(lambda request: paths.append(request.url.path))
    return paths


def test_a_registered_schema_is_found_by_its_id_its_subject_and_its_text(registry, subject):
    schema_id = registry.register(subject, SCHEMA)
    assert registry.register(subject, SCHEMA) == schema_id
    assert registry.schema(schema_id).schema["name"] == "TableMerged"
    assert registry.latest(subject)[0] == schema_id
    assert registry.lookup(subject, SCHEMA) == schema_id
    assert registry.lookup(subject, json.dumps(SCHEMA, indent=4, sort_keys=True)) == schema_id
    assert subject in registry.subjects()


def test_a_schema_that_does_not_stand_there_is_not_found(registry, subject):
    assert registry.lookup(subject, SCHEMA) is None
    assert registry.versions(subject) == ()
    with pytest.raises(UnknownSchema, match=subject):
        registry.latest(subject)
    registry.register(subject, SCHEMA)
    assert registry.lookup(subject, changed({"name": "more", "type": "int", "default": 0})) is None


def test_versions_are_given_oldest_first(registry, subject):
    registry.register(subject, SCHEMA)
    registry.register(subject, changed({"name": "more", "type": "int", "default": 0}))
    assert [len(version["fields"]) for version in registry.versions(subject)] == [5, 6]


def test_an_id_is_looked_up_once_by_many_threads(registry, subject, asked):
    schema_id = registry.register(subject, SCHEMA)
    asked.clear()
    barrier = threading.Barrier(8)

    def look(_: int) -> object:
        barrier.wait()
        return registry.schema(schema_id)

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(look, range(8)))
    assert len({id(schema) for schema in found}) == 1
    assert len(asked) == 1


def test_an_unknown_id_is_asked_for_again_after_ten_seconds(stack, subject):
    clock = ManualClock()
    registry = Registry(stack.registry_url, clock=clock)
    paths: list[str] = []
    registry._http.event_hooks["request"].append(lambda request: paths.append(request.url.path))
    for moment in ("0s", "9s", "2s"):
        clock.advance(moment)
        with pytest.raises(UnknownSchema):
            registry.schema(2_000_000_000)
    registry.close()
    assert len(paths) == 2


def test_an_id_that_no_registry_can_have_is_unknown(registry):
    for schema_id in (2**32 - 1, 2**31):
        with pytest.raises(UnknownSchema):
            registry.schema(schema_id)


def test_a_schema_of_another_kind_cannot_be_read(registry, subject):
    body = {"schema": '{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}', "schemaType": "JSON"}
    _, answer = registry._ask("POST", f"/subjects/{subject}/versions", body)
    with pytest.raises(UnreadableSchema, match="is JSON, not Avro"):
        registry.schema(answer["id"])


def test_a_schema_with_references_cannot_be_read(registry, subject, stack):
    part = f"{stack.unique('part')}-value"
    registry.register(part, {"type": "record", "name": "Part", "namespace": "shop", "fields": []})
    whole = {"type": "record", "name": "Whole", "fields": [{"name": "part", "type": "shop.Part"}]}
    body = {"schema": json.dumps(whole), "references": [{"name": "shop.Part", "subject": part, "version": 1}]}
    _, answer = registry._ask("POST", f"/subjects/{subject}/versions", body)
    with pytest.raises(UnreadableSchema, match="refers to other schemas"):
        registry.schema(answer["id"])
    for name in (subject, part):  # the one that refers before the one it refers to
        registry._ask("DELETE", f"/subjects/{name}")


def test_compatibility_is_set_before_the_first_version_and_holds(registry, subject):
    registry.set_compatibility(subject, "BACKWARD_TRANSITIVE")
    registry.register(subject, SCHEMA)
    assert registry.compatibility(subject) == "BACKWARD_TRANSITIVE"
    assert registry.compatible(subject, changed({"name": "more", "type": "int", "default": 0})) == (True, [])
    assert registry.compatible(subject, changed({"name": "more", "type": "int"}))[0] is False
    with pytest.raises(SchemaRefused, match="incompatible") as caught:
        registry.register(subject, changed({"name": "more", "type": "int"}))
    assert "default" in caught.value.hint


def test_a_subject_without_versions_takes_everything(registry, subject):
    assert registry.compatible(subject, SCHEMA) == (True, [])
    assert registry.compatibility(subject) in ("NONE", "BACKWARD")


def test_what_is_no_schema_is_refused(registry, subject):
    with pytest.raises(SchemaRefused, match="invalid"):
        registry.register(subject, '{"type": "nonsense"}')


def test_a_level_that_does_not_exist_is_refused(registry, subject):
    registry.register(subject, SCHEMA)
    with pytest.raises(SchemaRefused, match="SILLY"):
        registry.set_compatibility(subject, "SILLY")


def test_the_codec_reads_what_an_older_and_a_newer_writer_wrote(registry, stack, subject):
    event_type = subject.removesuffix("-value")
    newer = changed({"name": "more", "type": {"type": "array", "items": "int"}, "default": []})
    for schema in (SCHEMA, newer):
        registry.register(subject, schema)
    old, new = Codec(registry, {event_type: SCHEMA}), Codec(registry, {event_type: newer})
    assert new.decode(event_type, old.encode(event_type, ROW)) == {**ROW, "more": []}
    assert old.decode(event_type, new.encode(event_type, {**ROW, "more": [1]})) == ROW


def test_every_schema_of_the_repository_is_registered_and_read_back(registry, stack):
    from farandole.kafka.resolution import parse, parse_writer, plan

    for event_type, schema in SCHEMAS.items():
        name = f"{stack.unique(event_type)}-value"
        stands = registry.schema(registry.register(name, schema))
        assert plan(parse_writer(stands.schema), parse(schema)).reader is None  # the same, whatever it reformatted
        assert registry.lookup(name, schema) == stands.id
        registry._ask("DELETE", f"/subjects/{name}")


def test_a_guid_that_this_registry_cannot_look_up_is_an_unknown_schema(registry):
    codec = Codec(registry, SCHEMAS)
    with pytest.raises((Undecodable, UnknownSchema)) as caught:
        codec.decode("lake.table.merged.v1", b"\x00", [(SCHEMA_ID_HEADER, b"\x01" + bytes(16))])
    assert isinstance(caught.value, UnknownSchema) or caught.value.reason == "decode.unknown-schema"


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(stack, monkeypatch):
    if httpx2.URL(stack.registry_url).host not in ("127.0.0.1", "localhost"):
        pytest.skip("the registry is on another machine")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    registry = Registry(stack.registry_url)
    assert isinstance(registry.subjects(), list)
    registry.close()
