"""One HTML page of all slides in a folder of results: H&E and maps, in the same colours on every slide.

Floor 11, above report. Used by whole_slides/from_files.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from PIL import Image

from spatialsig import _keys
from spatialsig._files import write_csv, write_text
from spatialsig.pl.drawing.canvas import SCORE_MAP
from spatialsig.pl.drawing.slide_panels import BAR_SHARE, robust_limits, round_length
from spatialsig.pl.drawing.templates import template_of
from spatialsig.whole_slides.kept import PAGE, SLIDES, results_in
from spatialsig.whole_slides.overview import MAPS, PICTURE, read_maps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.colors import Normalize
    from numpy.typing import NDArray

    from spatialsig.whole_slides.overview import Maps

N_SHADES = 9  # of the colour bar


@dataclass(frozen=True)
class Failure:
    """A slide that could not be predicted."""

    sample: str
    image: str
    error: str


@dataclass(frozen=True)
class _Map:
    """One signature on one slide."""

    signature: str
    png: str  # base64
    mean: float | None  # None where no patch passes quality control


@dataclass(frozen=True)
class _Card:
    """One slide on the page."""

    sample: str
    record: Mapping[str, Any]
    picture: str  # base64
    maps: list[_Map]
    left: float  # left, top, width, height: where the maps lie, percent of the picture
    top: float
    width: float
    height: float
    aspect: float  # width of the picture by its height
    bar: float  # length of the scale bar, percent of the width
    bar_text: str
    learned: bool  # whether the model learned from a slide of this name


def write_page(out: Path, images: Mapping[str, str], failures: Sequence[Failure]) -> None:
    """Write the page and the table of all slides whose results lie in ``out``.

    ``images`` are the samples and paths of this run: results of one of these images under another name are left out.
    """
    records = dict(_recorded(out, images))
    failed = {failure.sample for failure in failures}  # of which older results may lie there
    done = [record for name, record in records.items() if name not in failed]
    write_csv(out / SLIDES, _table(done, failures))
    drawn = {name: read_maps(out / name) for name in records if (out / name / MAPS).is_file()}
    if drawn or failures:
        cards, scales = _cards(out, records, drawn)
        write_text(out / PAGE, _page(records, cards, scales, failures))


def _recorded(out: Path, images: Mapping[str, str]) -> Iterable[tuple[str, dict[str, Any]]]:
    names = {path: sample for sample, path in images.items()}
    for name, record in results_in(out):
        if names.get(record["image"]["path"], name) == name:
            yield name, record


def _table(records: Iterable[Mapping[str, Any]], failures: Sequence[Failure]) -> pd.DataFrame:
    names = (
        "patient",
        "n_patches",
        "n_pass",
        _keys.OOD,
        _keys.OOD_REASON,
        "tissue_mm2",
        "um_per_px",
        "patch_um",
        "stride_um",
        "seconds",
        "finished",
    )
    done = [
        {"sample": record["sample"], "image": record["image"]["path"], "error": ""}
        | {name: record.get(name) for name in names}  # early versions wrote fewer
        | {"ood_patients": record["model"].get("n_patients"), "warnings": " | ".join(record.get("remarks", ()))}
        | {f"mean {signature}": mean for signature, mean in record["means"].items()}
        for record in records
    ]
    return pd.DataFrame([*done, *({"sample": f.sample, "image": f.image, "error": f.error} for f in failures)])


def _cards(
    out: Path, records: Mapping[str, Mapping[str, Any]], drawn: Mapping[str, Maps]
) -> tuple[list[_Card], dict[str, Normalize]]:
    """Slides with maps, and the scale of each signature, which all share."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for name, maps in drawn.items():
        for k, signature in enumerate(records[name]["model"]["signatures"]):
            found.setdefault(signature, []).append(maps.values[..., k].astype(np.float64))
    scales = {signature: robust_limits(values) for signature, values in found.items()}
    return [_card(out / name, records[name], maps, scales) for name, maps in drawn.items()], scales


def _card(folder: Path, record: Mapping[str, Any], maps: Maps, scales: Mapping[str, Normalize]) -> _Card:
    left, top, width, height = (100 * share for share in maps.area)
    bar_um = round_length(maps.picture_um[0] * BAR_SHARE)
    return _Card(
        sample=record["sample"],
        record=record,
        picture=base64.b64encode((folder / PICTURE).read_bytes()).decode("ascii"),
        maps=[
            _Map(signature, _png(maps.values[..., k], scales[signature]), record["means"].get(signature))
            for k, signature in enumerate(record["model"]["signatures"])
        ],
        left=left, top=top, width=width, height=height, aspect=maps.picture_um[0] / maps.picture_um[1],
        bar=100 * bar_um / maps.picture_um[0],
        bar_text=f"{bar_um / 1000:g} mm" if bar_um >= 1000 else f"{bar_um:g} µm",
        learned=record["sample"] in record["model"]["training_samples"],
    )  # fmt: skip


def _png(values: NDArray[np.float32], scale: Normalize) -> str:
    """Colours of a map, one px per patch, see-through where there is none."""
    shares = np.nan_to_num(np.asarray(scale(values).filled(np.nan)))
    colours = (np.asarray(colormaps[SCORE_MAP](shares)) * 255).round().astype(np.uint8)
    colours[..., 3] = np.where(np.isfinite(values), 255, 0)
    data = io.BytesIO()
    Image.fromarray(colours).save(data, format="PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode("ascii")


def _page(
    records: Mapping[str, Mapping[str, Any]],
    cards: Sequence[_Card],
    scales: Mapping[str, Normalize],
    failures: Sequence[Failure],
) -> str:
    models = {record["model"]["sha256"]: record["model"] for record in records.values()}
    shades = [f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b, _ in 255 * colormaps[SCORE_MAP](np.linspace(0, 1, N_SHADES))]
    text: str = template_of("spatialsig.whole_slides").render(
        cards=cards,
        records=records,
        failures=failures,
        models=list(models.values()),
        limits={name: (f"{scale.vmin:.2f}", f"{scale.vmax:.2f}") for name, scale in scales.items()},
        shades=", ".join(shades),
    )
    return text
