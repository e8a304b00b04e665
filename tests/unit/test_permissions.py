"""What ACLs refuse a principal, by the rules of an authorizer."""

from __future__ import annotations

import pytest

from farandole.kafka.permissions import EVERYBODY, Acl, Right, refused

P = "User:merger"
ACTS = Acl("group", "merge", P, "Read", allows=True)
RIGHT = Right("Read", "topic", "in.v1")
OTHERS = Acl("topic", "in.v1", "User:other", "All", allows=True)


def topic(name="in.v1", operation="Read", principal=P, *, allows=True, prefix=False):
    return Acl("topic", name, principal, operation, allows, prefix)


@pytest.mark.parametrize(
    ("acls", "found"),
    [
        ([], []),  # nothing is said of the topic: nobody can say
        ([OTHERS], [P]),
        ([OTHERS, topic()], []),
        ([OTHERS, topic(operation="All")], []),
        ([OTHERS, topic(operation="Write")], [P]),
        ([topic(principal=EVERYBODY)], []),
        ([topic("*")], []),
        ([topic("in.", prefix=True)], []),
        ([OTHERS, topic("out.", prefix=True)], [P]),
        ([topic(), topic(allows=False)], [P]),
        ([topic(), topic("*", "All", EVERYBODY, allows=False)], [P]),
        ([topic(), topic(operation="Write", allows=False)], []),
        ([topic(), topic(principal="User:other", allows=False)], []),
    ],
)
def test_a_denial_wins_and_where_nothing_is_said_nobody_is_denied(acls, found):
    assert [one.principal for one in refused([RIGHT], "merge", [ACTS, *acls])] == found


def test_who_does_not_act_as_the_group_is_nobody_s_concern():
    assert list(refused([RIGHT], "merge", [topic(allows=False)])) == []
    everybody = Acl("group", "merge", EVERYBODY, "Read", allows=True)
    assert list(refused([RIGHT], "merge", [everybody, topic(allows=False)])) == []
