"""The YAML notation of a pipeline: the same value as the Python class, from and to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from farandole.clock import seconds
from farandole.declaration import Catch, Declaration, Expect, Join, Need, Retry, Step, Subscription
from farandole.pipeline import frozen_options
from farandole.problem import Mistakes, Problem, refuse
from farandole.ready import ready
from farandole.rules import rules
from farandole.yamlnode import Reader

__all__ = ["read_manifest", "ready", "write_manifest"]

KEYS = (
    "pipeline", "about", "owner", "since", "once", "when", "join", "steps", "emits", "scale", "on_rewind",
    "on_conflict", "on_dead", "guard", "expect",
)  # fmt: skip
EXPECT_KEYS = ("by", "each", "grace", "interval")
STEP_KEYS = (
    "name",
    "call",
    "use",
    "with",
    "timeout",
    "retry",
    "catch",
    "effect",
    "check",
    "needs",
    "isolate",
    "detached",
)
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


def read_manifest(path: Path | str) -> Declaration:
    """The declaration in a ``pipeline.yaml``. Raises Mistakes with everything that is wrong, each with its place.

    A function is named ``module:function``; a module that lies beside the manifest needs no package in front.
    """
    return _Manifest(Path(path)).declaration()


class _Manifest(Reader):
    """A manifest being read. What is absent keeps the declaration's own default."""

    def declaration(self) -> Declaration:
        root = self.root()
        if root is None:
            raise Mistakes([Problem(self.at(None), "it is empty", "begin with `pipeline: a-name`")])
        top = self.mapping(root, "a pipeline", KEYS)
        scale = self.mapping(top.get("scale"), "scale", ("slots", "ordering"))
        more: dict[str, Any] = {
            word: self.text(node, word)
            for word, node in (top | scale).items()
            if word in ("owner", "ordering", "on_rewind", "on_conflict", "on_dead", "guard")
        }
        if "slots" in scale:
            more["slots"] = self.whole(scale["slots"], "slots", 8)
        declaration = Declaration(
            name=self.text(top.get("pipeline"), "pipeline"),
            about=self.text(top.get("about"), "about"),
            since=self.text(top.get("since"), "since"),
            subscriptions=self._subscriptions(top.get("when")),
            steps=tuple(map(self._step, self.items(top.get("steps"), "steps"))),
            join=self._join(top.get("join")),
            once=self.texts(top.get("once"), "once"),
            emits=tuple(sorted(self.texts(top.get("emits"), "emits"))),
            expect=self._expects(top.get("expect")),
            source=self.at(root).rpartition(":")[0],
            **more,
        )
        refuse([*self.problems, *rules(declaration, steps_told="steps" in top and bool(self.problems))])
        return declaration

    def _subscriptions(self, node: yaml.Node | None) -> tuple[Subscription, ...]:
        found: list[Subscription] = []
        for signal, told in self.mapping(node, "when").items():
            if isinstance(told, yaml.ScalarNode):
                self.wrong(told, f"the signal `{signal}` is no mapping", f"write {signal}: {{event: {told.value}}}")
                continue
            words = self.mapping(told, f"the signal `{signal}`", ("event", "where"))
            if "event" not in words:
                self.wrong(told, f"the signal `{signal}` names no event", "write event: lake.file.landed.v1")
            where = self.text(words.get("where"), f"{signal}.where")
            found.append(Subscription(signal, self.text(words.get("event"), f"{signal}.event"), where, self.at(told)))
        return tuple(found)

    def _join(self, node: yaml.Node | None) -> Join | None:
        if node is None:
            return None
        words = self.mapping(node, "join", ("by", "within", "where"))
        if "within" not in words:
            self.wrong(node, "join does not say within which time", "write within: 6h")
        within = self._span(words.get("within"), "join.within")
        by = self.texts(words.get("by"), "join.by")
        return Join(by, 1.0 if within is None else within, self.text(words.get("where"), "join.where"), self.at(node))

    def _span(self, node: yaml.Node | None, title: str) -> float | None:
        if node is None:
            return None
        written = self.text(node, title)
        try:
            return float(written) if written.replace(".", "", 1).isdecimal() else seconds(written)
        except ValueError as error:
            self.wrong(node, f"{title}: {error}", f"write {title.rpartition('.')[2]}: 10m")
            return None

    def _step(self, node: yaml.Node) -> Step:
        if isinstance(node, yaml.ScalarNode):
            self.wrong(node, f"`{node.value}` is no step", f"write - call: {node.value}")
            return Step("", "")
        words = self.mapping(node, "a step", STEP_KEYS)
        call, use = self.text(words.get("call"), "call"), self.text(words.get("use"), "use")
        if bool(call) == bool(use):
            self.wrong(node, "a step says either `call` or `use`", "call: module:function, or use: a.ready-made.step")
        if "with" in words and not use:
            self.wrong(words["with"], "`with` stands without `use`", "only ready-made steps take options")
        options = self.value(words["with"], "with") if "with" in words else {}
        if not isinstance(options, Mapping):
            self.wrong(words["with"], "with is no mapping", "write with: {table: crm.customers}")
            options = {}
        catch = self.mapping(words.get("catch"), "catch")
        return Step(
            name=self.text(words.get("name"), "name") or use or call.rpartition(":")[2].rpartition(".")[2],
            call=self._reference(words.get("call"), "call"),
            retry=self._retry(words.get("retry")),
            timeout=self._span(words.get("timeout"), "timeout"),
            effect=self.text(words.get("effect"), "effect"),
            check=self._reference(words.get("check"), "check"),
            catch=tuple(Catch(error, self._reference(n, "catch", ready_made=True)) for error, n in catch.items()),
            needs=self._needs(words.get("needs")),
            isolate=self._yes(words.get("isolate"), "isolate"),
            detached=self._yes(words.get("detached"), "detached"),
            use=use,
            options=frozen_options(options),
            place=self.at(node),
        )

    def _expects(self, node: yaml.Node | None) -> tuple[Expect, ...]:
        if node is None:
            return ()
        many = self.items(node, "expect") if isinstance(node, yaml.SequenceNode) else [node]
        return tuple(read_expect(self, one, self.mapping(one, "expect", EXPECT_KEYS)) for one in many)

    def _yes(self, node: yaml.Node | None, title: str) -> bool:
        said = self.text(node, title)
        if said not in ("", "true", "false"):
            self.wrong(node, f"{title} is {said!r}", f"write {title}: true, or leave it out")
        return said == "true"

    def _needs(self, node: yaml.Node | None) -> tuple[Need, ...]:
        if not isinstance(node, yaml.MappingNode):
            return tuple(map(Need, self.texts(node, "needs")))
        needs = self.mapping(node, "needs")
        return tuple(
            Need(name, tuple(filter(None, self.texts(errors, f"needs.{name}")))) for name, errors in needs.items()
        )

    def _reference(self, node: yaml.Node | None, title: str, *, ready_made: bool = False) -> str:
        written = self.text(node, title)
        module, colon, name = written.partition(":")
        if node is None or (ready_made and not colon and "." in written):
            return written
        if not module or not name:
            self.wrong(node, f"{title}: `{written}` names no function", "write module:function, such as handlers:merge")
            return written
        package = package_of(self.path)
        beside = self.path.parent / module
        if package and (beside.with_suffix(".py").exists() or (beside / "__init__.py").exists()):
            return f"{package}.{written}"
        return written

    def _retry(self, node: yaml.Node | None) -> Retry:
        if node is None or isinstance(node, yaml.ScalarNode):
            return Retry(self.whole(node, "retry", 3))
        words = self.mapping(node, "retry", ("times", "only", "never", "backoff"))
        return Retry(
            self.whole(words.get("times"), "retry.times", 3),
            only=self.texts(words.get("only"), "retry.only"),
            never=self.texts(words.get("never"), "retry.never"),
            backoff=self.text(words.get("backoff"), "retry.backoff", Retry().backoff),
        )


