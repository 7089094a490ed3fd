from __future__ import annotations

import pandas as pd
import pytest

from spatialsig.io._panels import compare_panels, difference, genes_of, panel_hash


def panel(genes: str, **ids: str) -> pd.DataFrame:
    return pd.DataFrame({"gene_ids": [ids.get(gene, f"ENSG_{gene}") for gene in genes]}, index=list(genes))


@pytest.fixture
def panels() -> dict[str, pd.DataFrame]:
    return {"S1": panel("ABCD"), "S2": panel("DCBA"), "S3": panel("BCDEF", C="other")}


def test_panels_are_compared_as_sets(panels) -> None:
    table = compare_panels(panels)
    assert table["n_genes"].tolist() == [4, 4, 5]
    assert table["n_shared"].tolist() == [3, 3, 3]  # B, C, D
    assert table["n_missing"].tolist() == [2, 2, 1]  # of A to F
    assert table["n_other_ids"].tolist() == [0, 0, 1]
    assert (table["panel"] == table["panel"].iloc[0]).tolist() == [True, True, False]


def test_a_panel_is_named_by_its_genes_not_by_their_order() -> None:
    assert panel_hash({"A", "B"}) == panel_hash({"B", "A"}) != panel_hash({"A", "C"})


def test_genes_keep_the_order_of_the_slides(panels) -> None:
    assert genes_of(panels, how="intersection") == list("BCD")
    assert genes_of(panels, how="union") == list("ABCDEF")
    assert genes_of({"S2": panels["S2"], "S3": panels["S3"]}, how="intersection") == list("DCB")


def test_what_sets_slides_apart_is_said_and_nothing_where_nothing_does(panels) -> None:
    text = difference(compare_panels(panels))
    assert text is not None
    assert "the slides measure different genes (S1, S2: 4; S3: 5; 3 in all of them)" in text
    assert "other gene ids on ['S3'] than on 'S1'" in text
    assert difference(compare_panels({"S1": panels["S1"], "S2": panels["S2"]})) is None
