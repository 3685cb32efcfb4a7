from __future__ import annotations

import threading

from executors.cancel import CancellationToken


def test_it_starts_uncancelled_and_stays_cancelled() -> None:
    token = CancellationToken()
    assert not token.is_cancelled()
    token.cancel()
    token.cancel()
    assert token.is_cancelled()


def test_reset_makes_it_usable_again() -> None:
    token = CancellationToken()
    token.cancel()
    token.reset()
    assert not token.is_cancelled()
    assert token.wait(0.01) is False


def test_wait_ends_as_soon_as_somebody_cancels() -> None:
    token = CancellationToken()
    answers: list[bool] = []
    waiters = [threading.Thread(target=lambda: answers.append(token.wait(240))) for _ in range(8)]
    for waiter in waiters:
        waiter.start()
    token.cancel()
    for waiter in waiters:
        waiter.join(240)
    assert answers == [True] * 8


def test_it_says_what_it_is() -> None:
    token = CancellationToken()
    assert "not cancelled" in repr(token)
    token.cancel()
    assert "not" not in repr(token)
