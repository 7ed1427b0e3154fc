"""Functions that return no data that a study could use."""

import numpy as np

INPUTS, TARGETS = np.zeros((4, 3), np.float32), np.array([0, 1, 0, 1])


def raises():
    raise KeyError("no such table")


def three():
    return INPUTS, TARGETS, INPUTS


def a_dict():
    return {"inputs": INPUTS}


def lists():
    return INPUTS, TARGETS.tolist(), INPUTS, TARGETS


def drawn():
    inputs = np.random.default_rng().normal(size=INPUTS.shape)
    return inputs, TARGETS, INPUTS.astype(float), TARGETS


def infinite():
    test = INPUTS.copy()
    test[1, 2] = np.inf
    return INPUTS, TARGETS, test, TARGETS
