"""What the commands for dead letters share: which are meant, where they stand, what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from farandole.cli.answer import actor, moment_of, projection, tell
from farandole.cli.records import Clients, text
from farandole.errors import FarandoleError

if TYPE_CHECKING:
    from farandole.deadletter import DeadLetter
    from farandole.declaration import Declaration
    from farandole.kafka.codec import Codec
    from farandole.kafka.control import Control
    from farandole.letters import Ledger, Letters
    from farandole.redriving import Sender
    from farandole.selection import Found, Selection, Standing

AROUND = 60_000
"""Milliseconds around a span of time within which the other letters of a joined run stand."""
AT_ONCE = 10_000
"""Letters whose states are asked for together: what bounds the memory of a count."""


def selecting(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which letters are meant."""
    options = (
        click.option("--group", default="", metavar="FINGERPRINT", help="Only of this cause; its beginning is enough."),
        click.option("--key", default=None, help="Only events of this record key; 0x… for bytes."),
        click.option("--since", default="", metavar="SPAN|TIME", help="Only those given up since: 2h, 2013-01-01."),
        click.option("--until", default="", metavar="SPAN|TIME", help="Only those given up before."),
        topic_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def topic_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Letters that do not stand in the pipeline's own topic."""
    shown = "Where the letters stand, if not in dlq.PIPELINE: one that Kafka Connect or Spring wrote."
    return click.option("--topic", default="", metavar="NAME", help=shown)(command)


def selection(ids: Sequence[str], group: str, key: str | None, since: str, until: str) -> Selection:
    """The letters that the options mean."""
    from farandole.selection import Selection

    wanted = None if key is None else key.removeprefix("0x") if key.startswith("0x") else key.encode().hex()
    start, end = moment_of(since, "--since"), moment_of(until, "--until")
    return Selection(
        tuple(ids),
        group,
        wanted,
        round(start.timestamp() * 1000) if start else 0,
        round(end.timestamp() * 1000) if end else 0,
    )


def places(c: Clients, pipeline: str | None, topic: str = "") -> list[tuple[str, str]]:
    """The pipelines and the topics of their letters: all of them, or one."""
    from farandole.deadletter import PREFIX, owner_of
    from farandole.kafka.reader import topic_names

    wanted = topic or (f"{PREFIX}{pipeline}" if pipeline else "")
    found = topic_names(c.settings.bootstrap(), c.settings.client_properties(), prefix=wanted or PREFIX)
    if wanted and wanted not in found:
        raise FarandoleError(
            f"there is no topic {wanted}" if topic else f"pipeline {pipeline} has no dead-letter topic {wanted}",
            place=f"kafka {c.settings.bootstrap()}",
            hint="is the name right? `farandole topology apply` creates the topic of each pipeline",
        )
    if wanted:
        return [(pipeline or owner_of(wanted), wanted)]
    return [(owner_of(name), name) for name in found]


@contextmanager
def letters_of(c: Clients, pipeline: str, topic: str) -> Iterator[Letters]:
    """The letters of a pipeline in a topic."""
    from farandole.kafka.admin import Admin
    from farandole.letters import Adoption, DeclaredKeys, Letters

    admin = Admin(c.settings.bootstrap(), c.settings.client_properties())
    with c.reader(topic) as reader:
        yield Letters(reader, Adoption(pipeline, admin.topic_ids, DeclaredKeys(lambda: _declared(c, pipeline))))


def _declared(c: Clients, pipeline: str) -> tuple[Declaration, Codec] | None:
    """The declaration of a pipeline that stands in this folder, with what reads its events as it would."""
    from farandole.errors import DeclarationError
    from farandole.find import find_declaration
    from farandole.kafka.codec import Codec
    from farandole.service import schemas

    try:
        found = find_declaration(pipeline)
    except DeclarationError:
        return None
    return (found, Codec(c.registry, schemas())) if found.name == pipeline else None


def gathered(c: Clients, wanted: Selection, pipeline: str | None, topic: str = "") -> tuple[tuple[str, str], Found]:
    """The letters that are meant, which must be those of one pipeline; its name, and the topic they stand in."""
    from farandole.selection import Found

    found: dict[tuple[str, str], Found] = {}
    for where in places(c, pipeline, topic):
        one = Found(wanted)
        with letters_of(c, *where) as letters:
            for batch in letters.every(max(0, wanted.since - AROUND)):
                one.add(batch)
        if one.sources or one.left_out or pipeline or topic:
            found[where] = one
    if len(found) > 1:
        raise FarandoleError(
            f"these letters are of several pipelines: {', '.join(name for name, _ in found)}",
            place="dlq",
            hint="name one with --pipeline: a redrive goes to one pipeline",
        )
    if topic and not next(iter(found))[0]:
        raise FarandoleError(
            f"nothing says whose letters stand in {topic}", place="dlq", hint="name the pipeline with --pipeline"
        )
    if not found:
        raise FarandoleError("no dead letter is meant by this", place="dlq", hint="`farandole dlq list` shows them")
    return next(iter(found.items()))


@contextmanager
def ledger_of(c: Clients, pipeline: str, *, history: bool = False) -> Iterator[Ledger]:
    """The ledger topic, as far as it tells of a pipeline."""
    from farandole.letters import Ledger
    from farandole.topics import LEDGER

    with Ledger(c.reader(LEDGER), c.codec, pipeline, history=history) as ledger:
        yield ledger


class States:
    """What became of letters: by the projection where there is one, else by the ledger topic itself."""

    def __init__(self, c: Clients) -> None:
        self._c = c
        self._ask: Callable[[Sequence[DeadLetter]], dict[str, Standing] | None] = self._projected

    def of(self, letters: Sequence[DeadLetter]) -> dict[str, str] | None:
        """The state of each, by its id; None where nobody can tell."""
        from farandole.selection import state_of

        standing = self._ask(letters)
        if standing is None:
            return None
        return {letter.id: state_of(letter.life, standing.get(letter.run_id)) for letter in letters}

    def _projected(self, letters: Sequence[DeadLetter]) -> dict[str, Standing] | None:
        from farandole.ledger.queries import states
        from farandole.selection import Standing

        try:
            with projection() as conn:
                found = states(conn, {letter.run_id for letter in letters if letter.run_id})
        except FarandoleError:
            self._ask = self._read
            return self._read(letters)
        return {run: Standing(*where) for run, where in found.items()}

    def _read(self, letters: Sequence[DeadLetter]) -> dict[str, Standing] | None:
        by_pipeline: dict[str, list[DeadLetter]] = {}
        for letter in letters:
            by_pipeline.setdefault(letter.group, []).append(letter)
        found: dict[str, Standing] = {}
        try:
            for pipeline, own in by_pipeline.items():
                with ledger_of(self._c, pipeline) as ledger:
                    oldest = min(letter.raw.timestamp for letter in own)
                    found.update(ledger.read((letter.run_id for letter in own), oldest))
        except FarandoleError as error:
            tell(f"no states shown: {error.message}; {error.hint}")
            self._ask = lambda _: None
            return None
        return found


def chunks(letters: Iterable[list[DeadLetter]], size: int = AT_ONCE) -> Iterator[list[DeadLetter]]:
    """Batches put together to such as are worth a question."""
    kept: list[DeadLetter] = []
    for batch in letters:
        kept += batch
        if len(kept) >= size:
            yield kept
            kept = []
    if kept:
        yield kept


def row(letter: DeadLetter, state: str | None) -> dict[str, Any]:
    """A letter as lists show it."""
    from farandole.ledger.queries import moment

    return {
        "id": letter.id,
        "pipeline": letter.group,
        "event": f"{letter.topic} p{letter.partition}:{letter.offset}",
        "event_id": letter.event_id or None,
        "key": text(letter.raw.key),
        "state": state,
        "stage": letter.stage,
        "step": letter.step or None,
        "reason": letter.reason or None,
        "exception": letter.exception_class,
        "message": letter.message,
        "fingerprint": letter.fingerprint or None,
        "attempts": letter.attempts,
        "life": letter.life,
        "run_id": letter.run_id or None,
        "pipeline_version": letter.pipeline_version or None,
        "first_failed_at": letter.first_failed_at or None,
        "failed_at": moment(letter.raw.timestamp),
        "letter": f"{letter.raw.topic} p{letter.raw.partition}:{letter.raw.offset}",
    }


def the_letter(c: Clients, identity: str, pipeline: str | None, topic: str = "") -> tuple[str, str, DeadLetter]:
    """The newest letter that an id (of a letter, a run or an event, or a beginning) names, with pipeline and topic.

    Raises FarandoleError where it names letters of several runs, or none.
    """
    newest: dict[str, tuple[str, str, DeadLetter]] = {}
    wanted = selection([identity], "", None, "", "")
    for where in places(c, pipeline, topic):
        with letters_of(c, *where) as letters:
            for batch in letters.every(whole=True):
                for letter in batch:
                    if letter.id == identity:
                        return *where, letter
                    name = letter.run_id or letter.id
                    if wanted.takes(letter) and (name not in newest or letter.life >= newest[name][2].life):
                        newest[name] = (*where, letter)
    if len(newest) == 1:
        return next(iter(newest.values()))
    if newest:
        few = ", ".join(sorted(letter.id for _, _, letter in newest.values())[:5])
        raise FarandoleError(
            f"more than one letter begins with {identity!r}: {few}", place="dlq", hint="give more of the id"
        )
    raise FarandoleError(f"there is no dead letter {identity!r}", place="dlq", hint="`farandole dlq list` shows them")


def run_of(c: Clients, where: tuple[str, str], letter: DeadLetter) -> list[DeadLetter]:
    """All letters of a run in the life of one of them, in the order of the set."""
    found = {letter.part: letter}
    if letter.parts > 1:
        with letters_of(c, *where) as letters:
            for batch in letters.every(whole=True):
                found.update({o.part: o for o in batch if (o.run_id, o.life) == (letter.run_id, letter.life)})
    if len(found) < letter.parts:
        raise FarandoleError(
            f"{letter.parts - len(found)} letters of this joined run are gone",
            place="dlq",
            hint="retention has passed them: farandole dlq resolve",
        )
    return [found[part] for part in sorted(found)]


def control_of(c: Clients) -> Control:
    """The topic of commands, on which plans are kept."""
    from farandole.kafka.codec import Codec
    from farandole.kafka.control import Control
    from farandole.topics import own_schemas

    codec = Codec(c.registry, own_schemas(), trusted=own_schemas())
    return Control(c.settings.bootstrap(), codec, c.settings.client_properties())


def sender_of(c: Clients, pipeline: str, plan: str) -> Sender:
    """What sends letters back to a pipeline, in the name of the person at this terminal."""
    from farandole.kafka.admin import Admin
    from farandole.kafka.emitter import Emitter
    from farandole.redriving import Sender

    brokers, properties = c.settings.bootstrap(), c.settings.client_properties()
    return Sender(Emitter(brokers, properties), Admin(brokers, properties), c.reader, pipeline, (plan, actor()))
