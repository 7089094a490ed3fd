"""A scaler is known by its hash, and two of them are told apart in words."""

import numpy as np
import pytest

from spatialsig.stats.scaler import scaler_differences, scaler_hash

GENES = ["A", "B", "C"]
MEAN, STD = np.array([0.1, 0.2, 0.3]), np.array([1.0, 2.0, 3.0])


def record(genes: list[str], mean: np.ndarray, std: np.ndarray) -> dict:
    return {"genes": genes, "mean": mean, "std": std}


def test_hash_sees_names_order_and_the_last_bit() -> None:
    same = scaler_hash(GENES, MEAN, STD)
    assert same == scaler_hash(tuple(GENES), MEAN.copy(), STD.copy())
    others = [
        scaler_hash(["A", "B", "D"], MEAN, STD),
        scaler_hash(["B", "A", "C"], MEAN, STD),
        scaler_hash(["A", 'B", "C'], MEAN, STD),
        scaler_hash(GENES, np.nextafter(MEAN, 1), STD),
        scaler_hash(GENES, STD, MEAN),
    ]
    assert len({same, *others}) == 6


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (record(GENES, MEAN, STD), []),
        (record(["A", "B", "D"], MEAN, STD), ["1 genes only in the first (C)", "1 genes only in the second (D)"]),
        (record(["B", "A", "C"], MEAN[[1, 0, 2]], STD[[1, 0, 2]]), ["the order of the genes"]),
        (record(GENES, MEAN + np.array([0, 0.5, 0.1]), STD), ["`mean` of 2 genes (most in B: 0.2 and 0.7)"]),
        (record(["D"], MEAN[:1], STD[:1]), ["3 genes only in the first (A, B, C)", "1 genes only in the second (D)"]),
    ],
)
def test_differences_in_words(other: dict, said: list[str]) -> None:
    assert scaler_differences(record(GENES, MEAN, STD), other) == said
