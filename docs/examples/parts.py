# %% [markdown]
# # Where a transformer is sharp
#
# A small vision transformer on the images of the other examples. It is not piecewise affine, so
# that its trace has two errors: of the samples, and of the random probes that estimate what the
# Hessian has beyond its Gauss-Newton part.

# %%
import torch

import lossgeo
from networks import VisionTransformer, striped_images, train

torch.manual_seed(0)
images, classes = striped_images(200, seed=0)
model = VisionTransformer()
train(model, images, classes, steps=30, lr=0.003)

trace = lossgeo.Objective(model, images, classes).trace()
print(trace)

# %% [markdown]
# That part is known tensor by tensor.

# %%
trace.plot()

# %% [markdown]
# An objective can also be a function of some of the parameters, the others being constants. By how
# much does the loss rise at most when a part of the network moves by 0.1?

# %%
for part in ("patches.*", "blocks.0.*", "blocks.1.*", "head.*"):
    net = lossgeo.Objective(model, images, classes, parameters=part)
    print(f"{part} ({net.parameters:,} parameters)", net.sharpness(0.1), sep="\n")
