"""A cohort as the files that the prototype's scripts read: patches, embeddings, labels, autoencoder.

Floor 7, above evaluation. Called as sp.io.export_seed_layout; used by cli/project_commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, checked
from spatialsig._files import replaced, write_csv, writing
from spatialsig._progress import track
from spatialsig.errors import InputError
from spatialsig.io._seed_files import EMBEDDINGS, LABELS, PATCHES
from spatialsig.models import Autoencoder
from spatialsig.slide.slides import Data, open_slides, slide_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatialsig.data.patches import PatchSource
    from spatialsig.slide.patches import Patches

BATCH = 64  # patches read at a time


@checked
def export_seed_layout(
    data: Data,
    directory: AnyPath,
    *,
    autoencoder: Autoencoder | None = None,
    images: bool = False,
    use_rep: Key | None = _keys.X_AE,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
) -> pd.DataFrame:
    """Write labels, embeddings, autoencoder and pictures of the patches as the prototype's files.

    For scripts that were written for the prototype, and to compare with it. The labels are those of
    ``tables[signatures_key]``, made by whatever settings: ``stat="median"`` is the prototype's statistic.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort, with patches and labels; not modified.
    directory
        Folder to write into; made if missing, files of the same names are replaced.
    autoencoder
        Plain autoencoder (``linear_path=False``) to write beside; None writes none.
    images
        Also write the pictures of the patches, as PNG.
    use_rep
        Embedding of the patches in ``tables[signatures_key].obsm``; None writes none.
    patches_key, signatures_key
        Shapes element of the patches, table of the labels.

    Returns
    -------
    The table of the labels as written to ``labels.csv``, one row per labelled patch: ``slide``, ``y0``, ``x0``,
    ``size_l0`` (level-0 px), ``n_cells``, ``png_path``, ``ae_path`` (relative to ``directory``, empty where not written),
    then one column per signature. ``embeddings/{slide}_y{y0}_x{x0}.npy`` holds one vector ``(n_latent,)`` float32,
    ``patches/{slide}_y{y0}_x{x0}.png`` one RGB picture; ``ae.ckpt``, ``ae_genes.json`` and ``scaler.npz`` are written by
    :func:`spatialsig.models.export_seed_autoencoder`.

    Raises
    ------
    KeyMissingError
        If a slide has no patches, labels or embedding.
    InputError
        If two slides have the same name or one holds a path separator, their signatures differ, or the autoencoder has
        parts that the prototype has not.
    """
    _check(data, use_rep, patches_key, signatures_key)
    place = Path(directory)
    if autoencoder is not None:
        from spatialsig.models import export_seed_autoencoder

        export_seed_autoencoder(autoencoder, place)
    frames = []
    for slide in track(open_slides(data), "export patches", total=slide_count(data), unit="slide"):
        patches = slide.patches(patches_key)
        frame, rows = _labels(patches, signatures_key)
        embedding = patches.embedding(signatures_key, use_rep)
        if embedding is not None:
            frame["ae_path"] = _write_embeddings(place, frame.index, embedding[rows])
        if images:
            frame["png_path"] = _write_images(place, frame.index, patches.source(rows))
        frames.append(frame)
    labels = pd.concat(frames, ignore_index=True)
    write_csv(place / LABELS, labels)
    return labels


def _check(data: Data, use_rep: str | None, patches_key: str, signatures_key: str) -> None:
    seen: dict[str, list[str]] = {}
    for slide in open_slides(data):
        table = slide.table(signatures_key, name="signatures_key", fix="Call `sp.tl.aggregate_patches` first.")
        slide.patches(patches_key)
        if use_rep is not None:
            fix = "Call `sp.tl.embed_cells` and `sp.tl.aggregate_patches` first, or pass `use_rep=None`."
            slide.obsm(signatures_key, use_rep, name="use_rep", fix=fix)
        if slide.name in seen or Path(slide.name).name != slide.name:
            why = "is the name of two slides" if slide.name in seen else "holds a path separator"
            msg = f"{slide.name!r} {why}; files are named by slide, so give each its own plain `sample` name."
            raise InputError(msg)
        seen[slide.name] = list(table.var_names)
    first, *others = seen.items()
    for name, names in others:
        if names != first[1]:
            msg = (
                f"slide {name!r} has the signatures {names}, slide {first[0]!r} {first[1]}; score all slides together."
            )
            raise InputError(msg)


def _labels(patches: Patches, signatures_key: str) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Labelled patches of a slide, indexed by the name of their files, and which they are."""
    labels, name = patches.labels(signatures_key), patches.slide.name
    rows = np.flatnonzero(labels.measured)
    y0, x0 = patches.origins[rows].T
    n_cells = patches.n_cells(signatures_key)
    frame = pd.DataFrame(
        {
            "slide": name,
            _keys.Y0: y0,
            _keys.X0: x0,
            "size_l0": patches.spec.size_l0,
            _keys.N_CELLS: 0 if n_cells is None else n_cells[rows],
            "png_path": "",
            "ae_path": "",
        },
        index=[f"{name}_y{y}_x{x}" for y, x in zip(y0, x0, strict=True)],
    )
    columns = pd.DataFrame(labels.values[rows], index=frame.index, columns=labels.names)
    return pd.concat([frame, columns], axis=1), rows


def _write_embeddings(place: Path, names: pd.Index, vectors: NDArray[np.float32]) -> list[str]:
    paths = [f"{EMBEDDINGS}/{name}.npy" for name in names]
    with writing(place / EMBEDDINGS):
        (place / EMBEDDINGS).mkdir(parents=True, exist_ok=True)
        for path, vector in zip(paths, vectors, strict=True):
            np.save(place / path, vector)
    return paths


def _write_images(place: Path, names: pd.Index, source: PatchSource) -> list[str]:
    from imagecodecs import png_encode

    from spatialsig.data.patches import read_patches

    paths = [f"{PATCHES}/{name}.png" for name in names]
    for start in range(0, len(source), BATCH):
        batch = np.arange(start, min(start + BATCH, len(source)))
        for i, picture in zip(batch, read_patches(source, batch), strict=True):
            with replaced(place / paths[i]) as partial:
                partial.write_bytes(png_encode(np.ascontiguousarray(picture.transpose(1, 2, 0))))
    return paths
