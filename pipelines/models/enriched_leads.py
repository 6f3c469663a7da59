"""Score each lead from 0 to 100 by recency, frequency, stage and amount, and grade it A to D."""

import numpy as np
import pandas as pd

INPUTS = {"signals": "marts.lead_signals"}

WEIGHTS = {"recency": 0.30, "frequency": 0.25, "stage": 0.30, "amount": 0.15}
HALF_LIFE_DAYS = 30
MANY_ACTIVITIES = 12
LARGE_AMOUNT = 100_000


def build(signals: pd.DataFrame) -> pd.DataFrame:
    """Add a part per signal (0 to 1), their weighted sum as `lead_score` and its `lead_grade`."""
    leads = signals.copy()
    leads["recency"] = (0.5 ** (leads["days_since_activity"].astype(float) / HALF_LIFE_DAYS)).fillna(0.0)
    leads["frequency"] = (leads["activities_90d"].astype(float) / MANY_ACTIVITIES).clip(upper=1.0)
    leads["stage"] = leads["best_stage"].astype(float).fillna(0.0)
    amounts = leads["largest_amount"].astype(float).fillna(0.0).clip(lower=0.0)
    leads["amount"] = (np.log1p(amounts) / np.log1p(LARGE_AMOUNT)).clip(upper=1.0)
    weighted = leads[list(WEIGHTS)] * pd.Series(WEIGHTS)
    leads["lead_score"] = (weighted.sum(axis="columns") * 100).round().astype("int64")
    leads["lead_grade"] = pd.cut(
        leads["lead_score"], bins=[-1, 24, 49, 74, 100], labels=["D", "C", "B", "A"]
    ).astype(str)
    return leads.drop(columns=["best_stage"]).sort_values("email_key", ignore_index=True)
