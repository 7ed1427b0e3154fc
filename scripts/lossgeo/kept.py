"""Graphs that are used again and again: kept as long as there is memory, else built again."""

import ctypes
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

T = TypeVar("T")

# glibc's parameters of malloc, and the values that its own adjustment ends at
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_THRESHOLD, OWN_PAGES = 32 * 2**20, 2**20  # bytes


def keep(
    makers: Sequence[Callable[[], T]], most: float = math.inf, shared: Iterable[Tensor] = ()
) -> Callable[[], Iterator[T]]:
    """What some functions build, one after the other, each time that the result is called.

    As many as `most` bytes hold are built once and kept; those beyond are built again on every
    call, and let go before the next. What is built is the same, so `most` changes time and memory,
    and no number. With a limit the first is built twice: to see what its graph takes, which counts
    for all; `shared` tensors, which all graphs hold, are not counted.
    """
    count = len(makers)
    with pages_of_their_own():
        if most < math.inf and count:
            count = min(count, int(most // max(1, graph_bytes(makers[0], shared))))
        kept = [make() for make in makers[:count]]

    def each() -> Iterator[T]:
        yield from kept
        for make in makers[count:]:
            yield make()

    return each


@contextmanager
def pages_of_their_own() -> Iterator[None]:
    """A context in which tensors of a megabyte or more take no more memory than they hold.

    Elsewhere glibc's malloc takes them, up to 32 MiB, from a heap: what is let go between tensors
    that are kept leaves holes there, half as much again as a transformer's graph. With another C
    library this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        yield
        return
    mallopt(MMAP_THRESHOLD, OWN_PAGES)
    try:
        yield
    finally:
        mallopt(MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(TRIM_THRESHOLD, 2 * LARGEST_THRESHOLD)


def graph_bytes(make: Callable[[], object], shared: Iterable[Tensor] = ()) -> int:
    """The bytes of all tensors but shared ones that autograd saves while `make` runs.

    Each storage counts once.
    """
    storages: dict[int, int] = {}
    alive = []  # so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        alive.append(storage)
        return tensor.detach()  # an operation's own result would keep its graph alive for good

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        make()
    known = {tensor.untyped_storage().data_ptr() for tensor in shared}
    return sum(size for address, size in storages.items() if address not in known)
