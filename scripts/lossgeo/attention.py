"""Attention by the same operations wherever the loss is evaluated or differentiated.

In evaluation without gradients `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` take a fast
path through fused kernels, which makes masked tokens zero where their own operations do not; and
fused scaled dot-product attention has a first derivative, but no second one.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def slow_path() -> Iterator[None]:
    """A context without the fast path: for passes that are to be of the function that is
    differentiated elsewhere.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def step_by_step() -> Iterator[None]:
    """A context with neither: attention's products and softmax are operations of their own, which
    can be differentiated twice, and for many samples at once.
    """
    with slow_path(), sdpa_kernel(SDPBackend.MATH):
        yield
