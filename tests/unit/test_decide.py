"""What becomes of a step that failed: a pure function of error, attempt, policy and luck."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farandole.decide import AGAIN, CAUGHT, DEAD, WAIT, Decision, decide, down_of, pause
from farandole.declaration import Catch, Need, Retry, Step
from farandole.errors import BrokerUnreachable, DatabaseUnreachable, RegistryUnreachable, UndeclaredOutput, Unfillable


class TableBusyError(OSError):
    pass


def step(retry=None, **words):
    return Step("merge", "m:merge", retry=Retry(3, backoff="1s..30s") if retry is None else retry, **words)


def test_an_error_is_tried_again_until_the_attempts_are_used_up():
    assert [decide(ValueError(), n, step(), 1.0).kind for n in (1, 2, 3)] == [AGAIN, AGAIN, DEAD]


def test_an_expected_error_is_caught_at_once_also_by_the_name_of_its_parent():
    assert decide(TableBusyError(), 1, step(catch=(Catch("OSError", "m:f"),)), 0.5) == Decision(CAUGHT, catch="OSError")


def test_a_catch_goes_before_everything_else():
    caught = step(Retry(3, never=("ValueError",)), catch=(Catch("ValueError", "m:f"), Catch("Unreachable", "m:g")))
    assert decide(ValueError(), 3, caught, 0.5).kind == CAUGHT
    assert decide(BrokerUnreachable("away"), 1, caught, 0.5).catch == "Unreachable"


@pytest.mark.parametrize("error", [BrokerUnreachable, RegistryUnreachable, DatabaseUnreachable])
def test_a_server_that_is_away_burns_no_attempt_however_often(error):
    assert decide(error("away"), 99, step(), 0.5).kind == WAIT


@pytest.mark.parametrize(
    "error", [UndeclaredOutput("x"), Unfillable("x"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()]
)
def test_a_programming_error_and_what_is_no_exception_is_dead_at_once(error):
    assert decide(error, 1, step(Retry(9)), 0.5).kind == DEAD


def test_only_says_which_errors_are_tried_again():
    policy = step(Retry(3, only=TableBusyError))
    assert decide(TableBusyError(), 1, policy, 0.5).kind == AGAIN
    assert decide(OSError(), 1, policy, 0.5).kind == DEAD


def test_never_goes_before_only():
    policy = step(Retry(3, only=OSError, never=TableBusyError))
    assert decide(TableBusyError(), 1, policy, 0.5).kind == DEAD
    assert decide(OSError(), 1, policy, 0.5).kind == AGAIN


@given(st.integers(1, 60), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_within_the_doubling_bound_and_never_above_the_cap(attempt, luck):
    assert 0 <= pause("1s..30s", attempt, luck) <= min(30, 2.0 ** (attempt - 1))


def test_a_backoff_without_a_cap_stays_at_its_base():
    assert [pause("2s", n, 1.0) for n in (1, 2, 10)] == [2.0, 2.0, 2.0]


def test_the_luck_decides_between_nothing_and_the_bound():
    assert [pause("1s..30s", 4, luck) for luck in (0.0, 0.5, 1.0)] == [0.0, 4.0, 8.0]


# ---- what a step depends on


class ApiDownError(Exception):
    pass


class NetworkError(Exception):
    """As httpx has one."""


class ConnectError(NetworkError):
    pass


class HTTPStatusError(Exception):
    """As httpx raises it: with the response."""

    def __init__(self, status):
        self.response = type("Response", (), {"status_code": status})()


ORDERS = step(needs=(Need("orders-api"),))
NAMED = step(needs=(Need("orders-api", ("ApiDownError", "HTTPStatusError")), Need("stock")))


@pytest.mark.parametrize(
    ("error", "down"),
    [
        (BrokerUnreachable("away"), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (ConnectError(), True),
        (HTTPStatusError(503), True),
        (HTTPStatusError(429), True),
        (HTTPStatusError(404), False),
        (ApiDownError(), False),
        (ValueError(), False),
    ],
)
def test_the_usual_errors_say_that_a_dependency_is_down(error, down):
    assert (down_of(error, ORDERS) == "orders-api") is down
    assert down_of(error, step()) == ""


def test_declared_errors_take_the_place_of_the_usual_ones_and_name_their_dependency():
    assert down_of(ApiDownError(), NAMED) == "orders-api"
    assert down_of(HTTPStatusError(503), NAMED) == "orders-api"
    assert down_of(HTTPStatusError(404), NAMED) == ""
    assert down_of(ConnectionError(), NAMED) == "stock"


@given(st.integers(1, 99))
def test_a_dependency_that_is_down_burns_no_attempt_however_often(attempt):
    assert decide(ConnectionError(), attempt, ORDERS, 0.5) == Decision(WAIT, 1.0, down="orders-api")


def test_a_catch_goes_before_a_dependency_and_a_dependency_before_the_policy():
    caught = step(Retry(3), catch=(Catch("ConnectionError", "m:f"),), needs=(Need("orders-api"),))
    assert decide(ConnectionError(), 1, caught, 0.5).kind == CAUGHT
    assert decide(ConnectionError(), 1, step(Retry(1, only=OSError), needs=ORDERS.needs), 0.5).kind == WAIT


def test_an_event_that_is_to_blame_itself_has_its_attempts():
    assert [decide(ConnectionError(), n, ORDERS, 1.0, blamed=True).kind for n in (1, 2, 3)] == [AGAIN, AGAIN, DEAD]
