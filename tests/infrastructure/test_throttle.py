"""Token buckets and the breaker, on a clock that obeys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from infrastructure.aws.throttle import (
    CLEAN_TIME,
    FAILURES,
    LEAST_RATE,
    OPEN_FOR,
    RISE,
    WITHIN,
    Breaker,
    Bucket,
)
from tests.fakes.clock import FakeClock


def bucket(clock: FakeClock, size: float = 10.0, rate: float = 2.0) -> Bucket:
    return Bucket(size, rate, lambda: clock.seconds)


def drain(tokens: Bucket) -> int:
    """How many single tokens are there now."""
    count = 0
    while tokens.take():
        count += 1
    return count


def test_a_bucket_begins_full_and_refills_by_its_rate() -> None:
    """Its size at once, then so many a second, and never more than its size."""
    clock = FakeClock()
    tokens = bucket(clock)
    assert drain(tokens) == 10
    clock.advance(3)
    assert drain(tokens) == 6
    clock.advance(1000)
    assert drain(tokens) == 10


def test_asking_takes_nothing() -> None:
    """`has` may be asked as often as one likes."""
    tokens = bucket(FakeClock())
    assert all(tokens.has(10) for _ in range(5))
    assert drain(tokens) == 10


def test_more_than_the_size_waits_for_a_full_bucket_and_leaves_a_debt() -> None:
    """A launch of 30 from a bucket of 10 goes when it is full; later refills pay for it."""
    clock = FakeClock()
    tokens = bucket(clock)
    assert tokens.take()
    assert not tokens.take(30)
    clock.advance(0.5)
    assert tokens.take(30)
    clock.advance(10)
    assert not tokens.has()
    clock.advance(0.5)
    assert tokens.has()


def test_what_is_not_there_is_not_taken() -> None:
    """A refusal costs nothing."""
    clock = FakeClock()
    tokens = bucket(clock)
    assert tokens.take(8)
    assert not tokens.take(3)
    assert tokens.take(2)


def test_a_throttle_empties_the_bucket_and_halves_the_rate() -> None:
    """AWS knows better than we do how many tokens are left."""
    clock = FakeClock()
    tokens = bucket(clock)
    tokens.throttled()
    assert not tokens.has()
    clock.advance(4)
    assert drain(tokens) == 4


def test_the_rate_never_falls_below_its_least() -> None:
    """After any number of throttles calls still go out, a tenth as often."""
    clock = FakeClock()
    tokens = bucket(clock, rate=2.0)
    for _ in range(50):
        tokens.throttled()
    clock.advance(1 / (2.0 * LEAST_RATE) - 0.01)
    assert not tokens.has()
    clock.advance(0.02)
    assert tokens.has()


def test_the_rate_comes_back_slowly() -> None:
    """5 % for each 10 s without a throttle, however often the bucket is asked meanwhile, and never
    above what it was."""
    clock = FakeClock()
    tokens = bucket(clock, size=1000.0, rate=2.0)
    tokens.throttled()
    for _ in range(40):
        clock.advance(2.5 * CLEAN_TIME / 10)
        tokens.has()
    drain(tokens)
    clock.advance(1.0)
    tokens._refill()
    assert abs(tokens._rate - RISE**10) < 1e-9
    clock.advance(100 * CLEAN_TIME)
    tokens.has()
    drain(tokens)
    clock.advance(10)
    assert drain(tokens) == 20


def test_clean_time_is_not_lost_between_questions() -> None:
    """15 s twice are three times 10 s."""
    clock = FakeClock()
    tokens = bucket(clock, rate=2.0)
    tokens.throttled()
    for _ in range(2):
        clock.advance(1.5 * CLEAN_TIME)
        tokens.has()
    assert abs(tokens._rate - RISE**3) < 1e-9


def test_a_clock_that_steps_back_costs_nothing() -> None:
    """Tokens never vanish by time."""
    clock = FakeClock()
    tokens = bucket(clock)
    tokens.take(5)
    clock.seconds -= 100
    assert drain(tokens) == 5


@given(steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 15), st.booleans()), max_size=60))
def test_a_bucket_never_gives_more_than_it_was_given(
    steps: list[tuple[float, int, bool]],
) -> None:
    """Taken tokens are at most its size and what flowed in, plus the one debt of a large take."""
    clock = FakeClock()
    tokens = bucket(clock)
    start = clock.seconds
    taken = 0
    for seconds, count, throttle in steps:
        clock.advance(seconds)
        if throttle:
            tokens.throttled()
        if tokens.take(count):
            taken += count
        assert taken <= 10 + 2 * (clock.seconds - start) + 5 + 1e-6


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed()


def test_failures_close_together_open_the_breaker() -> None:
    """One fewer does not."""
    clock = FakeClock()
    breaker = Breaker(lambda: clock.seconds)
    fail(breaker, FAILURES - 1)
    assert breaker.admits()
    fail(breaker, 1)
    assert not breaker.admits()


def test_failures_far_apart_do_not() -> None:
    """A failure is forgotten after its time."""
    clock = FakeClock()
    breaker = Breaker(lambda: clock.seconds)
    for _ in range(5 * FAILURES):
        breaker.failed()
        clock.advance(WITHIN / (FAILURES - 1))
        assert breaker.admits()


def test_a_success_between_failures_clears_them() -> None:
    """Four, one that went well, four: closed."""
    breaker = Breaker(lambda: 0.0)
    fail(breaker, FAILURES - 1)
    breaker.succeeded()
    fail(breaker, FAILURES - 1)
    assert breaker.admits()


def test_an_open_breaker_lets_a_probe_through_after_its_time() -> None:
    """A probe that fails opens it again at once, one that goes well closes it."""
    clock = FakeClock()
    breaker = Breaker(lambda: clock.seconds)
    fail(breaker, FAILURES)
    clock.advance(OPEN_FOR - 0.1)
    assert not breaker.admits()
    clock.advance(0.1)
    assert breaker.admits()
    breaker.failed()
    assert not breaker.admits()
    clock.advance(OPEN_FOR)
    assert breaker.admits()
    breaker.succeeded()
    fail(breaker, FAILURES - 1)
    assert breaker.admits()
