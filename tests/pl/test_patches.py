"""The static figure of patches over the H&E."""

from pathlib import Path

import numpy as np
import pytest
import shapely
import spatialdata as sd
from geopandas import GeoDataFrame
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from spatialdata.models import ShapesModel
from spatialdata.transformations import Identity, get_transformation, set_transformation

import spatialsig as sp
from spatialsig import _keys
from spatialsig.errors import AlignmentError, KeyMissingError


@pytest.fixture(autouse=True)
def close_figures() -> object:
    yield
    plt.close("all")


def squares(axes: plt.Axes) -> PolyCollection:
    return next(c for c in axes.collections if isinstance(c, PolyCollection))


def test_patches_are_drawn_where_they_lie(slide: sd.SpatialData) -> None:
    (axes,) = sp.pl.patches(slide)
    drawn = [path.vertices[:4] for path in squares(axes).get_paths()]
    shapes = slide.shapes[_keys.PATCHES]
    assert np.array_equal([d.min(axis=0) for d in drawn], shapes[[_keys.X0, _keys.Y0]])
    assert np.array_equal([d.max(axis=0) for d in drawn], shapes.geometry.bounds[["maxx", "maxy"]])
    assert axes.get_title("left") == f"S1: {len(shapes)} patches of 32 µm"


@pytest.mark.parametrize("name", ["Immune_T", "n_counts", "tissue_fraction"])
def test_colours_are_the_values(slide: sd.SpatialData, name: str) -> None:
    (axes,) = sp.pl.patches(slide, name)
    table = slide.tables[_keys.SIGNATURES]
    expected = {
        "Immune_T": np.asarray(table[:, "Immune_T"].X, float)[:, 0],
        "n_counts": table.obs["n_counts"].to_numpy(float),
        "tissue_fraction": slide.shapes[_keys.PATCHES]["tissue_fraction"].to_numpy(float),
    }[name]
    found = squares(axes).get_array()
    assert np.array_equal(np.ma.filled(found, np.nan), expected, equal_nan=True)


def test_tissue_in_another_frame_lands_on_the_image(slide: sd.SpatialData) -> None:
    """The outline is kept in ``global``; the image lies mirrored and scaled in it."""
    ring = np.array([[10.0, 20], [200, 20], [200, 90], [10, 90]])
    to_global = get_transformation(slide[_keys.IMAGE]).to_affine_matrix(("x", "y"), ("x", "y"))
    moved = ring @ to_global[:2, :2].T + to_global[:2, 2]
    with_tissue = sd.SpatialData.init_from_elements(
        {name: element for _, name, element in slide.gen_elements()}, attrs=slide.attrs
    )
    frame = GeoDataFrame(geometry=[shapely.Polygon(moved, [moved[:3]])])
    with_tissue["tissue"] = ShapesModel.parse(frame, transformations={"global": Identity()})
    (axes,) = sp.pl.patches(with_tissue, tissue_key="tissue")
    outer, hole = axes.collections[-1].get_paths()
    assert np.allclose(outer.vertices[:4], ring)
    assert np.allclose(hole.vertices[:3], ring[:3])

    set_transformation(with_tissue["tissue"], {"elsewhere": Identity()}, set_all=True)
    with pytest.raises(AlignmentError, match="'tissue' has no transformation to 'global'"):
        sp.pl.patches(with_tissue, tissue_key="tissue")


def test_one_panel_per_slide_and_a_file(cohort: object, tmp_path: Path) -> None:
    axes = sp.pl.patches(cohort, "Immune_T", save=tmp_path / "patches.png")
    assert [a.get_title("left").split(":")[0] for a in axes] == ["S1", "S2"]
    assert (tmp_path / "patches.png").stat().st_size > 1000


def test_errors_say_what_there_is(slide: sd.SpatialData) -> None:
    with pytest.raises(KeyMissingError, match=r"`signature='Nope'`.*'Immune_T'.*'tissue_fraction'"):
        sp.pl.patches(slide, "Nope")
    with pytest.raises(KeyMissingError, match=r"no table 'other' \(Call `sp.tl.aggregate_patches` first"):
        sp.pl.patches(slide, "Immune_T", table_key="other")
    with pytest.raises(KeyMissingError, match=r"`tissue_key='glass'`.*'patches'"):
        sp.pl.patches(slide, tissue_key="glass")
