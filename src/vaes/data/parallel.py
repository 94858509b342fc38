"""Work on many files by threads, its results in order, its memory bounded."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from vaes.memory import available

__all__ = ["in_order", "memory_limit"]

S = TypeVar("S")
T = TypeVar("T")


def memory_limit() -> int:
    """Bytes that may be in flight: a quarter of what is free, a gigabyte at most, divided among the processes that a
    launcher started on this host."""
    return int(min(2**30, available() / 4 / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def in_order(
    work: Callable[[S], T], items: Iterable[S], cost: Callable[[S], int], *, workers: int, limit: int
) -> Iterator[T]:
    """`map` by threads, in order. At most two items a thread are begun and not yet taken, and their `cost` is at
    most `limit` together (one alone may exceed it), so that memory stays bounded and stopping early is cheap."""
    waiting: deque[tuple[Future[T], int]] = deque()
    remaining = iter(items)
    held = next(remaining, None)
    with ThreadPoolExecutor(workers) as pool:
        try:
            while waiting or held is not None:
                while held is not None and len(waiting) < 2 * workers:
                    price = cost(held)
                    if waiting and price + sum(spent for _, spent in waiting) > limit:
                        break
                    waiting.append((pool.submit(work, held), price))
                    held = next(remaining, None)
                yield waiting[0][0].result()
                waiting.popleft()
        finally:
            for future, _ in waiting:
                future.cancel()
