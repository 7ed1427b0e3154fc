"""What features of some models say of a model that was left out."""

import numpy as np


def leave_one_out_gain(
    target: np.ndarray, base: np.ndarray, further: np.ndarray, groups: np.ndarray
) -> float:
    """1 - e(base and further) / e(base): by how much further features lower the error.

    target (n,), features (n, b) and (n, f), groups (n,) of rows that are left out together. e is
    the root mean square error of least squares with an intercept, fitted on all groups but one and
    asked for that one, over all groups. 0: no better; negative: worse than without them. NaN for
    fewer than two groups to fit.
    """
    both = np.concatenate([base, further], 1)
    without, with_them = (_error(target, features, groups) for features in (base, both))
    return float(1 - with_them / without) if without > 0 else np.nan


def _error(target: np.ndarray, features: np.ndarray, groups: np.ndarray) -> float:
    squares = []
    for group in np.unique(groups):
        out = groups == group
        if len(np.unique(groups[~out])) < 2:
            return np.nan
        centre, scale = features[~out].mean(0), features[~out].std(0)
        scaled = (features - centre) / np.where(scale > 0, scale, 1.0)
        design = np.column_stack([np.ones(len(target)), scaled])
        fitted, *_ = np.linalg.lstsq(design[~out], target[~out], rcond=1e-8)
        squares.append((target[out] - design[out] @ fitted) ** 2)
    return float(np.sqrt(np.concatenate(squares).mean()))
