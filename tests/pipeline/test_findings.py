import pandas as pd
import pytest

from spatialsig.pipeline.findings import findings

GOOD = {
    "he_only": 0.7, "fused": 0.9, "fused_permuted": 0.6, "ae_only": 0.8, "colour": 0.4, "density": 0.2,
    "coordinates": 0.01, "he_only_permuted": 0.0,
}  # fmt: skip


def evaluation(**changes: float) -> pd.DataFrame:
    rows = [
        {"method": m, "pearson": r, "ceiling": 0.95, "patient": patient}
        for m, r in (GOOD | changes).items()
        for patient in ("P1", "P2", "P3")
    ]
    return pd.DataFrame(rows)


def test_a_clean_result_warns_of_nothing() -> None:
    assert findings(evaluation()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coordinates": 0.06}, "Coordinates alone reach r = 0.060"),
        ({"coordinates": -0.06}, "Coordinates alone reach r = -0.060"),
        ({"density": 0.7}, "Nuclear density alone"),
        ({"colour": 0.75}, "Colour alone"),
        ({"ae_only": 0.94}, "it holds the answer"),
        ({"fused_permuted": 0.89}, "Shuffling the images hardly changes the fused model"),
    ],
)
def test_each_doubt_is_put_into_words(changes: dict[str, float], words: str) -> None:
    (found,) = findings(evaluation(**changes))
    assert words in found


def test_few_patients_are_said() -> None:
    one = evaluation()
    (found,) = findings(one[one["patient"] == "P1"])
    assert found.startswith("Judged on 1 held-out patient:")
