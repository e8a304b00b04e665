"""What the registry client makes of every answer, and of none: a real HTTP server gives them."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from farandole.errors import RegistryUnreachable
from farandole.kafka import registry as room
from farandole.kafka.codec import Codec
from farandole.kafka.registry import Registry, UnknownSchema, UnreadableSchema

SCHEMA = {"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}]}
RECORD = b"\x00\x00\x00\x00\x01\x0e"


@contextmanager
def answering(status: int, body: str, *, location: str = "") -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that answers everything alike; its address, and the headers that reached it."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(status)
            if location:
                self.send_header("location", location)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            """Not on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def schema_answer(**more: object) -> str:
    return json.dumps({"schema": json.dumps(SCHEMA), **more})


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (401, '{"error_code": 401, "message": "who are you"}', "credentials"),
        (403, "", "ask for the right"),
        (408, "", "wait"),
        (429, "slow down", "wait"),
        (500, '{"error_code": 50001, "message": "store"}', "log"),
        (502, "<html>bad gateway</html>", "log"),
        (503, "", "log"),
        (404, "<html>nothing here</html>", "is the path right?"),
        (404, "", "is the path right?"),
        (200, "<html>welcome</html>", "is the path right?"),
        (302, "", "is the path right?"),
    ],
)
def test_an_answer_that_says_nothing_about_the_schema_means_wait(status, body, hint):
    with answering(status, body, location="/elsewhere" if status == 302 else "") as (url, _):
        registry = Registry(url)
        with pytest.raises(RegistryUnreachable) as caught:
            registry.schema(1)
        registry.close()
    assert caught.value.place == url
    assert f"answers {status}" in caught.value.message
    assert hint in caught.value.hint


def test_only_an_answer_with_its_code_says_that_the_schema_is_not_there():
    with answering(404, '{"error_code": 40403, "message": "Schema 1 not found"}') as (url, _):
        registry = Registry(url)
        with pytest.raises(UnknownSchema):
            registry.schema(1)
        registry.close()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (schema_answer(schemaType="PROTOBUF"), "PROTOBUF"),
        (schema_answer(references=[{"name": "a", "subject": "a", "version": 1}]), "refers to other schemas"),
        (json.dumps({"schema": "{"}), "no JSON"),
        (json.dumps({"schema": None}), "no JSON"),
        (json.dumps({"schema": "[" * 100_000}), "no JSON"),
    ],
)
def test_a_schema_that_cannot_be_read_is_told_apart(body, says):
    with answering(200, body) as (url, _):
        registry = Registry(url)
        with pytest.raises(UnreadableSchema, match=says):
            registry.schema(1)
        registry.close()


def test_nobody_there_is_unreachable_and_names_the_address():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RegistryUnreachable) as caught:
            Registry(url).schema(1)
    assert caught.value.place == url
    assert "farandole doctor" in caught.value.hint


def test_a_server_that_never_answers_is_unreachable(monkeypatch):
    monkeypatch.setattr(room, "TIMEOUT_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(RegistryUnreachable, match="Timeout"):
            Registry(f"http://127.0.0.1:{silent.getsockname()[1]}").schema(1)


@pytest.mark.parametrize("url", ["", "localhost:8081", "ftp://registry", "http://", "http://[", "http://host:port"])
def test_an_address_that_is_none_is_unreachable(url):
    with pytest.raises(RegistryUnreachable):
        Registry(url).schema(1)


@pytest.mark.parametrize(
    ("auth", "wanted"), [("user:pass", "Basic dXNlcjpwYXNz"), ("secret-token", "Bearer secret-token"), ("", None)]
)
def test_credentials_are_sent_as_they_are_given(auth, wanted):
    with answering(200, schema_answer()) as (url, seen):
        registry = Registry(url, auth)
        registry.schema(1)
        registry.close()
    assert seen[0].get("authorization") == wanted


def test_credentials_in_the_address_are_used_and_never_told():
    with answering(500, "") as (url, seen):
        registry = Registry(url.replace("http://", "http://user:p%40ss@"))
        with pytest.raises(RegistryUnreachable) as caught:
            registry.schema(1)
        registry.close()
    assert seen[0]["authorization"].startswith("Basic ")
    assert "ss" not in str(caught.value).replace("schemas", "")
    assert registry.url == url


def test_a_warm_codec_survives_an_outage_and_a_cold_one_waits():
    with answering(200, schema_answer()) as (url, _):
        registry = Registry(url)
        codec = Codec(registry, {"t": SCHEMA})
        assert codec.decode("t", RECORD) == {"x": 7}
    assert codec.decode("t", RECORD) == {"x": 7}
    with pytest.raises(RegistryUnreachable):
        codec.decode("t", b"\x00\x00\x00\x00\x02\x0e")
    registry.close()
