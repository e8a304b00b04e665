"""What steps work with: opened once per worker on first use, closed in reverse at the end."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from farandole.errors import DeclarationError, GivenUp, Unfillable
from farandole.problem import Problem, refuse
from farandole.signature import fits, place_of, resource_given, spelled

if TYPE_CHECKING:
    import sqlalchemy

T = TypeVar("T")


class Database:
    """A connection in the inbox's own transaction: what a step writes here counts exactly when its run does.

    Never commit or roll back yourself; the run's end does.
    """

    __slots__ = ("connection",)

    def __init__(self, connection: sqlalchemy.Connection) -> None:
        self.connection = connection

    def execute(self, sql: str, parameters: Mapping[str, Any] | list[Mapping[str, Any]] | None = None) -> Any:
        """Run one statement with named parameters: ``execute("insert into t values (:a)", {"a": 1})``.

        Gives SQLAlchemy's result; a list of parameters runs it once for each.
        """
        from sqlalchemy import text

        return self.connection.execute(text(sql), parameters)

    def lent(self) -> Database:
        """The same transaction, for one attempt that may be given up."""
        return Database(self.connection)

    def take_back(self) -> None:
        """The attempt is over: whoever still works at it writes nowhere."""
        self.connection = _TakenBack()  # type: ignore[assignment]


class _TakenBack:
    def __getattr__(self, name: str) -> Any:
        raise GivenUp("this attempt is over, and its transaction goes on without it")


class Resources:
    """The resources of one worker, by the type that a step asks for.

    >>> Resources.of({str: "a lake"}).get(str)
    'a lake'

    Raises DeclarationError if two functions give the same type.
    """

    def __init__(self, functions: Iterable[Callable[..., Any]] = (), given: Mapping[type, Any] | None = None) -> None:
        self._makers: dict[type, Callable[..., Any]] = {}
        self._open: dict[type, Any] = dict(given or {})
        self._given = frozenset(self._open)
        self._closing = ExitStack()
        self._lock = threading.RLock()  # two steps may ask first at the same time
        problems = [p for function in functions if (p := self._add(function)) is not None]
        refuse(problems)

    @classmethod
    def of(cls, given: Mapping[type, Any], functions: Iterable[Callable[..., Any]] = ()) -> Resources:
        """Resources that are there already, such as fakes in a test; they stand before what `functions` give."""
        return cls(functions, given)

    def _add(self, function: Callable[..., Any]) -> Problem | None:
        try:
            type_given = resource_given(function)
        except DeclarationError as error:
            return Problem(error.place, error.message, error.hint)
        title, at = getattr(function, "__name__", str(function)), place_of(function)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(inspect.unwrap(function)):
            return Problem(at, f"the resource {title} is async", "open it in a plain function; steps may be async")
        if any(p.default is p.empty for p in inspect.signature(inspect.unwrap(function)).parameters.values()):
            return Problem(at, f"the resource {title} asks for parameters", "read its settings inside it")
        other = self._makers.setdefault(type_given, function)
        if other is not function:
            return Problem(
                at,
                f"{other.__name__} and {title} both give a {spelled(type_given)}",
                "keep one; a step asks by type, so two resources need two types",
            )
        return None

    def types(self) -> tuple[type, ...]:
        """Every type that can be asked for."""
        return (*self._given, *(t for t in self._makers if t not in self._given))

    def key(self, asked: Any) -> type | None:
        """The type under which something stands that fits what is asked; None if nothing does."""
        if asked in self._given or asked in self._makers:
            return asked  # type: ignore[no-any-return]
        return next((t for t in self.types() if fits(t, asked)), None)

    def read_only(self, key: type) -> bool:
        """Whether it was labelled as one that does not write outside; a stand-in is judged by what it stands for."""
        maker = self._makers.get(key)
        return key in self._given if maker is None else maker.__resource__.read_only  # type: ignore[attr-defined]

    def get(self, asked: type[T]) -> T:
        """The resource that fits, opened if need be. Raises Unfillable if there is none."""
        try:
            return self._open[asked]  # type: ignore[no-any-return]
        except KeyError:
            return self._opened(asked)  # type: ignore[no-any-return]

    def _opened(self, asked: type) -> Any:
        with self._lock:
            key = self.key(asked)
            if key is None:
                raise Unfillable(
                    f"nothing gives a {spelled(asked)}", hint="label a function that returns one @resource"
                )
            if key not in self._open:
                self._open[key] = self._enter(self._makers[key])
            self._open[asked] = self._open[key]
            return self._open[key]

    def _enter(self, maker: Callable[..., Any]) -> Any:
        if inspect.isgeneratorfunction(maker):
            return self._closing.enter_context(contextmanager(maker)())
        made = maker()
        as_context = inspect.isgeneratorfunction(inspect.unwrap(maker)) and isinstance(made, AbstractContextManager)
        return self._closing.enter_context(made) if as_context else made

    def unwell(self) -> Iterator[tuple[type, Exception]]:
        """The open resources whose own ``healthy()`` raises, with what it raised; those without one are well."""
        for key, opened in tuple(self._open.items()):
            try:
                if callable(ask := getattr(opened, "healthy", None)):
                    ask()
            except Exception as error:  # noqa: BLE001 - any answer but silence is an illness
                yield key, error

    def close(self) -> None:
        """Close what was opened, the last one first."""
        with self._lock:
            self._open = {key: value for key, value in self._open.items() if key in self._given}
            self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
