"""What a study says of claims: a verdict per endpoint, per arm and per claim.

Verdicts are computed from intervals and smallest effects by the rules of `verdict_of_endpoint`,
`verdict_of_arm` and `verdict_of_claim`; nothing here is typed in by hand.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lossgeo.claims import LOGARITHMIC, Found, Tables, evaluate, natural, reference
from lossgeo.registry import ARMS
from lossgeo.statistics import holm

ALPHA = 0.05  # of the two one-sided tests, and of tests over models
FEWEST = 3  # independent values that a verdict takes

ENDPOINTS = (
    "claim",
    "arm",
    "part",
    "contrast",
    "quantity",
    "estimate",
    "low",
    "high",
    "interval",
    "n",
    "unit",
    "reference",
    "side",
    "smallest_effect",
    "p",
    "p_floor",
    "p_equivalent",
    "scaled",
    "scaled_low",
    "scaled_high",
    "verdict",
    "remark",
)


def judge(tables: Tables, registry: Mapping) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of the endpoints, and of the claims, of a registry."""
    rows, claims = [], []
    for name, claim in registry["claims"].items():
        found = {
            arm: [_row(name, arm, endpoint, registry, tables) for endpoint in claim.get(arm, [])]
            for arm in ARMS
        }
        rows += [row for of_arm in found.values() for row in of_arm]
        claims.append(_of_claim(name, claim, found))
    verdicts = pd.DataFrame(claims)
    verdicts["p_holm"] = holm(verdicts["p"].to_numpy())
    return pd.DataFrame(rows, columns=ENDPOINTS), verdicts


def verdict_of_endpoint(found: Found, side: str) -> str:
    """What an effect says of a claim that it lies on one `side`, by its interval.

    - above, below: `reproduced` if the interval lies beyond the smallest effect on the claimed
      side, `contradicted` beyond it on the other, `no effect` if two one-sided tests put the effect
      inside +-smallest;
    - within: `reproduced` if these tests do, `contradicted` if the interval lies outside;
    - range: `reproduced` if the range of the values has what was claimed, else `contradicted`.

    Everything else is `inconclusive`, and so is what has fewer than three values (a share is judged
    by its exact interval whatever their number), and what compares models at p > 0.05, as intervals
    over seeds know nothing of the choice of models; `circular` is what the design has set for all
    seeds of a model.
    """
    effect = found.effect
    if found.circular:
        return "circular"
    if found.unit == "models" and not effect.p <= ALPHA:
        return "inconclusive"
    few = effect.n < FEWEST and effect.interval != "exact binomial"
    if few or not np.isfinite([effect.low, effect.high]).all():
        return "inconclusive"
    if side == "range":
        return "reproduced" if effect.low <= 0 <= effect.high else "contradicted"
    inside = effect.p_equivalent < ALPHA
    low, high = (effect.low, effect.high) if side != "below" else (-effect.high, -effect.low)
    if side == "within":
        if inside:
            return "reproduced"
        outside = low > found.smallest or high < -found.smallest
        return "contradicted" if outside else "inconclusive"
    if low > found.smallest:
        return "reproduced"
    if high < -found.smallest:
        return "contradicted"
    return "no effect" if inside else "inconclusive"


def verdict_of_arm(verdicts: Sequence[str], needs: str = "all") -> str | None:
    """What the endpoints of an arm say together; None without any.

    A claim that needs `all` is reproduced if all of them are; otherwise the first of circular,
    contradicted, no effect and inconclusive that there is. One that needs `any` is reproduced if
    one is; contradicted, or no effect, if all are that or contradicted.
    """
    found = set(verdicts)
    if not found:
        return None
    if needs == "any":
        if "reproduced" in found:
            return "reproduced"
        for verdict in ("circular", "contradicted"):
            if found == {verdict}:
                return verdict
        return "no effect" if found <= {"contradicted", "no effect"} else "inconclusive"
    return next(v for v in (*ORDER, "reproduced") if v in found)


ORDER = ("circular", "contradicted", "no effect", "inconclusive")  # the first one decides


