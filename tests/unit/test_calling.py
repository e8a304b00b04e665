"""How a step's function is called, and that the slot which asked comes back whatever the function does."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError

import pytest

from farandole import calling
from farandole.calling import Caller, Flag
from farandole.declaration import Step
from farandole.errors import GivenUp
from farandole.fill import StepPlan


@pytest.fixture
def caller():
    said, ended = [], threading.Event()
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    made = Caller(loop, say=lambda event, **fields: said.append((event, fields)), end=ended.set)
    yield made, said, ended
    loop.call_soon_threadsafe(loop.stop)


def planned(function, timeout=None):
    return StepPlan(Step("work", "m:work", timeout=timeout), function, asyncio.iscoroutinefunction(function), (), None)


def asked_aside(caller, plan, flag):
    """A call from a slot of its own; what it raises is kept."""
    raised = []

    def slot():
        try:
            caller.call(plan, [], flag)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=slot)
    thread.start()
    return thread, raised


class Patient:
    """An async step that waits, and what it heard."""

    def __init__(self, *, swallow=False, tidy=0.0):
        self.swallow, self.tidy, self.begun, self.heard = swallow, tidy, threading.Event(), threading.Event()

    def plan(self, timeout=None):
        async def wait():
            self.begun.set()
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                await asyncio.sleep(self.tidy)
                self.heard.set()
                if not self.swallow:
                    raise
                await asyncio.sleep(30)

        return planned(wait, timeout)


def test_an_async_step_whose_time_is_over_is_cancelled_and_may_tidy_up_first(caller):
    step = Patient(tidy=0.2)
    flag = Flag()
    with pytest.raises(TimeoutError, match=r"work gave no result within 0\.1 s"):
        caller[0].call(step.plan(0.1), [], flag)
    assert step.heard.is_set(), "what it held is let go before it is tried again"
    assert flag.is_set()
    assert (caller[0].abandoned, caller[1]) == (0, [])


def test_an_async_step_is_cancelled_when_its_flag_is_set(caller):
    step, flag = Patient(), Flag()
    thread, raised = asked_aside(caller[0], step.plan(), flag)
    assert step.begun.wait(5)
    flag.set()
    thread.join(5)
    assert isinstance(raised[0], GivenUp)
    assert step.heard.is_set()


def test_an_async_step_that_swallows_its_cancellation_is_given_up(caller, monkeypatch):
    monkeypatch.setattr(calling, "CANCEL_GRACE", 0.2)
    step = Patient(swallow=True)
    with pytest.raises(TimeoutError):
        caller[0].call(step.plan(0.1), [], Flag())
    assert step.heard.is_set()
    assert caller[1] == [("step.abandoned", {"step": "work", "still": 1})]


def test_at_the_end_of_the_service_async_steps_are_cancelled_and_waited_for(caller):
    step = Patient(tidy=0.2)
    thread, raised = asked_aside(caller[0], step.plan(), Flag())
    assert step.begun.wait(5)
    caller[0].close()
    assert step.heard.is_set()
    thread.join(5)
    assert isinstance(raised[0], CancelledError)


def test_a_timeout_that_a_step_raises_itself_stays_its_own(caller):
    async def late():
        raise TimeoutError("the API was late")

    def also_late():
        raise TimeoutError("the API was late")

    for function in (late, also_late):
        flag = Flag()
        with pytest.raises(TimeoutError, match="the API was late"):
            caller[0].call(planned(function, 5.0), [], flag)
        assert not flag.is_set()


def test_a_thread_that_is_given_up_is_counted_until_it_ends(caller):
    go = threading.Event()
    with pytest.raises(TimeoutError):
        caller[0].call(planned(go.wait, 0.05), [], Flag())
    assert caller[1] == [("step.abandoned", {"step": "work", "still": 1})]
    go.set()
    end = time.monotonic() + 5
    while caller[0].abandoned:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_call_in_a_thread_is_given_up_when_its_flag_is_set(caller):
    go, flag = threading.Event(), Flag()
    thread, raised = asked_aside(caller[0], planned(go.wait, 60.0), flag)
    flag.set()
    thread.join(5)
    assert isinstance(raised[0], GivenUp)
    go.set()


def test_a_call_that_nobody_wants_from_the_start_is_given_up(caller):
    go, flag = threading.Event(), Flag()
    flag.set()
    with pytest.raises(GivenUp):
        caller[0].call(planned(go.wait, 60.0), [], flag)
    go.set()


def test_too_many_calls_that_go_on_end_the_service_and_it_says_why(caller, monkeypatch):
    monkeypatch.setattr(calling, "MOST_ABANDONED", 3)
    go = threading.Event()
    for n in range(3):
        assert not caller[2].is_set(), n
        with pytest.raises(TimeoutError):
            caller[0].call(planned(go.wait, 0.02), [], Flag())
    assert caller[2].is_set()
    event, fields = caller[1][-1]
    assert event == "service.overrun"
    assert fields["why"] == "3 calls were given up and still go on, the last one of work"
    assert "isolate=True" in fields["hint"]
    go.set()
