"""One event loop for all who need one, for as long as anybody does."""

from __future__ import annotations

import asyncio
import threading

import pytest

from codream_secure.deployment.streams.loops import LoopThread


async def where() -> tuple[asyncio.AbstractEventLoop, threading.Thread]:
    return asyncio.get_running_loop(), threading.current_thread()


def test_all_share_one_loop_until_the_last_one_leaves() -> None:
    one, other = LoopThread(), LoopThread()
    loop, thread = one.call(where())
    assert other.call(where()) == (loop, thread)
    one.close()
    one.close()
    assert other.call(where()) == (loop, thread)
    other.close()
    assert loop.is_closed()
    assert not thread.is_alive()
    again = LoopThread()
    try:
        assert again.call(where())[0] is not loop
    finally:
        again.close()


def test_the_last_one_out_cancels_what_still_runs() -> None:
    user = LoopThread()

    async def begin() -> asyncio.Task[None]:
        return asyncio.create_task(asyncio.sleep(3600))

    task = user.call(begin())
    user.close()
    assert task.cancelled()


def test_calls_keep_their_order_and_errors_come_back() -> None:
    user = LoopThread()
    try:
        told: list[int] = []
        for number in range(100):
            user.soon(told.append, number)

        async def fail() -> None:
            raise LookupError("no")

        with pytest.raises(LookupError, match="no"):
            user.call(fail())
        assert told == list(range(100))
    finally:
        user.close()
