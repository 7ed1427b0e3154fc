"""Networks with attention: surfaces, products and traces are all of one function."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from lossgeo.attention import step_by_step
from lossgeo.gauss_newton import sample_traces
from lossgeo.hessian import hessian_operator, sample_forms
from lossgeo.objective import make_objective, sample_logits
from lossgeo.parameters import flatten, layout_of, unflatten
from lossgeo.surface import second_difference
from lossgeo.trace import of_samples
from lossgeo.trial import try_model

from .conftest import plain_loss

TOKENS, FEATURES, CLASSES, SAMPLES = 5, 4, 3, 9


class Encoder(nn.Module):
    """Torch's own encoder of as many tokens as an input says.

    In evaluation without gradients torch's fast path makes the others zero, and the mean another.
    """

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(FEATURES, 2, 6, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1)
        self.output = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):  # (n, 1, tokens, features)
        x = x.squeeze(1)
        left_out = torch.arange(TOKENS) > (x[..., 0] > 0).sum(1, keepdim=True)
        return self.output(self.layers(x, src_key_padding_mask=left_out).mean(1))


class Fused(nn.Module):
    """One block of a vision transformer, on torch's fused attention."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(FEATURES)
        self.projections = nn.Linear(FEATURES, 3 * FEATURES)
        self.output = nn.Linear(FEATURES, CLASSES)

    def forward(self, x):
        x = x.squeeze(1)
        parts = self.projections(self.norm(x)).view(len(x), TOKENS, 3, 2, FEATURES // 2)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.output((x + attended.transpose(1, 2).flatten(2)).mean(1))


@pytest.fixture(params=[Encoder, Fused])
def setting(request):
    """A model, its objective in float64 and theta."""
    torch.manual_seed(0)
    model = request.param().double().eval()
    inputs = torch.randn(SAMPLES, 1, TOKENS, FEATURES, dtype=torch.float64)
    targets = torch.arange(SAMPLES) % CLASSES
    objective = make_objective(copy.deepcopy(model), inputs, targets, dtype=torch.float64, block=4)
    return model, inputs, targets, objective, flatten(model)


@pytest.mark.kernels
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_surface_is_of_the_function_that_is_differentiated(setting):
    model, inputs, _, objective, theta = setting
    with torch.no_grad():
        fast = model(inputs)
    slow = model(inputs).detach()
    torch.testing.assert_close(sample_logits(objective, theta).T, slow, rtol=1e-12, atol=1e-12)
    if isinstance(model, Encoder):
        assert (fast - slow).abs().max() > 0.01


def test_curvature_is_that_of_the_dense_hessian(setting):
    model, inputs, targets, objective, theta = setting
    with step_by_step():
        loss = plain_loss(model, inputs, targets)
        # torch.func's is not symmetric here: its second derivative of layer norms is wrong
        exact = torch.autograd.functional.hessian(loss, theta)
    d = torch.randn(len(theta), dtype=torch.float64)
    product = hessian_operator(objective, theta) @ d
    torch.testing.assert_close(product, exact @ d, rtol=1e-9, atol=1e-11)
    forms = sample_forms(objective, theta, d.unsqueeze(0)).mean()
    torch.testing.assert_close(forms, d @ exact @ d, rtol=1e-9, atol=1e-11)
    difference = second_difference(objective, theta, d, 1e-4)
    assert difference == pytest.approx(float(d @ exact @ d), rel=1e-5)


def test_the_gauss_newton_trace_is_that_of_the_dense_matrix(setting):
    model, inputs, _, objective, theta = setting

    def logits(theta, x):
        return functional_call(model, unflatten(theta, layout_of(model)), (x[None],))[0]

    with step_by_step():
        jacobians = torch.stack([jacrev(logits)(theta, x) for x in inputs]).detach()
        p = model(inputs).detach().softmax(1)
    bent = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    exact = torch.einsum("nkp,nkl,nlp->n", jacobians, bent, jacobians)
    found = of_samples(sample_traces(objective, theta))
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-11)


def make(input_shape, classes, kind):
    return {"Encoder": Encoder, "Fused": Fused}[kind]()


@pytest.mark.parametrize("kind", ["Encoder", "Fused"])
def test_models_with_attention_pass_the_trial(kind):
    """Which takes gradients of gradients of their loss, before any job starts."""
    spec = {"factory": f"{__name__}:make", "arguments": {"kind": kind}}
    try_model(spec, (1, TOKENS, FEATURES), CLASSES)
