"""Which networks have logits that are piecewise affine in each single parameter.

Their logits' second derivatives have a zero diagonal almost everywhere, so that the Hessian of the
loss has the diagonal, and the trace, of its Gauss-Newton part (`gauss_newton`).
"""

from torch import Tensor
from torch.func import functional_call

from lossgeo.objective import Objective, leaves_of

# Operations of autograd, without the "Backward0" of their names. The derivatives of those in
# SELECTING are piecewise constant; those in MULTIPLYING are affine in each of two factors, which
# are at these positions among what autograd differentiates them by.
SELECTING = frozenset(
    [
        "Abs",
        "AdaptiveAvgPool2D",
        "AdaptiveMaxPool2D",
        "Add",
        "Alias",
        "Amax",
        "Amin",
        "AsStrided",
        "AvgPool2D",
        "AvgPool3D",
        "Cat",
        "Clamp",
        "Clone",
        "ConstantPadNd",
        "Cumsum",
        "Expand",
        "Flip",
        "Gather",
        "Hardtanh",
        "Index",
        "IndexSelect",
        "LeakyRelu",
        "Max",
        "MaskedFill",
        "MaxPool2DWithIndices",
        "MaxPool3DWithIndices",
        "Maximum",
        "Mean",
        "Minimum",
        "Neg",
        "Permute",
        "ReflectionPad2D",
        "Relu",
        "Repeat",
        "ReplicationPad2D",
        "ReshapeAlias",
        "Roll",
        "Rsub",
        "Select",
        "Slice",
        "Split",
        "Squeeze",
        "Stack",
        "Sub",
        "Sum",
        "T",
        "Threshold",
        "ToCopy",
        "Transpose",
        "Unbind",
        "Unfold",
        "UnsafeView",
        "Unsqueeze",
        "UpsampleNearest2D",
        "View",
        "Where",
    ]
)
MULTIPLYING = {
    "Addmm": (1, 2),
    "Baddbmm": (1, 2),
    "Bmm": (0, 1),
    "Convolution": (0, 1),
    "Div": (0, 1),
    "Dot": (0, 1),
    "Linear": (0, 1),
    "Mm": (0, 1),
    "Mul": (0, 1),
    "Mv": (0, 1),
    "NativeBatchNorm": (0, 1),  # by running statistics: those of a batch are no constants
    "PreluKernel": (0, 1),
}


def is_piecewise_affine(objective: Objective, theta: Tensor) -> bool:
    """Whether the logits are piecewise affine in each parameter alone, so that tr H = tr G.

    Then the logits' second derivatives have a zero diagonal almost everywhere, and H and G the same
    one. So it is for linear and convolution layers, ReLU and its kin, max- and average-pooling,
    sums of branches, and batch normalisation by running statistics that are constants; not for tied
    weights, other normalisation, attention or smooth activations. It is read off the operations
    that autograd records for two samples: additions and selections keep the property, products do
    where their factors depend on different parameters, and whatever is not known does not.
    """
    leaves = leaves_of(objective, theta)
    inputs = objective.blocks[0][0][:2]
    logits = functional_call(objective.model, leaves, (inputs,))
    return logits.grad_fn is None or _dependencies(logits.grad_fn) is not None


def _dependencies(output) -> frozenset | None:
    """The leaves that a node of autograd's graph depends on; None where not piecewise affine."""
    found: dict = {}
    waiting = [output]
    while waiting:
        node = waiting[-1]
        sources = [source for source, _ in node.next_functions]
        missing = [source for source in sources if source is not None and source not in found]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if node in found:
            continue
        found[node] = _joint_dependencies(node, [found.get(source) for source in sources])
        if found[node] is None:
            return None
    return found[output]


def _joint_dependencies(node, sources: list[frozenset | None]) -> frozenset | None:
    """The leaves that a node depends on, given those of its sources (None: a constant)."""
    name = type(node).__name__
    if name == "AccumulateGrad":
        return frozenset([node.variable])
    together = frozenset().union(*(source for source in sources if source))
    kind = name.removesuffix("0").removesuffix("1").removesuffix("Backward")
    if not together or kind in SELECTING:
        return together
    if kind not in MULTIPLYING or getattr(node, "_saved_training", False):
        return None
    first, second = (
        sources[position] if position < len(sources) else None for position in MULTIPLYING[kind]
    )
    if second and (kind == "Div" or (first and first & second)):
        return None
    return together