def verdict_of_claim(published: str | None, corrected: str | None, controls: str | None) -> str:
    """What the arms say together.

    Corrected and controls decide, as endpoints that are all needed do. But a claim that is
    reproduced as published while they say `contradicted` or `no effect` is an `artefact`, and one
    that is circular as published while they are inconclusive stays `circular`.
    """
    decided = verdict_of_arm([arm for arm in (corrected, controls) if arm]) or "inconclusive"
    if published == "reproduced" and decided in ("contradicted", "no effect"):
        return "artefact"
    if published == "circular" and decided == "inconclusive":
        return "circular"
    return decided


def _row(name: str, arm: str, endpoint: Mapping, registry: Mapping, tables: Tables) -> dict:
    side = "range" if endpoint["contrast"] == "range" else endpoint.get("side", "above")
    found = evaluate(endpoint, registry, tables, f"{name}/{arm}/{endpoint['part']}")
    effect = found.effect
    # in smallest effects towards the claimed side; shares in the distance from theirs to all
    unit = found.smallest or 1 - endpoint.get("share", 0.0)
    scaled = np.array([effect.estimate, effect.low, effect.high]) / unit
    if side == "below":
        scaled = -scaled[[0, 2, 1]]
    at_zero = reference(endpoint)
    return {
        "claim": name,
        "arm": arm,
        "part": endpoint["part"],
        "contrast": endpoint["contrast"],
        "quantity": endpoint["quantity"],
        "estimate": natural(endpoint, effect.estimate),
        "low": natural(endpoint, effect.low),
        "high": natural(endpoint, effect.high),
        "interval": effect.interval,
        "n": effect.n,
        "unit": found.unit,
        "reference": at_zero,
        "side": side,
        "smallest_effect": math.exp(found.smallest)
        if endpoint["contrast"] in LOGARITHMIC
        else found.smallest,
        "p": effect.p,
        "p_floor": effect.p_floor,
        "p_equivalent": effect.p_equivalent,
        "scaled": scaled[0],
        "scaled_low": scaled[1],
        "scaled_high": scaled[2],
        "verdict": verdict_of_endpoint(found, side),
        "remark": "; ".join(filter(None, (found.remark, _few(found)))) or None,
    }


def _few(found: Found) -> str:
    """Whether there are too few values for a verdict."""
    if found.effect.interval == "none":
        return ""  # no data, which is said
    if found.unit == "models" and not found.effect.p <= ALPHA:
        return f"p = {found.effect.p:.2g} over {found.effect.n} models"
    few = found.effect.n < FEWEST and found.effect.interval != "exact binomial"
    return f"fewer than {FEWEST} values" if few else ""


def _of_claim(name: str, claim: Mapping, found: Mapping[str, Sequence[Mapping]]) -> dict:
    needs = claim.get("needs", "all")
    arms = {
        arm: verdict_of_arm([row["verdict"] for row in rows], needs) for arm, rows in found.items()
    }
    remarks = [
        f"{row['part']}: {row['remark']}"
        for rows in found.values()
        for row in rows
        if row["remark"]
    ]
    return {
        "claim": name,
        "section": claim["section"],
        "statement": claim["statement"],
        **arms,
        "verdict": verdict_of_claim(**arms),
        **_p_of_arm(found["corrected"], needs),
        "remark": "; ".join(dict.fromkeys(remarks)) or None,
    }


def _p_of_arm(rows: Sequence[Mapping], needs: str) -> dict:
    """n and p of endpoints together: the largest p where all are needed; else Bonferroni's.

    p is of no effect; where that is what is claimed (side within), of an effect that counts.
    """
    n = min((row["n"] for row in rows), default=0)
    within = [row["side"] == "within" for row in rows]
    p = np.where(within, [r["p_equivalent"] for r in rows], [r["p"] for r in rows])
    floors = np.where(within, 0.0, [r["p_floor"] for r in rows])
    if not len(p) or not np.isfinite(p).all():
        return {"n": n, "p": np.nan, "p_floor": np.nan}
    if needs == "all":
        return {"n": n, "p": p.max(), "p_floor": floors.max()}
    return {"n": n, "p": min(p.min() * len(p), 1.0), "p_floor": min(floors.min() * len(p), 1.0)}
