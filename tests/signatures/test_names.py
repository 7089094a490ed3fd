"""Names of genes that are those of another kind are said, with the fix; what is right is left alone."""

import numpy as np
import pandas as pd
import pytest
import spatialdata as sd

import spatialsig as sp
from spatialsig.errors import InputError, KeyMissingError, SpatialsigWarning
from spatialsig.signatures import describe_names, in_panel_names, read_signatures

GENES = ["CD3D", "CD3E", "MS4A1", "CXCL8"]
IDS = [f"ENSG0000000000{i}" for i in range(4)]


def var(names: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=names)


@pytest.mark.parametrize(
    ("wanted", "panel", "message"),
    [
        (GENES, var(GENES), ""),
        (GENES, var(["ABC1", "XYZ2"]), ""),
        (GENES, var(IDS), "`var_names` are Ensembl ids, and no column of `var` holds symbols"),
        (
            GENES,
            var(IDS, gene_symbols=GENES),
            r"4 of the missing genes stand in var\['gene_symbols'\]: pass `gene_symbols=",
        ),
        (IDS, var(GENES, gene_ids=IDS), "pass `gene_symbols='gene_ids'`"),
        (GENES, var(["Cd3d", "Cd3e", "Ms4a1"]), r"Names differ in case \(CD3D is Cd3d there, .*of mouse genes"),
        (
            IDS,
            var([f"{name}.5" for name in IDS]),
            r"carry versions on the panel \(ENSG00000000000 is ENSG00000000000.5 there",
        ),
        ([f"{name}.5" for name in IDS], var(IDS), "carry versions in the signature"),
        (["CXCL8", "CAVIN2"], var(["IL8", "SDPR"]), r"other names .*\(CAVIN2 is SDPR there, CXCL8 is IL8 there\)"),
        (["SDPR"], var(["CAVIN2"]), "SDPR is CAVIN2 there"),
        (["MARCH1", "SEPTIN9"], var(["MARCHF1", "SEPT9"]), "MARCH1 is MARCHF1 there, SEPTIN9 is SEPT9 there"),
    ],
)
def test_other_names_are_described(wanted: list[str], panel: pd.DataFrame, message: str) -> None:
    sentence = describe_names(wanted, panel)
    assert bool(sentence) == bool(message)
    if message:
        with pytest.raises(InputError, match=message):
            raise InputError(sentence)


def test_symbols_of_a_column_become_names() -> None:
    panels = {"A": var(IDS, symbol=GENES), "B": var(IDS[::-1], symbol=GENES[::-1])}
    assert in_panel_names({"T": ["CD3D", "MS4A1", "NONE"]}, panels, "symbol") == {"T": [IDS[0], IDS[2], "NONE"]}
    assert in_panel_names({"T": GENES}, panels, None) == {"T": GENES}
    with pytest.raises(KeyMissingError, match=r"`gene_symbols='name'` is not in the var of slide 'A'"):
        in_panel_names({"T": GENES}, panels, "name")
    panels["B"]["symbol"] = GENES
    with pytest.raises(InputError, match=r"slide 'B': symbol '.*' of var\['symbol'\] stands for 'ENSG"):
        in_panel_names({"T": GENES}, panels, "symbol")


def by_ids(sdata: sd.SpatialData) -> sd.SpatialData:
    """The same slide, its genes named by their ids."""
    table = sdata["table"]
    table.var["symbol"] = table.var_names.to_numpy(object)
    table.var_names = [f"ENSG{i:011d}" for i in range(table.n_vars)]
    return sdata


def test_scores_and_exclusion_are_the_same_by_symbols_of_a_column(toy: sd.SpatialData) -> None:
    other = by_ids(sd.deepcopy(toy))
    sp.tl.score_cells(toy, "seed", test_fold=None)
    options = {"n_latent": 2, "hidden": (4,), "max_epochs": 1, "test_fold": None}
    for function in (sp.tl.score_cells, lambda data, sets, **kw: sp.tl.train_autoencoder(data, signatures=sets, **kw)):
        few = options if function is not sp.tl.score_cells else {"test_fold": None}
        with pytest.raises(InputError, match=r"pass `gene_symbols='symbol'`"):
            function(other, "seed", **few)
    sp.tl.score_cells(other, "seed", test_fold=None, gene_symbols="symbol")
    np.testing.assert_array_equal(other["table"].obsm["signatures"], toy["table"].obsm["signatures"])
    model = sp.tl.train_autoencoder(other, signatures="seed", gene_symbols="symbol", **options)
    symbols = set(other["table"].var.loc[list(model.genes), "symbol"])
    assert not symbols & {gene for genes in read_signatures("seed").values() for gene in genes}


def test_a_signature_that_is_not_scored_says_how_its_genes_are_called(toy: sd.SpatialData) -> None:
    names = toy["table"].var_names.to_numpy(object).copy()
    names[0] = "IL8"
    toy["table"].var_names = names
    sets = {"T": ["CD3D", "CD3E", "TRAC"], "X": ["CXCL8", "ZZZ1", "ZZZ2"]}
    with pytest.warns(SpatialsigWarning, match=r"not scored, NaN on every slide: X .*\(CXCL8 is IL8 there\)"):
        sp.tl.score_cells(toy, sets, test_fold=None)


def test_endothelial_cells_are_the_33_genes_of_their_source() -> None:
    assert len(read_signatures("tumour_microenvironment")["Endothelial"]) == 33
    assert "CAVIN2" in read_signatures("tumour_microenvironment")["Endothelial"]
