# %% [markdown]
# # A plane and a spectrum
#
# A residual network with group normalisation learns to tell the angle of stripes in small RGB
# images (the networks of these examples are in [networks.py](networks.py)).

# %%
import torch

import lossgeo
from networks import resnet, striped_images, train

torch.manual_seed(0)
images, classes = striped_images(200, seed=0)
model = resnet()
train(model, images, classes, steps=80)

net = lossgeo.Objective(model, images, classes)
print(net)
print(net.loss())

# %% [markdown]
# The Hessian's largest eigenvalues, its smallest, and its spectral density, from one run of
# Lanczos. Each eigenvalue has its standard error over the samples.

# %%
spectrum = net.spectrum()
print(spectrum)

# %% [markdown]
# Two planes through the same point: along two random directions, filter by filter as long as the
# network's own, and along the two top eigenvectors, each in units of where the quadratic has risen
# by 0.1. Few points are evaluated, the rest is predicted; the printed line says how well.

# %%
random, along = net.plane(), net.plane(spectrum)
print(random)
print(along)

# %%
from matplotlib import pyplot

figure, axes = pyplot.subplots(1, 3, figsize=(10, 2.9), layout="constrained")
for result, ax in zip((random, along, spectrum), axes, strict=True):
    result.plot(ax=ax)

# %% [markdown]
# `random.to_xarray()` has all arrays with names and units, and `random.to_vtk("plane.vts")` is a
# surface for ParaView.

# %%
print(random.to_xarray().loss.attrs, dict(random.to_xarray().sizes))