def read_expect(reader: Reader, node: yaml.Node, words: Mapping[str, yaml.Node]) -> Expect:
    """The expectation that these words of a mapping mean. What they say is judged by `farandole check`."""
    said = {word: reader.text(value, f"expect.{word}") for word, value in words.items() if word in EXPECT_KEYS}
    if "by" not in said:
        reader.wrong(node, "expect does not say by when", 'write by: "06:30 America/New_York"')
    return Expect(**{"by": "", **said}, place=reader.at(node))


def package_of(path: Path) -> str:
    """The package that the modules beside a manifest belong to: ``services.merge``; empty outside services/."""
    folder = path.resolve().parent
    return f"services.{folder.name}" if folder.parent.name == "services" else ""


def write_manifest(declaration: Declaration) -> str:
    """The YAML text that reads back as the same value. What is left out is a default."""
    d, usual = declaration, Declaration("", "", "", (), ())
    package = f"services.{d.name.replace('-', '_')}."
    scale = {word: getattr(d, word) for word in ("slots", "ordering") if getattr(d, word) != getattr(usual, word)}
    join = d.join and {"by": list(d.join.fields), "within": span(d.join.within), "where": d.join.where}
    content = {
        "pipeline": d.name,
        "about": d.about,
        "owner": d.owner,
        "since": d.since,
        "once": list(d.once),
        "when": {s.signal: _said({"event": s.event_type, "where": s.where}) for s in d.subscriptions},
        "join": join and _said(join),
        "steps": [_step_said(step, package) for step in d.steps],
        "emits": list(d.emits),
        "expect": _expect_said(d.expect),
        "scale": scale,
        **{
            word: getattr(d, word)
            for word in ("on_rewind", "on_conflict", "on_dead", "guard")
            if getattr(d, word) != getattr(usual, word)
        },
    }
    return yaml.safe_dump(_said(content), sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def _said(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if value not in ("", None, [], {})}


def _expect_said(expect: Sequence[Expect]) -> Any:
    usual = Expect("")
    said = [{w: v for w in EXPECT_KEYS if (v := getattr(one, w)) != getattr(usual, w)} for one in expect]
    return said[0] if len(said) == 1 else said


def _step_said(step: Step, package: str) -> dict[str, Any]:
    usual, retry = Retry(), step.retry
    policy: Any = {
        "times": retry.times,
        "only": list(retry.only),
        "never": list(retry.never),
        "backoff": retry.backoff if retry.backoff != usual.backoff else "",
    }
    default_name = step.use or step.call.rpartition(":")[2].rpartition(".")[2]
    return _said(
        {
            "name": step.name if step.name != default_name else "",
            "call": step.call.removeprefix(package),
            "use": step.use,
            "with": {key: _thawed(value) for key, value in step.options},
            "timeout": None if step.timeout is None else span(step.timeout),
            "retry": None if retry == usual else _said(policy),
            "catch": {c.error: c.call.removeprefix(package) for c in step.catch},
            "needs": _needs_said(step.needs),
            "effect": step.effect,
            "check": step.check.removeprefix(package),
            "isolate": step.isolate or None,
            "detached": step.detached or None,
        }
    )


def _needs_said(needs: Sequence[Need]) -> Any:
    if any(need.errors for need in needs):
        return {need.name: list(need.errors) for need in needs}
    return needs[0].name if len(needs) == 1 else [need.name for need in needs]


def _thawed(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_thawed(item) for item in value]
    return {k: _thawed(v) for k, v in value.items()} if isinstance(value, dict) else value


def span(length: float) -> str | float:
    """A span as a person writes it: 600 is 10m; what is finer than a millisecond stays a number of seconds."""
    milliseconds = length * 1_000
    if milliseconds != int(milliseconds) or milliseconds <= 0:
        return length
    unit, size = next((u, s) for u, s in _UNITS if milliseconds % s == 0)
    return f"{int(milliseconds) // size}{unit}"
