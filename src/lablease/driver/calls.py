"""Runs exported methods so that none of them can hold up the event loop."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Final, cast

from lablease.driver.faults import BadArguments

_END: Final = object()


def bind(function: Callable[..., object], args: Sequence[object]) -> None:
    """Refuse arguments that do not fit.

    Raises:
        BadArguments: too many or too few.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # a builtin that does not say
    try:
        signature.bind(*args)
    except TypeError as error:
        raise BadArguments(f"{error} (the method takes {signature})") from error


async def call(function: Callable[..., object], args: Sequence[object]) -> object:
    """Call a method: coroutines on the loop, where cancelling reaches them, anything else in a thread, to its end."""
    bind(function, args)
    if inspect.iscoroutinefunction(function):
        return await cast("Awaitable[object]", function(*args))
    result = await asyncio.to_thread(function, *args)
    return await cast("Awaitable[object]", result) if inspect.isawaitable(result) else result


async def iterate(function: Callable[..., object], args: Sequence[object]) -> AsyncIterator[object]:
    """Run a generator; each step of a plain one happens in a thread, never on the loop."""
    bind(function, args)
    if inspect.isasyncgenfunction(function):
        source = function(*args)
        try:
            async for item in source:
                yield item
        finally:
            await source.aclose()
        return
    steps = cast("Iterator[object]", await asyncio.to_thread(function, *args))
    step: asyncio.Future[object] | None = None
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(next, steps, _END))
            item = await asyncio.shield(step)
            if item is _END:
                return
            yield item
    finally:
        await _close(steps, step)


async def _close(steps: Iterator[object], step: "asyncio.Future[object] | None") -> None:
    """Close a plain generator once the step under way is over: a generator cannot be closed while it runs."""
    close = getattr(steps, "close", None)
    if close is None:
        return
    if step is None or step.done():
        await asyncio.to_thread(close)
    else:
        loop = asyncio.get_running_loop()
        step.add_done_callback(lambda _: loop.run_in_executor(None, close))
