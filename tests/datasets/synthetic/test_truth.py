"""What was planted is what comes out: in the counts, in the picture, and in the patches."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import tifffile
from scipy import ndimage
from scipy.spatial import cKDTree

import spatialsig as sp
from spatialsig.datasets.synthetic.image.render import render_he
from spatialsig.datasets.synthetic.slide import Recipe, make_slide
from spatialsig.datasets.synthetic.tissue.expression import CELL_TYPES, NB_THETA, load_panel
from spatialsig.datasets.synthetic.truth import true_patches

SEED_SIGNATURES = {"Immune_T", "Immune_B", "Pericyte", "SmoothMuscle", "Fibroblast", "Proliferation"}


def slide_of(index=0, **options):
    recipe = Recipe(**({"size_um": 900.0} | options))
    return make_slide(recipe, seed=5, index=index, sample="S", patient="P", patient_index=index)


@pytest.fixture(scope="module")
def slide():
    return slide_of()


@pytest.fixture(scope="module")
def picture(cohort):
    """Blue stain of the first H&E, (y, x), and where its nuclei must lie, in px through the alignment file."""
    image = tifffile.imread(cohort["he_image"][0]).astype(float)
    cells = pd.read_parquet(Path(cohort["bundle"][0]) / "cells.parquet")
    inverse = np.linalg.inv(np.loadtxt(cohort["he_alignment"][0], delimiter=","))
    morphology = np.c_[cells[["x_centroid", "y_centroid"]] / 0.2125, np.ones(len(cells))]
    # red is absorbed by haematoxylin and hardly by eosin
    return -np.log((image[..., 0] + 1) / 243), (morphology @ inverse.T)[:, :2]


def genes_of(slide):
    return slide.counts.matrix[:, : slide.counts.n_genes].toarray().astype(float)


def test_panel_covers_the_signatures_with_real_names():
    panel = load_panel()
    assert 280 <= len(panel.genes) <= 300
    assert len(set(panel.genes)) == len(panel.genes)
    assert all(gene_id.startswith("ENSG") and len(gene_id) == 15 for gene_id in panel.gene_ids)
    assert set(panel.signatures) >= SEED_SIGNATURES
    for name, genes in panel.signatures.items():
        assert len(panel.columns(name)) >= 0.8 * len(genes), name


def test_shared_genes_are_shared():
    panel = load_panel()
    level = pd.DataFrame(panel.profiles, index=CELL_TYPES, columns=panel.genes)
    for gene in ("ACTA2", "TAGLN", "MYH11", "CNN1"):
        assert set(level[gene].nlargest(2).index) == {"SmoothMuscle", "Pericyte"}
    assert set(level["PDGFRB"].nlargest(2).index) == {"Pericyte", "Fibroblast"}


def test_library_sizes(slide):
    library = genes_of(slide).sum(axis=1)
    assert np.median(library) == pytest.approx(150, rel=0.06)
    # the spread of a log-normal library plus what counting adds
    assert 0.40 < np.log(library[library > 0]).std() < 0.62


def test_counts_have_the_dispersion_of_the_negative_binomial(slide, monkeypatch):
    # neither ambient nor spill-over: moments of the counts around their own planted mean
    monkeypatch.setattr("spatialsig.datasets.synthetic.tissue.expression.SPILL_SHARE", 0.0)
    monkeypatch.setattr("spatialsig.datasets.synthetic.tissue.expression.AMBIENT_SHARE", 0.0)
    pure = slide_of()
    rates = pure.counts.rates.astype(float)
    noise = ((genes_of(pure) - rates) ** 2).sum() - rates.sum()
    assert (rates**2).sum() / noise == pytest.approx(NB_THETA, rel=0.1)


def test_markers_are_enriched_in_their_type(slide):
    library = slide.counts.rates.sum(axis=1)
    share = pd.DataFrame(genes_of(slide) / library[:, None], columns=slide.panel.genes)
    by_type = share.groupby(np.array(CELL_TYPES)[slide.tissue.cell_type]).mean()
    for gene, owner in (("EPCAM", "Tumour"), ("CD3D", "T_cell"), ("MS4A1", "B_cell"), ("DCN", "Fibroblast"),
                        ("MYH11", "SmoothMuscle"), ("RGS5", "Pericyte"), ("VWF", "Endothelial"), ("CD68", "Macrophage")):  # fmt: skip
        others = by_type[gene].drop(owner)
        assert by_type[gene].idxmax() == owner
        assert by_type.loc[owner, gene] > 3 * others.mean(), gene


def test_programme_drives_genes_and_nuclei(slide):
    tumour = slide.tissue.cell_type == CELL_TYPES.index("Tumour")
    z = slide.tissue.programme[tumour]
    cycling = genes_of(slide)[tumour][:, slide.panel.programme].sum(axis=1)
    size = slide.nuclei.axes_um[tumour].prod(axis=1)
    assert np.corrcoef(z, np.log1p(cycling))[0, 1] > 0.4
    assert np.corrcoef(z, size)[0, 1] > 0.6


def test_controls_are_named_by_their_type_and_rare(cohort):
    table = sc.read_10x_h5(Path(cohort["bundle"][0]) / "cell_feature_matrix.h5", gex_only=False)
    kinds = table.var["feature_types"]
    assert set(kinds) == {
        "Gene Expression", "Negative Control Probe", "Negative Control Codeword", "Unassigned Codeword",
    }  # fmt: skip
    rate = table[:, kinds == "Negative Control Probe"].X.mean()
    assert rate == pytest.approx(0.0037, rel=0.5)


def test_density_is_what_was_asked_for(slide):
    outline = slide.tissue.outline
    area_mm2 = (outline.values > 4).sum() * (outline.step_um / 1000) ** 2
    assert len(slide.tissue.xy_um) / area_mm2 == pytest.approx(4500, rel=0.06)
    assert cKDTree(slide.tissue.xy_um).query(slide.tissue.xy_um, k=2)[0][:, 1].min() >= 4.5


def test_nuclei_are_blue_where_the_alignment_puts_them(picture):
    blue, he_px = picture
    rng = np.random.default_rng(0)
    column, row = np.floor(he_px).astype(int).T
    anywhere = rng.integers(0, min(blue.shape), (2, 5000))
    assert blue[row, column].mean() > 3 * blue[tuple(anywhere)].mean()
    # a swap of the axes must not pass
    assert (
        blue[row, column].mean() > 2 * blue[column.clip(max=blue.shape[0] - 1), row.clip(max=blue.shape[1] - 1)].mean()
    )


def blob_offset(blue, x, y, half=30):
    """Centre of mass of the dark blob at ``(x, y)`` minus ``(x, y)``, px; None where there is no blob."""
    row, column = int(y), int(x)
    window = blue[row - half : row + half + 1, column - half : column + half + 1]
    labels, _ = ndimage.label(ndimage.gaussian_filter(window, 1.0) > 0.38)
    if labels[half, half] == 0:
        return None
    centre = ndimage.center_of_mass(labels == labels[half, half])
    return centre[1] + 0.5 - half - (x - column), centre[0] + 0.5 - half - (y - row)


@pytest.mark.parametrize("index", [pytest.param(0, marks=pytest.mark.slow), 1], ids=["turned", "mirrored"])
def test_centres_of_isolated_nuclei_are_met_within_half_a_pixel(index):
    sparse_slide = slide_of(index, density_per_mm2=900.0)
    pixels = render_he(
        sparse_slide.nuclei, sparse_slide.tissue, sparse_slide.frames, sparse_slide.stain, seed=0
    ).astype(float)
    blue = -np.log((pixels[..., 0] + 1) / 243)
    xy = sparse_slide.tissue.xy_um
    inverse = np.linalg.inv(sparse_slide.frames.alignment)
    he_px = (np.c_[xy / 0.2125, np.ones(len(xy))] @ inverse.T)[:, :2]
    alone = (cKDTree(xy).query(xy, k=2)[0][:, 1] > 20) & (sparse_slide.tissue.outline.at(xy) > 12)
    offsets = np.array([o for x, y in he_px[alone] if (o := blob_offset(blue, x, y)) is not None])
    assert len(offsets) > 100
    assert np.abs(offsets.mean(axis=0)).max() < 0.1
    assert np.linalg.norm(offsets, axis=1).mean() < 0.5


def test_background_is_nearly_white(cohort):
    image = tifffile.imread(cohort["he_image"][0])
    corner = image[:60, :60].reshape(-1, 3)
    assert (corner.mean(axis=0) > 230).all()
    assert corner.std(axis=0).max() < 6


def look(slide):
    """Mean nuclear area by true type."""
    return pd.Series(slide.nuclei.axes_um.prod(axis=1)).groupby(slide.tissue.cell_type).mean()


def test_without_image_signal_the_look_says_nothing(slide):
    clear, blind = look(slide), look(slide_of(image_signal=0.0))
    assert clear.std() > 8 * blind.std()
    blank = slide_of(image_signal=0.0)
    np.testing.assert_array_equal(blank.tissue.cell_type, slide.tissue.cell_type)
    np.testing.assert_array_equal(blank.counts.rates, slide.counts.rates)
    tumour = blank.tissue.cell_type == CELL_TYPES.index("Tumour")
    size = blank.nuclei.axes_um[tumour].prod(axis=1)
    assert abs(np.corrcoef(blank.tissue.programme[tumour], size)[0, 1]) < 0.1


def oracle_scores(slide):
    """Mean z-score of the noisy cells, averaged per patch, in plain numpy."""
    counts = genes_of(slide)
    keep = counts.sum(axis=1) > 0
    logged = np.log1p(1e4 * counts[keep] / counts[keep].sum(axis=1, keepdims=True))
    sd = logged.std(axis=0)
    z = (logged - logged.mean(axis=0)) / np.where(sd > 0, sd, 1)
    um = np.c_[slide.tissue.xy_um, np.ones(len(counts))]
    he_px = (um @ np.linalg.inv(slide.frames.he_to_um).T)[keep, :2]
    return z, he_px


def test_patch_truth_is_met_by_the_noisy_mean():
    correlations = []
    for index in (0, 1):
        slide = slide_of(index, size_um=1200.0)
        truth = true_patches(slide)
        z, he_px = oracle_scores(slide)
        assert truth["size_l0"].unique() == round(112 / 0.2738) == 409
        for name, genes in slide.panel.signatures.items():
            columns = [slide.panel.genes.index(gene) for gene in genes if gene in slide.panel.genes]
            score = z[:, columns].mean(axis=1)
            pairs = []
            for patch in truth[truth["n_cells"] >= 10].itertuples():
                low = np.array([patch.x0, patch.y0])
                within = ((he_px >= low) & (he_px < low + patch.size_l0)).all(axis=1)
                pairs.append((score[within].mean(), getattr(patch, f"score_{name}")))
            correlations.append(np.corrcoef(np.array(pairs).T)[0, 1])
    assert np.mean(correlations) > 0.98


def test_truth_files_agree_with_the_bundle(cohort):
    root = Path(cohort["bundle"][0]).parent
    truth = ad.read_h5ad(root / "S1_truth.h5ad")
    cells = pd.read_parquet(root / "S1" / "cells.parquet")
    patches = pd.read_parquet(root / "S1_truth_patches.parquet")
    assert list(truth.obs["cell_id"]) == list(cells["cell_id"])
    np.testing.assert_array_equal(truth.obsm["spatial"], cells[["x_centroid", "y_centroid"]])
    # composition of every patch, counted once more
    x, y = truth.obsm["he_px"].T
    for patch in patches[patches["n_cells"] > 0].itertuples():
        here = (x >= patch.x0) & (x < patch.x0 + patch.size_l0) & (y >= patch.y0) & (y < patch.y0 + patch.size_l0)
        assert here.sum() == patch.n_cells
        assert patch.fraction_Tumour == pytest.approx((truth.obs["cell_type"][here] == "Tumour").mean())
        assert patch.programme == pytest.approx(truth.obs["programme"][here].mean())
    assert patches.loc[patches["n_cells"] == 0, "score_Immune_T"].isna().all()


def test_patients_shift_the_mixture():
    mixed = [np.bincount(slide_of(i, slide_sd=0.0).tissue.cell_type, minlength=8) for i in range(3)]
    shifted = [np.bincount(slide_of(i, slide_sd=1.0).tissue.cell_type, minlength=8) for i in range(3)]
    spread = [np.std([np.log(counts / counts.sum()) for counts in group], axis=0).mean() for group in (mixed, shifted)]
    assert spread[1] > 1.5 * spread[0]


def test_toy_and_bundles_share_the_generator():
    toy = sp.datasets.toy(seed=5, size_um=300.0, he_um_per_px=0.2738)
    slide = slide_of(size_um=300.0)
    np.testing.assert_array_equal(toy["table"].obsm["spatial"], slide.tissue.xy_um)
    np.testing.assert_array_equal(toy["table"].X.toarray(), genes_of(slide))
