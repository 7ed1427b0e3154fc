"""One Hessian-vector product against those of hessian-eigenthings, PyHessian and landscaper."""

from functools import partial

import torch
from hessian_eigenthings import HessianOperator
from landscaper.hessian import PyHessian as LandscaperHessian
from pyhessian import hessian
from torch import nn

from harness import CLASSES, SHAPE, SPECS, compare, mnist, trained, usual_loader, usual_model, write
from lossgeo.hessian import hessian_operator
from lossgeo.models import build
from lossgeo.numerics import make_deterministic
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten, unflatten


def batch_loss(model: nn.Module, batch: tuple) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def main() -> None:
    train = mnist()
    rows = []
    for name, samples in (("MLP-128", 2000), ("CNN-16", 1000), ("CNN-64", 400)):
        spec = SPECS[name]
        model = trained(spec, *(part[: 12800 if "CNN" in name else 60000] for part in train))
        x, y = (part[:samples] for part in train)
        batches = list(zip(x.split(100), y.split(100), strict=True))
        theta = flatten(model)
        objective = make_objective(build(spec, SHAPE, CLASSES), x, y)
        ours = hessian_operator(objective, theta)
        usual = usual_model(spec, model.state_dict())
        v = torch.randn(len(theta), generator=torch.Generator().manual_seed(0))
        parts = list(unflatten(v, objective.layout).values())
        loader = usual_loader(samples, shuffle=False)
        listed = HessianOperator(usual, batches, batch_loss)
        loaded = HessianOperator(usual, loader, batch_loss)
        cached = LandscaperHessian(
            usual, nn.functional.cross_entropy, batches, "cpu", try_cache=True
        )
        whole = hessian(usual, nn.functional.cross_entropy, dataloader=batches, cuda=False)
        reference = listed.matvec(v)
        agreement = float((ours.matvec(v) - reference).norm() / reference.norm())
        for peer, product in (
            ("HessianOperator, DataLoader of 128, ToTensor, Normalize", partial(loaded.matvec, v)),
            ("HessianOperator, list of batches of 100", partial(listed.matvec, v)),
            ("PyHessian, list of batches of 100", partial(whole.dataloader_hv_product, parts)),
            ("landscaper, cached batches of 100", partial(cached.hv_product, parts)),
        ):
            rows.append(
                compare(
                    f"Hessian-vector product, {name}",
                    peer,
                    partial(ours.matvec, v),
                    product,
                    samples=samples,
                    agreement=agreement,
                )
            )
    write("products", rows)


if __name__ == "__main__":
    make_deterministic(1)
    main()
