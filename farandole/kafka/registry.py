"""The schema registry, by its Confluent API: Apicurio, Confluent, Karapace or Redpanda.

A schema never changes under its id, so it is asked for once and kept for ever: a warm service survives
an outage of the registry. Nothing is tried again in here; whoever waits, waits with a backoff.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2

from farandole.clock import Clock, SystemClock
from farandole.errors import FarandoleError, RegistryUnreachable

ABSENT_SECONDS = 10.0
"""How long an id that the registry does not know is not asked for again."""

TIMEOUT_SECONDS = 5.0
"""How long one request may take to connect, and to be answered."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _TIMEOUT, _CONFLICT, _TOO_MANY, _BROKEN = (
    200,
    401,
    403,
    404,
    408,
    409,
    429,
    500,
)


class UnknownSchema(FarandoleError):
    """The registry answers, and has no schema of this id (yet): a new replica, or a late registration."""


class UnreadableSchema(FarandoleError):
    """The registry has a schema under this id that Farandole cannot read: not Avro, not valid, or with references."""


class GuidsUnsupported(UnreadableSchema):
    """The registry cannot look up schemas by GUID at all: Apicurio and others know ids only."""


class SchemaRefused(FarandoleError):
    """The registry refuses to register a schema: invalid, or incompatible with what stands there."""


@dataclass(frozen=True, slots=True)
class ParsedSchema:
    """An Avro schema as the registry holds it; `id` is -1 where it was found by its GUID."""

    id: int
    text: str
    schema: Any


