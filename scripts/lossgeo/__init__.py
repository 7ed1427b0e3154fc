"""The geometry of neural-network loss landscapes, measured so that the numbers can be trusted.

    net = lossgeo.Objective(model, inputs, targets)
    print(net.spectrum(), net.trace(), net.sharpness())
    net.plane().plot()

What is public is imported when it is asked for: the workflow imports this package without torch.
"""

import importlib

_MODULES = {"Objective": "face", "__version__": "version"}

__all__ = ["Objective", "__version__"]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'lossgeo' has no attribute {name!r}")
    return getattr(importlib.import_module(f"lossgeo.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
