"""Networks that are a chain of layers, and the hidden units between two consecutive ones."""

from dataclasses import dataclass

from torch import nn

from lossgeo.models import MaxPool
from lossgeo.parameters import trained
from lossgeo.span import ELEMENTWISE

POOLING = (MaxPool, nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Link:
    """Two consecutive layers with parameters of an `nn.Sequential`, and the hidden units between.

    A unit is a row (output channel) of the first layer's weight and an entry of its bias; the
    second layer reads it from `block` consecutive columns (from an input channel): more than one
    where a flatten strings up the pixels of each channel.
    """

    first: str  # name of the layer whose outputs the units are
    second: str  # name of the layer that reads them
    units: int
    block: int
    between: tuple[type[nn.Module], ...]  # types of the layers without parameters between the two


def find_chain(model: nn.Module) -> list[Link] | None:
    """The links of a network that is a chain, first to last, or None for any other.

    A chain is an `nn.Sequential` of `nn.Linear`, `nn.Conv2d` without groups, max- and
    average-pooling, `nn.Flatten` of all but the samples, and elementwise layers, in an order in
    which every layer reads what the one before it gives; no parameters are shared or frozen and no
    layer has hooks. Permuting or rescaling the units of a link concerns its two layers alone.
    """
    if type(model) is not nn.Sequential or any(
        m._forward_hooks or m._forward_pre_hooks for m in model.modules()
    ):
        return None
    if len(list(model.named_parameters(remove_duplicate=False))) != len(trained(model)):
        return None
    links, between = [], []
    last: tuple[str, nn.Module] | None = None
    flat = False  # whether activations are (n, features), not (n, channels, height, width)
    for name, layer in model._modules.items():  # named_children() leaves out what comes twice
        if type(layer) in (nn.Linear, nn.Conv2d):
            if isinstance(layer, nn.Linear) != flat or getattr(layer, "groups", 1) != 1:
                return None
            if last is not None:
                units, columns = last[1].weight.shape[0], layer.weight.shape[1]
                if columns % units:
                    return None
                links.append(Link(last[0], name, units, columns // units, tuple(between)))
            last, between = (name, layer), []
            continue
        if type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
            flat = True
        elif not (type(layer) in ELEMENTWISE or (type(layer) in POOLING and not flat)):
            return None
        between.append(type(layer))
    return links