class Registry:
    """A client of one schema registry; safe to share between threads.

    `auth` is ``user:password`` for basic authentication, anything else is a bearer token, empty is none.
    Every method raises RegistryUnreachable when the registry does not answer or answers 5xx, 401, 403 or 429.
    """

    def __init__(self, url: str, auth: str = "", *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._schemas: dict[int | str, ParsedSchema] = {}
        self._absent: dict[int | str, tuple[float, FarandoleError]] = {}
        self._asking = [threading.Lock() for _ in range(16)]
        try:
            address = httpx2.URL(url.rstrip("/"))
        except (httpx2.InvalidURL, TypeError) as e:
            raise RegistryUnreachable(
                f"{url!r} is no address of a schema registry: {e}", hint="write it like http://host:8081"
            ) from e
        if address.userinfo and not auth:
            auth = f"{address.username}:{address.password}"
        address = address.copy_with(username=None, password=None) if address.userinfo else address
        self.url = str(address).rstrip("/")
        headers = {"accept": "application/vnd.schemaregistry.v1+json, application/json"}
        user, colon, password = auth.partition(":")
        if auth and not colon:
            headers["authorization"] = f"Bearer {auth}"
        self._http = httpx2.Client(
            timeout=TIMEOUT_SECONDS,
            headers=headers,
            auth=(user, password) if colon else None,
            trust_env=address.host not in _LOOPBACK,  # a proxy cannot reach this machine's own registry
        )

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def schema(self, schema_id: int) -> ParsedSchema:
        """The schema of an id: one look-up per id, whatever the number of threads.

        Raises UnknownSchema, remembered for ten seconds, and UnreadableSchema.
        """
        return self._schemas.get(schema_id) or self._find(schema_id, f"/schemas/ids/{schema_id}")

    def schema_by_guid(self, guid: str) -> ParsedSchema:
        """The schema of a GUID, as newer Confluent producers put it into the headers; else like :meth:`schema`.

        Raises GuidsUnsupported where the registry knows ids only.
        """
        return self._schemas.get(guid) or self._find(guid, f"/schemas/guids/{guid}")

    def latest(self, subject: str) -> tuple[int, str]:
        """Id and text of the newest version of a subject. Registries reformat the text: compare by :meth:`lookup`.

        Raises UnknownSchema where the subject has no version.
        """
        status, answer = self._ask("GET", f"/subjects/{_part(subject)}/versions/latest")
        if status == _NOT_FOUND:
            raise UnknownSchema(f"subject {subject} has no schema", place=self.url, hint="farandole topology apply")
        return int(answer["id"]), str(answer["schema"])

    def versions(self, subject: str) -> tuple[Any, ...]:
        """The schemas of a subject, oldest first, parsed; none for a subject that is not there."""
        path = f"/subjects/{_part(subject)}/versions"
        status, numbers = self._ask("GET", path)
        if status != _OK:
            return ()
        answers = [self._ask("GET", f"{path}/{number}") for number in sorted(numbers)]
        return tuple(json.loads(answer["schema"]) for status, answer in answers if status == _OK)

    def lookup(self, subject: str, schema: Mapping[str, Any] | str) -> int | None:
        """The id under which exactly this schema stands in the subject; None if it does not."""
        status, answer = self._ask("POST", f"/subjects/{_part(subject)}", _body(schema))
        if status == _NOT_FOUND:
            return None
        return int(answer["id"]) if status == _OK else self._refuse(subject, status, answer)

    def register(self, subject: str, schema: Mapping[str, Any] | str) -> int:
        """Register a schema and give its id; the same schema again gives the same id. Raises SchemaRefused."""
        status, answer = self._ask("POST", f"/subjects/{_part(subject)}/versions", _body(schema))
        return int(answer["id"]) if status == _OK else self._refuse(subject, status, answer)

    def compatible(self, subject: str, schema: Mapping[str, Any] | str) -> tuple[bool, list[str]]:
        """Whether the registry would take the schema under the subject's level, and what speaks against it.

        A subject without any version takes everything. Some registries (Apicurio) give no reasons: then the
        list is empty. Raises SchemaRefused for what is no schema.
        """
        path = f"/compatibility/subjects/{_part(subject)}/versions?verbose=true"
        status, answer = self._ask("POST", path, _body(schema))
        if status == _NOT_FOUND:
            return True, []
        if status != _OK:
            self._refuse(subject, status, answer)
        return bool(answer["is_compatible"]), [str(m) for m in answer.get("messages") or ()]

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set the level of a subject, like BACKWARD_TRANSITIVE; it need not have a schema yet. Raises SchemaRefused."""
        status, answer = self._ask("PUT", f"/config/{_part(subject)}", {"compatibility": level})
        if status != _OK:
            self._refuse(subject, status, answer)

    def compatibility(self, subject: str) -> str:
        """The level of a subject: its own, else the registry's."""
        status, answer = self._ask("GET", f"/config/{_part(subject)}")
        if status == _NOT_FOUND:
            status, answer = self._ask("GET", "/config")
        return str(answer.get("compatibilityLevel") or answer.get("compatibility") or "NONE")

    def subjects(self) -> list[str]:
        """The names of all subjects, sorted."""
        status, answer = self._ask("GET", "/subjects")
        return sorted(str(s) for s in answer) if status == _OK else []

    def _find(self, name: int | str, path: str) -> ParsedSchema:
        with self._asking[hash(name) % len(self._asking)]:
            if found := self._schemas.get(name):
                return found
            if (past := self._absent.get(name)) and self._clock.monotonic() < past[0]:
                raise type(past[1])(past[1].message, place=past[1].place, hint=past[1].hint)
            try:
                found = self._fetch(name, path)
            except (UnknownSchema, UnreadableSchema) as e:
                self._remember(name, e)
                raise
            self._absent.pop(name, None)
            self._schemas[name] = found
            return found

    def _remember(self, name: int | str, error: FarandoleError) -> None:
        now = self._clock.monotonic()
        if len(self._absent) >= 1024:  # noqa: PLR2004 - random ids in corrupt records must not fill the memory
            self._absent = {n: past for n, past in list(self._absent.items()) if now < past[0]}
        self._absent[name] = (now + ABSENT_SECONDS, error)

    def _fetch(self, name: int | str, path: str) -> ParsedSchema:
        status, answer = self._ask("GET", path)
        if status != _OK and not isinstance(answer, dict):
            raise GuidsUnsupported(
                f"this registry does not find schemas by GUID ({name})",
                place=self.url,
                hint="let the producer put the schema id before the value",
            )
        if status != _OK:
            raise UnknownSchema(
                f"the registry has no schema {name}", place=self.url, hint="was it registered in another registry?"
            )
        kind, text = answer.get("schemaType") or "AVRO", answer.get("schema")
        if kind != "AVRO":
            raise UnreadableSchema(
                f"schema {name} is {kind}, not Avro", place=self.url, hint="produce Avro to this topic"
            )
        if answer.get("references"):
            raise UnreadableSchema(
                f"schema {name} refers to other schemas, which is not supported",
                place=self.url,
                hint="register it with the types it needs written into it",
            )
        try:
            return ParsedSchema(name if isinstance(name, int) else -1, text, json.loads(text))
        except (ValueError, TypeError, RecursionError) as e:
            raise UnreadableSchema(f"schema {name} is no JSON: {e}", place=self.url, hint="register it anew") from e

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Status and answer of one request. Only what is an answer comes back: 200, or an error with its code."""
        try:
            response = self._http.request(method, self.url + path, json=body)
        except (httpx2.HTTPError, httpx2.InvalidURL) as e:
            raise RegistryUnreachable(
                f"the schema registry does not answer: {type(e).__name__} {e}".rstrip(),
                place=self.url,
                hint="is it up, and is this its address? farandole doctor",
            ) from e
        status = response.status_code
        try:
            answer = response.json()
        except ValueError:
            answer = None
        told = isinstance(answer, dict) and "error_code" in answer
        if status == _OK and answer is not None:
            return status, answer
        if status in (_NOT_FOUND, _CONFLICT, 422) and (told or path.startswith("/schemas/guids/")):
            return status, answer
        hint = {
            _UNAUTHORIZED: "give it valid credentials",
            _FORBIDDEN: "these credentials may not do this; ask for the right",
            _TOO_MANY: "it is overloaded or limits requests; wait",
            _TIMEOUT: "it is overloaded; wait",
        }.get(status, "look into its log" if status >= _BROKEN else "is the path right? Apicurio: …/apis/ccompat/v7")
        said = f" ({answer.get('message')})" if told else ""
        raise RegistryUnreachable(
            f"the schema registry answers {status} to {method} {path}{said}", place=self.url, hint=hint
        )

    def _refuse(self, subject: str, status: int, answer: Any) -> Any:
        why = answer.get("message", "") if isinstance(answer, dict) else ""
        raise SchemaRefused(
            f"{subject}: {'incompatible' if status == _CONFLICT else 'invalid'}: {why}",
            place=self.url,
            hint="give new fields a default, or start a new major version of the event type"
            if status == _CONFLICT
            else "",
        )


def _part(subject: str) -> str:
    return quote(subject, safe="")


def _body(schema: Mapping[str, Any] | str) -> dict[str, str]:
    # compact and in the order given, so that the same file always is the same text
    return {"schema": schema if isinstance(schema, str) else json.dumps(schema, separators=(",", ":"))}
