"""The registry's side of the topology: subjects, their versions and compatibility levels (Confluent's API)."""

from __future__ import annotations

import json
from typing import Any, Self

import httpx2

from farandole.errors import FarandoleError, RegistryUnreachable, SettingsError

_MEDIA = {"content-type": "application/vnd.schemaregistry.v1+json", "accept": "application/vnd.schemaregistry.v1+json"}
_MISSING, _BUSY = 404, 429


class Subjects:
    """A schema registry's subjects.

    `credentials` is ``user:password``. Every call raises :class:`RegistryUnreachable` when the registry does
    not answer or is not ready, :class:`SettingsError` when it refuses the credentials, and
    :class:`FarandoleError` when it refuses the request.
    """

    def __init__(self, url: str, *, credentials: str = "", timeout: float = 15.0) -> None:
        self._url = url.rstrip("/")
        user, _, password = credentials.partition(":")
        self._http = httpx2.Client(timeout=timeout, headers=_MEDIA, auth=(user, password) if user else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def compatibility(self, subject: str) -> str | None:
        """The level of this subject; None if it has none of its own."""
        found = self._ask("GET", f"/config/{subject}", missing_is_none=True)
        return None if found is None else str(found["compatibilityLevel"])

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set the level of this subject."""
        self._ask("PUT", f"/config/{subject}", {"compatibility": level})

    def versions(self, subject: str) -> tuple[dict[str, Any], ...]:
        """The parsed schemas of a subject, oldest first; empty if it does not exist."""
        numbers = self._ask("GET", f"/subjects/{subject}/versions", missing_is_none=True) or []
        found = (self._ask("GET", f"/subjects/{subject}/versions/{number}") for number in numbers)
        return tuple(json.loads(version["schema"]) for version in found)

    def reads_all(self, subject: str, schema: dict[str, Any]) -> bool:
        """Whether the registry finds this schema compatible with the versions, by the subject's own level."""
        path = f"/compatibility/subjects/{subject}/versions"
        found = self._ask("POST", path, {"schema": json.dumps(schema)}, missing_is_none=True)
        return found is None or bool(found["is_compatible"])

    def register(self, subject: str, schema: dict[str, Any]) -> int:
        """Register a schema; its id."""
        return int(self._ask("POST", f"/subjects/{subject}/versions", {"schema": json.dumps(schema)})["id"])

    def _ask(self, verb: str, path: str, content: Any = None, *, missing_is_none: bool = False) -> Any:
        place = f"{self._url}{path}"
        try:
            answer = self._http.request(verb, place, content=None if content is None else json.dumps(content))
        except httpx2.InvalidURL as problem:
            raise SettingsError(str(problem), place=self._url, hint="check SCHEMA_REGISTRY_URL") from None
        except httpx2.HTTPError as problem:
            raise RegistryUnreachable(
                f"the schema registry does not answer: {problem}",
                place=self._url,
                hint="check SCHEMA_REGISTRY_URL, or start the embedded stack with `farandole up`",
            ) from None
        if answer.is_success:
            return self._content(answer, place)
        if answer.status_code == _MISSING and missing_is_none and answer.content.startswith(b"{"):
            return None
        said = answer.text[:500]
        if answer.status_code in {401, 403}:
            raise SettingsError(
                f"the schema registry refused the credentials ({answer.status_code}): {said}",
                place=place,
                hint="check SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO",
            )
        if answer.is_server_error or answer.status_code == _BUSY:
            raise RegistryUnreachable(
                f"the schema registry is not ready ({answer.status_code}): {said}", place=place, hint="try again"
            )
        raise FarandoleError(
            f"the schema registry refused this ({answer.status_code}): {said}",
            place=place,
            hint="SCHEMA_REGISTRY_URL must lead to the Confluent-compatible API"
            if answer.status_code == _MISSING
            else "",
        )

    @staticmethod
    def _content(answer: httpx2.Response, place: str) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise FarandoleError(
                f"this is no schema registry: it answers {answer.text[:80]!r}",
                place=place,
                hint="SCHEMA_REGISTRY_URL must lead to the Confluent-compatible API",
            ) from None
