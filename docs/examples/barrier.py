# %% [markdown]
# # A barrier, and what is left of it
#
# Two networks that differ in nothing but their initialisation. On the straight line between them
# the loss is higher than at both ends: a barrier. Part of it is there because hidden units have no
# order: with the second network's units permuted to match the first's, which leaves its function as
# it is, the barrier is lower.

# %%
import torch
from torch import nn

import lossgeo
from networks import CLASSES, striped_images, train

images, classes = striped_images(200, seed=0)


def trained(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 16, 5, stride=2), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    train(model, images, classes, steps=60, lr=0.003)
    return model


net = lossgeo.Objective(trained(0), images, classes)
other = trained(1)
naive = net.barrier(other)
aligned = net.barrier(other, aligned=True)
print(naive)
print(aligned)

# %%
ax = naive.plot()
aligned.plot(ax=ax)
