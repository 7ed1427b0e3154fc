"""Graphs that are used again and again: kept as long as there is memory, else built again."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

T = TypeVar("T")


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
    if most < math.inf and count:
        count = min(count, int(most // max(1, graph_bytes(makers[0], shared))))
    kept = [make() for make in makers[:count]]

    def each() -> Iterator[T]:
        yield from kept
        for make in makers[count:]:
            yield make()

    return each


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
