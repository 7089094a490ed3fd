"""What the numbers of an evaluation warn of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LEAK = 0.05  # |r| of coordinates alone above which the split leaks
AE_LEAK = 0.95  # share of the ceiling above which the embedding must hold the answer
IMAGE_IGNORED = 0.02  # smallest loss of the fused model when images are shuffled


def mean_by_method(evaluation: pd.DataFrame) -> pd.Series:
    """Mean Pearson r of every method over signatures and slides; NaN cells are left out."""
    return evaluation.groupby("method")["pearson"].mean()


def findings(evaluation: pd.DataFrame) -> list[str]:
    """Reasons to doubt an evaluation, in words; empty when there are none."""
    r = mean_by_method(evaluation)
    ceiling = evaluation.loc[evaluation["method"] == "he_only", "ceiling"].mean()
    found = []
    if abs(r["coordinates"]) > LEAK:
        found.append(
            f"Coordinates alone reach r = {r['coordinates']:.3f} (|r| above {LEAK}): position helps, so either the "
            "split leaks or the slides share a layout."
        )
    if r["density"] >= r["he_only"]:
        found.append(
            f"Nuclear density alone (r = {r['density']:.3f}) does as well as the H&E model (r = {r['he_only']:.3f})."
        )
    if r["colour"] >= r["he_only"]:
        found.append(f"Colour alone (r = {r['colour']:.3f}) does as well as the H&E model (r = {r['he_only']:.3f}).")
    if "ae_only" in r and r["ae_only"] > AE_LEAK * ceiling:
        found.append(
            f"The expression embedding alone reaches {r['ae_only'] / ceiling:.0%} of the ceiling: it holds the answer."
        )
    if "fused" in r and r["fused"] - r["fused_permuted"] < IMAGE_IGNORED:
        found.append("Shuffling the images hardly changes the fused model: it ignores them.")
    n_patients = evaluation["patient"].nunique()
    if n_patients < 3:
        found.append(
            f"Judged on {n_patients} held-out patient{'s' if n_patients > 1 else ''}: the spread between patients is "
            "not known."
        )
    return found
