"""The circuit breaker and the retry budget: pure, with time as an argument."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from farandole.breaker import CLOSED, FIRST, HALF_OPEN, LEASE, LONGEST, OPEN, Breaker, Budget

API = Breaker("orders-api")


def opened(now: int = 0) -> Breaker:
    return API.failed(now, 5, "ApiDown")


def half_open(now: int = FIRST, who: str = "a") -> Breaker:
    return opened().asked(now, who)


# ---- closed


def test_the_fifth_failure_in_a_row_opens_it_and_four_do_not():
    assert API.failed(0, 4).state == CLOSED
    assert API.failed(0, 4).failed(7, 1, "ApiDown") == Breaker("orders-api", OPEN, 5, 7, 1_007, error="ApiDown")


def test_an_answer_between_breaks_the_row():
    assert API.failed(0, 4).answered().failed(0, 4).state == CLOSED


def test_an_answer_changes_nothing_where_nothing_failed():
    assert API.answered() is API


def test_it_can_be_opened_at_once():
    assert API.opened(5, "too many retries").until == 5 + FIRST


# ---- open


def test_what_began_before_it_opened_tells_nothing_new():
    assert opened().failed(9) == opened()
    assert opened().answered() == opened()
    assert opened().opened(9) == opened()


def test_nobody_probes_before_the_pause_is_over():
    assert opened().asked(FIRST - 1, "a") == opened()
    assert half_open().state == HALF_OPEN


def test_a_word_about_a_probe_that_was_given_to_nobody_is_not_heard():
    assert opened().probed(FIRST, "a", answer=True) == opened()


# ---- half-open


def test_one_probes_and_the_others_do_not():
    assert half_open().asked(FIRST + 1, "b").probe == "a"


def test_a_probe_that_shows_no_life_is_taken_over_and_its_word_does_not_count_any_more():
    late = FIRST + LEASE
    assert half_open().asked(late - 1, "b").probe == "a"
    assert half_open().asked(late - 1, "a").asked(late, "b").probe == "a"
    taken = half_open().asked(late, "b")
    assert taken.probe == "b"
    assert taken.probed(late, "a", answer=True) == taken


def test_an_answer_to_the_probe_closes_it_and_leaves_nothing_behind():
    assert half_open().probed(FIRST, "a", answer=True) == API


def test_each_failed_probe_doubles_the_pause_up_to_the_longest():
    breaker, now, pauses = opened(), 0, []
    for _ in range(8):
        now = breaker.until
        breaker = breaker.asked(now, "a").probed(now, "a", answer=False)
        pauses.append(breaker.until - now)
    assert pauses == [2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000]
    assert breaker.since == 0


def test_a_probe_that_came_to_no_answer_leaves_room_for_the_next_at_once():
    given_back = half_open().probed(FIRST + 3, "a", answer=None)
    assert (given_back.state, given_back.until, given_back.probes) == (OPEN, FIRST + 3, 0)
    assert given_back.asked(FIRST + 3, "b").probe == "b"


def test_failures_of_others_do_not_end_a_probe():
    assert half_open().failed(FIRST, 5) == half_open()


# ---- whatever happens


class Anything(RuleBasedStateMachine):
    """Four instances that fail, answer, probe and die in any order."""

    instances = st.sampled_from("abcd")

    @initialize()
    def begin(self):
        self.breaker, self.now, self.earliest = API, 0, 0

    @rule(milliseconds=st.sampled_from([0, 1, 500, FIRST, 2 * FIRST, LEASE, LONGEST, 10 * LONGEST]))
    def time_passes(self, milliseconds):
        self.now += milliseconds

    @rule(times=st.integers(1, 6))
    def fail(self, times):
        was = self.breaker
        self.breaker = was.failed(self.now, times)
        assert self.breaker.state == (OPEN if was.state == CLOSED and was.failures + times >= 5 else was.state)
        if was.state == CLOSED and self.breaker.state == OPEN:
            self.earliest = self.now + FIRST

    @rule()
    def answer(self):
        was = self.breaker
        self.breaker = was.answered()
        assert self.breaker.state == was.state

    @rule(who=instances)
    def ask(self, who):
        was = self.breaker
        self.breaker = was.asked(self.now, who)
        if self.breaker.probe == who:
            mine = was.probe == who
            alive = was.state == HALF_OPEN and self.now < was.lease
            assert self.now >= self.earliest
            assert mine or not alive, "two probes at once"

    @precondition(lambda self: self.breaker.state == HALF_OPEN)
    @rule(who=instances, answer=st.sampled_from([True, False, None]))
    def tell(self, who, answer):
        was = self.breaker
        self.breaker = was.probed(self.now, who, answer=answer)
        if who != was.probe:
            assert self.breaker == was
        elif answer:
            assert self.breaker == API
        else:
            assert self.breaker.state == OPEN
            self.earliest = self.breaker.until
            assert answer is None or 2 * FIRST <= self.breaker.until - self.now <= LONGEST

    @invariant()
    def fields_fit_the_state(self):
        b = self.breaker
        assert (b.state == HALF_OPEN) == bool(b.probe)
        if b.state == CLOSED:
            assert b == Breaker(b.name, failures=b.failures)
            assert b.failures < 5
        else:
            assert b.since <= b.until


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=200, deadline=None)


# ---- the retry budget


@pytest.mark.parametrize(
    ("runs", "retries", "spent"),
    [(0, 99, False), (0, 100, True), (499, 100, True), (500, 100, False), (1000, 200, False), (1000, 201, True)],
)
def test_retries_beyond_a_fifth_of_the_runs_spend_the_budget_from_a_hundred_on(runs, retries, spent):
    assert Budget().spent(0.0, runs, retries) is spent


def test_only_the_last_ten_seconds_count():
    budget = Budget()
    assert not budget.spent(0.5, 0, 99)
    assert not budget.spent(10.5, 0, 198)
    assert budget.spent(10.6, 0, 199)


def test_what_was_before_it_was_forgotten_does_not_count():
    budget = Budget()
    assert budget.spent(0.0, 0, 100)
    budget.forget()
    assert not budget.spent(0.1, 0, 199)
    assert budget.spent(0.2, 0, 200)


@given(st.lists(st.tuples(st.floats(0, 12), st.integers(0, 600), st.integers(0, 120)), max_size=60))
def test_the_budget_is_what_a_count_of_all_would_say(steps):
    budget, now, seen = Budget(), 0.0, []
    for passed, runs, retries in steps:
        now += passed
        seen.append((int(now), runs, retries))
        window = [(runs, retries) for second, runs, retries in seen if second > int(now) - 10]
        begun, again = (sum(column) for column in zip(*window, strict=True))
        totals = (sum(n for _, n, _ in seen), sum(n for _, _, n in seen))
        assert budget.spent(now, *totals) == (again >= 100 and again > 0.2 * begun)
