# %% [markdown]
# # Where a transformer is sharp
#
# A small vision transformer on the images of the other examples. The trace of the Hessian is a sum
# over parameters, so that it says which part of the network the loss bends along.

# %%
import torch

import lossgeo
from networks import VisionTransformer, striped_images, train

torch.manual_seed(0)
images, classes = striped_images(200, seed=0)
model = VisionTransformer()
train(model, images, classes, steps=30, lr=0.003)

net = lossgeo.Objective(model, images, classes)
trace = net.trace()
print(net.loss())
print(trace)

# %% [markdown]
# A transformer is not piecewise affine, so that its trace has two errors: of the samples, and of
# the random probes that estimate what the Hessian has beyond its Gauss-Newton part. That part is
# exact, tensor by tensor.

# %%
trace.plot()
