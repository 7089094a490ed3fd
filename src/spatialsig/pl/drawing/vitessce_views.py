"""Configuration of a Vitessce page that shows one store: its H&E, and the shapes of a table coloured by a score.

Floor 7, above evaluation. Used by cli/atlas_command, pl/_vitessce.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import numpy as np
import shapely

from spatialsig import _keys
from spatialsig._checks import check_key, did_you_mean
from spatialsig.errors import InputError
from spatialsig.pl.drawing.values import HOW_TO_MEASURE, HOW_TO_PREDICT
from spatialsig.slide.coordinates import image_of, placed, um_per_global
from spatialsig.slide.slides import Data, open_slides, slide_count
from spatialsig.slide.table_rows import dense, scores_of
from spatialsig.store.metadata import elements_on_disk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spatialsig.slide.slides import Slide

SCHEMA = "1.0.18"  # of the configuration
DATASET = "A"
FEATURE, VALUE = "signature", "score"  # what the rows of the feature list are, and their numbers
_LAYER = "__dummy__"  # what stands for a layer in the space of coordination: its properties lie in scopes of their own
_WIDTH, _HEIGHT, _SIDE = 8, 12, 4  # of the slide and of the lists beside it, in twelfths of the page


@dataclass(frozen=True)
class Shown:
    """Elements of a store that one page shows."""

    slide: Slide
    store: Path
    image_key: str
    table_key: str
    kind: str  # of the element that the table annotates: shapes or labels
    region: str
    circles: bool  # whether it is drawn as circles, not as outlines
    color: str
    note: str  # what the page itself does not say

    @property
    def observation(self) -> str:
        """What a row of the table is."""
        return "patch" if self.region in self.slide.attrs.get("patches", {}) else "cell"

    @property
    def options(self) -> dict[str, Any]:
        """Where in the store each of them lies."""
        table = f"tables/{self.table_key}"
        drawn = {"path": f"{self.kind}/{self.region}", "tablePath": table, "coordinateSystem": _keys.GLOBAL}
        return {
            "image": {"path": f"images/{self.image_key}", "coordinateSystem": _keys.GLOBAL},
            "obsFeatureMatrix": {"path": f"{table}/X"},
            "obsSpots" if self.circles else "obsSegmentations": drawn,
        }

    @property
    def coordination(self) -> dict[str, str]:
        """What the rows and columns of the table are called on the page."""
        return {"obsType": self.observation, "featureType": FEATURE, "featureValueType": VALUE}


def shown_of(data: Data, color: str | None, *, table_key: str | None, image_key: str) -> Shown:
    """Elements of one slide, checked: all of them lie in its store, and what the table annotates has its rows in their order."""
    if slide_count(data) != 1:
        msg = f"vitessce shows one slide; got {slide_count(data)}: pass one, such as `cohort['S1']`."
        raise InputError(msg)
    slide = next(open_slides(data))
    placed(slide, image_of(slide, image_key), f"image {image_key!r}", similar=False)
    if table_key is None:
        tables = slide.sdata.tables
        table_key = _keys.SIGNATURES_PRED if _keys.SIGNATURES_PRED in tables else _keys.SIGNATURES
    fix = HOW_TO_PREDICT if table_key == _keys.SIGNATURES_PRED else HOW_TO_MEASURE
    table = slide.table(table_key, fix=fix)
    scores = scores_of(slide, table_key)
    names = list(map(str, table.var_names))
    color = names[0] if color is None else color
    check_key(names, color, name="color", where=f"table {table_key!r} of slide {slide.name!r}")
    kind, region = _annotated(slide, table_key)
    circles = kind == "shapes" and _are_circles(slide, table_key, region)
    store = _store_of(slide, {("images", image_key), ("tables", table_key), (kind, region)})
    lost = int(np.isnan(dense(scores[:, [names.index(color)]])).sum())
    note = _note(slide, table_key, color, lost, table.n_obs)
    return Shown(slide, store, image_key, table_key, kind, region, circles, color, note)


def _note(slide: Slide, table_key: str, color: str, lost: int, n: int) -> str:
    """What the page would let one believe, put right: it takes units of ``global`` for µm, and a missing value for the lowest."""
    said = f"Slide {slide.name}, table {table_key}. "
    um = um_per_global(slide)
    if um != 1:
        said += f"The scale bar counts px of {um:.4g} µm as if they were µm: multiply what it says by {um:.4g}. "
    if lost:
        said += f"{lost} of {n} have no value of {color}, and are drawn in its lowest colour."
    return said.rstrip()


def _annotated(slide: Slide, table_key: str) -> tuple[str, str]:
    """Kind and name of the element that a table annotates."""
    regions = np.atleast_1d(slide.sdata.tables[table_key].uns.get("spatialdata_attrs", {}).get("region") or [])
    where = f"slide {slide.name!r}: table {table_key!r}"
    if len(regions) != 1:
        msg = f"{where} annotates {list(map(str, regions)) or 'nothing'}; wanted one element: patches, circles, outlines or labels of cells."
        raise InputError(msg)
    region = str(regions[0])
    for kind, elements in (("shapes", slide.sdata.shapes), ("labels", slide.sdata.labels)):
        if region in elements:
            placed(slide, elements[region], f"{kind} {region!r}", similar=False)
            return kind, region
    available = sorted([*slide.sdata.shapes, *slide.sdata.labels])
    msg = f"{where} annotates {region!r}, which is in neither the shapes nor the labels; available: {available}.{did_you_mean(region, available)}"
    raise InputError(msg)


def _are_circles(slide: Slide, table_key: str, region: str) -> bool:
    """Whether shapes are drawn as circles; refused in another order than the table, by which Vitessce puts the two together."""
    table, shapes = slide.sdata.tables[table_key], slide.sdata.shapes[region]
    instance_key = str(table.uns["spatialdata_attrs"].get("instance_key"))
    ids = np.asarray(table.obs[instance_key])
    if not np.array_equal(ids.astype(str), np.asarray(shapes.index).astype(str)):
        msg = (
            f"slide {slide.name!r}: the {len(ids)} rows of table {table_key!r} are not the {len(shapes)} shapes {region!r} in their order, "
            "by which Vitessce puts them together; call the function that makes the table again."
        )
        raise InputError(msg)
    kinds = set(map(int, np.unique(shapely.get_type_id(np.asarray(shapes.geometry)))))
    if kinds == {int(shapely.GeometryType.POINT)}:
        return True
    if not kinds <= {int(shapely.GeometryType.POLYGON)}:
        found = sorted({geometry.geom_type for geometry in shapes.geometry})
        msg = f"slide {slide.name!r}: shapes {region!r} are {found}; Vitessce draws circles, or polygons of one piece."
        raise InputError(msg)
    return False


def _store_of(slide: Slide, wanted: set[tuple[str, str]]) -> Path:
    """Store of a slide, which holds all that is to be shown: a browser reads nothing else."""
    store = slide.path or slide.sdata.path
    if store is None:
        msg = f"slide {slide.name!r} is in memory, and Vitessce reads a store: `sp.io.write(slide, 'S1.zarr')` first."
        raise InputError(msg)
    there = {(kind, name) for kind, name, _ in elements_on_disk(Path(store))}
    if missing := sorted("/".join(element) for element in wanted - there):
        msg = f"store {str(store)!r} does not hold {missing}, which are in memory only: write the slide with `sp.io.write(..., overwrite=True)`."
        raise InputError(msg)
    return Path(store)


def view_config(shown: Shown, url: str) -> dict[str, Any]:
    """The whole configuration, for a store that is served at ``url``."""
    files = [
        {"fileType": "spatialdata.zarr", "url": url, "options": shown.options, "coordinationValues": shown.coordination}
    ]
    space, scopes = _coordination(shown)
    return {
        "version": SCHEMA,
        "name": shown.slide.name,
        "description": shown.note,
        "datasets": [{"uid": DATASET, "name": shown.slide.name, "files": files}],
        "coordinationSpace": space,
        "layout": [
            _view("spatialBeta", scopes, x=0, y=0, w=_WIDTH, h=_HEIGHT),
            _view("featureList", scopes, x=_WIDTH, y=0, w=_SIDE, h=5),
            _view("layerControllerBeta", scopes, x=_WIDTH, y=5, w=_SIDE, h=4),
            _view("description", {"dataset": DATASET}, x=_WIDTH, y=9, w=_SIDE, h=3)
            | {"props": {"description": shown.note}},
        ],
        "initStrategy": "auto",
    }


def _view(component: str, scopes: Mapping[str, Any], **place: int) -> dict[str, Any]:
    own = {name: scope for name, scope in scopes.items() if component != "featureList" or not name.startswith("meta")}
    return {"component": component, "coordinationScopes": own, **place}


def _coordination(shown: Shown) -> tuple[dict[str, Any], dict[str, Any]]:
    """Space of coordination, and the scopes in it that the views share."""
    shared = {**shown.coordination, "featureSelection": [shown.color], "obsColorEncoding": "geneSelection"}
    space: dict[str, Any] = {
        "dataset": {DATASET: DATASET},
        **{name: {DATASET: value} for name, value in shared.items()},
    }
    # the page makes layers of its own for what it finds, but where scopes of these names are there
    image, drawn = f"init_{DATASET}_image_0", f"init_{DATASET}_{'obsSpots' if shown.circles else 'obsSegmentations'}_0"
    coloured = {
        "obsColorEncoding": "geneSelection",
        "featureValueColormap": "viridis",
        "featureValueColormapRange": [0.0, 1.0],
    }
    layers: dict[str, tuple[str, dict[str, Any]]] = {image: ("imageLayer", {"photometricInterpretation": "RGB"})}
    if shown.circles:
        layers[drawn] = "spotLayer", {"obsType": shown.observation, "spatialLayerOpacity": 0.6, **coloured}
    else:
        layers[drawn] = "segmentationLayer", {"spatialLayerOpacity": 1.0}
    by: dict[str, dict[str, Any]] = {}
    for scope, (layer, values) in layers.items():
        space.setdefault(layer, {})[scope] = _LAYER
        for name, value in values.items():
            space.setdefault(name, {})[scope] = value
        by[scope] = {layer: {name: {scope: scope} for name in values}}
    if not shown.circles:
        channel = {
            "obsType": shown.observation,
            "spatialChannelOpacity": 0.6,
            "spatialSegmentationFilled": True,
            **coloured,
        }
        space["segmentationChannel"] = {drawn: _LAYER}
        for name, value in channel.items():
            space.setdefault(name, {})[drawn] = value
        by[drawn]["segmentationLayer"]["segmentationChannel"] = {drawn: [drawn]}
        by[drawn]["segmentationChannel"] = {name: {drawn: drawn} for name in channel}
    space["metaCoordinationScopes"] = {scope: {layer: [scope]} for scope, (layer, _) in layers.items()}
    space["metaCoordinationScopesBy"] = by
    meta = {"metaCoordinationScopes": [image, drawn], "metaCoordinationScopesBy": [image, drawn]}
    return space, {"dataset": DATASET, **dict.fromkeys(shared, DATASET), **meta}


def address_of(shown: Shown, url: str) -> str:
    """Address of the store that lies in a folder which is served at ``url``."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        msg = f"`url={url!r}` is no address of a folder; wanted one that browsers reach, such as 'https://our-lab.org/stores'."
        raise InputError(msg)
    return f"{url.rstrip('/')}/{quote(shown.store.name)}"
