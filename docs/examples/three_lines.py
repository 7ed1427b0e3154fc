# %%
import torch

from networks import resnet, striped_images, train

torch.manual_seed(0)
images, classes = striped_images(200, seed=0)
model, other = resnet(), resnet()
train(model, images, classes, steps=80)
train(other, images, classes, steps=80)

# %%
import lossgeo

net = lossgeo.Objective(model, images, classes)
print(net.spectrum(), net.trace(), net.sharpness(), net.barrier(other), sep="\n")
net.plane().plot()
