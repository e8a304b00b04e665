"""Folders of three files each: what the repository says, what stands, and the plan that follows, in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from farandole.declaration import Declaration, Retry, Step, Subscription
from farandole.topology.actual import Actual, ActualGroup, ActualSubject, ActualTopic
from farandole.topology.desired import Desired, read_desired
from farandole.topology.explain import explain
from farandole.topology.plan import make_plan

CASES = sorted(path.parent for path in (Path(__file__).parent / "topology").glob("*/repository.yaml"))
CLUSTER = {"replication": 1, "min_insync_replicas": 1}


def desired_of(case: Path, root: Path) -> Desired:
    said = yaml.safe_load((case / "repository.yaml").read_text())
    (root / "topology/clusters").mkdir(parents=True)
    (root / "schemas/avro").mkdir(parents=True)
    (root / "topology/topics.yaml").write_text(yaml.safe_dump(said["topics.yaml"]))
    (root / "topology/clusters/local.yaml").write_text(yaml.safe_dump(said.get("cluster", CLUSTER)))
    for name, schema in said["schemas"].items():
        (root / f"schemas/avro/{name}.avsc").write_text(json.dumps(schema))
    return read_desired(root, [declaration_of(one) for one in said.get("pipelines", ())])


def declaration_of(said: dict) -> Declaration:
    subscriptions = tuple(Subscription(topic, topic) for topic in said["listens"])
    steps = (Step("step", "handlers:step", retry=Retry(backoff=said.get("backoff", "1s..30s"))),)
    return Declaration(said["name"], "", said["since"], subscriptions, steps)


def actual_of(case: Path) -> Actual:
    stands = yaml.safe_load((case / "cluster.yaml").read_text()) or {}
    return Actual(
        {name: ActualTopic(**topic) for name, topic in stands.get("topics", {}).items()},
        {
            name: ActualSubject(**{**subject, "versions": tuple(subject.get("versions", ()))})
            for name, subject in stands.get("subjects", {}).items()
        },
        {
            name: ActualGroup(group.get("active", False), frozenset(map(tuple, group.get("committed", ()))))
            for name, group in stands.get("groups", {}).items()
        },
        {(one["topic"], one["begin"]): one["offsets"] for one in stands.get("offsets", ())},
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_plan_is_the_one_that_was_reviewed(case, tmp_path):
    arguments = yaml.safe_load((case / "repository.yaml").read_text()).get("arguments", {})
    plan = make_plan(desired_of(case, tmp_path), actual_of(case), **arguments)
    assert explain(plan) + "\n" == (case / "plan.txt").read_text()


def test_no_plan_ever_deletes(tmp_path):
    for number, case in enumerate(CASES):
        plan = make_plan(desired_of(case, tmp_path / str(number)), actual_of(case), accept_reorder=True)
        assert not [change for change in plan.changes if "delete" in change.act or "recreate" in change.act]
