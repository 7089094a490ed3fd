"""What can be wrong with a bundle: how to break a copy, and what the reader must answer."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from spatialsig.errors import AlignmentError, FileMissingError, InputError

from .conftest import ALIGNMENT, FILES, IMAGE, LAYOUTS, ZARR, Broken, put_array, unpacked

MATRIX, CELLS, SPECS, ZIP = "cell_feature_matrix.h5", "cells.parquet", "experiment.xenium", "cells.zarr.zip"
N_CELLS = 100  # of each bundle
EQUAL, WARNED = "read, equal", "read, with a warning"


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes
    ----------
    breaks
        Breaks a copy.
    answer
        Class of the error, or ``EQUAL`` (nothing is lost: the same object) or ``WARNED``.
    words
        All of them are in the message.
    layouts
        Where it can happen.
    options
        Of the reader.
    zarr
        The fault where counts and cells are one zipped Zarr, if it shows otherwise there.
    """

    breaks: Callable[[Broken], Any]
    answer: type[Exception] | str
    words: tuple[str, ...] = ()
    layouts: tuple[str, ...] = LAYOUTS
    options: dict[str, Any] = field(default_factory=dict)
    zarr: Fault | None = None

    def of(self, layout: str) -> Fault:
        """The fault as it shows in a layout."""
        return self.zarr if layout == ZARR and self.zarr is not None else self


def by_features(b: Broken) -> None:
    parts: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[[np.ndarray], np.ndarray]:
        return lambda values: parts.setdefault(name, values)

    names = ("data", "indices", "indptr", "features__id")
    b.matrix(**{name: keep(name) for name in names})
    data, indices, indptr, features = (parts[name] for name in names)
    columns = sparse.csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, len(features))).tocsc()
    b.matrix(data=columns.data, indices=columns.indices.astype(np.int64), indptr=columns.indptr.astype(np.int64))


def put(values: np.ndarray, at: int, value: float, dtype: Any = None) -> np.ndarray:
    changed = values.astype(dtype or values.dtype)
    changed[at] = value
    return changed


def swap(values: np.ndarray) -> np.ndarray:
    return values[np.r_[1, 0, 2 : len(values)]]


def shuffled(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sample(frac=1, random_state=3)


def without(column: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda rows: rows.drop(columns=column)


def at_centroid(n: int, value: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda rows: rows.assign(x_centroid=rows["x_centroid"].where(np.arange(len(rows)) >= n, value))


def other_zip_member(b: Broken) -> None:
    """A zip whose ids are those of other cells."""
    with zipfile.ZipFile(b.path / ZIP) as old:
        members = {name: old.read(name) for name in old.namelist()}
    b.own(ZIP).unlink()
    with zipfile.ZipFile(b.path / ZIP, "w") as new:
        for name, content in members.items():
            if not name.startswith("cell_summary/0"):
                new.writestr(name, content)


def lose(b: Broken, start: str) -> None:
    """Take the members out of the zip of the matrix whose names begin so."""
    file = b.own(MATRIX)
    with zipfile.ZipFile(file) as old:
        members = {name: old.read(name) for name in old.namelist() if not name.startswith(start)}
    with zipfile.ZipFile(file, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)


def replaced(b: Broken, name: str, values: np.ndarray) -> None:
    with unpacked(b.own(MATRIX)) as root:
        put_array(root, name, values)


def keypoints(*rows: str) -> Callable[[Broken], None]:
    return lambda b: b.write(ALIGNMENT, "\n".join(["fixedX,fixedY,alignmentX,alignmentY", *rows]))


def corrupt_tile(b: Broken) -> None:
    import tifffile

    b.image()
    with tifffile.TiffFile(b.path / IMAGE) as tif:
        page = tif.pages.first
        start, size = page.dataoffsets[0], page.databytecounts[0]
    content = bytearray((b.path / IMAGE).read_bytes())
    content[start : start + size] = b"\xff" * size
    b.write(IMAGE, bytes(content))


def corrupt_page(b: Broken) -> None:
    """Destroy the molecules' places; the footer stays."""
    import pyarrow.parquet as pq

    name = "transcripts.parquet"
    names = pq.read_schema(b.path / name).names
    column = pq.ParquetFile(b.path / name).metadata.row_group(0).column(names.index("x_location"))
    start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray((b.path / name).read_bytes())
    content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    b.write(name, bytes(content))


def second_image(b: Broken) -> None:
    (b.path / "b_he_image.tif").write_bytes((b.path / IMAGE).read_bytes())


def second_alignment(b: Broken) -> None:
    text = b.own(ALIGNMENT).read_text()
    b.remove(ALIGNMENT)
    for name in "ab":
        (b.path / f"{name}_imagealignment.csv").write_text(text)


def empty_cell(b: Broken) -> None:
    def change(data: np.ndarray) -> np.ndarray:
        return np.zeros_like(data)

    b.matrix(data=change)
    counted = ["transcript_counts", "control_probe_counts", "control_codeword_counts", "total_counts"]
    counted += ["unassigned_codeword_counts", "deprecated_codeword_counts", "genomic_control_counts"]
    b.cells(lambda rows: rows.assign(**{name: 0 for name in counted if name in rows}))


ON = ("boundaries", "transcripts", "morphology")
MORE = {name: {name: True} for name in ON}
TEXT_LAYOUTS = ("1.6", "2.0", "3.0", "4.0", "atera-preview", ZARR)
STAINED = tuple(layout for layout in LAYOUTS if layout not in ("1.0", "1.6"))  # one file per stain

FAULTS: dict[str, Fault] = {
    # files
    "no such folder": Fault(lambda b: b.path.rename(b.path.parent / "x"), FileMissingError, ("does not exist", "give")),
    "all three files missing": Fault(
        lambda b: b.remove(MATRIX, CELLS, SPECS), FileMissingError, (MATRIX, CELLS, SPECS, "other files only for what")
    ),
    "boundaries missing": Fault(
        lambda b: b.remove("cell_boundaries.parquet", "nucleus_boundaries.parquet"), FileMissingError,
        ("cell_boundaries.parquet", "nucleus_boundaries.parquet", "Copy"), options=MORE["boundaries"],
        zarr=Fault(lambda b: b.remove(ZIP), FileMissingError, (ZIP, "Copy"), options=MORE["boundaries"]),
    ),
    "transcripts missing": Fault(
        lambda b: b.remove("transcripts.parquet", ZIP), FileMissingError, ("transcripts.parquet", ZIP, "Copy"),
        options=MORE["transcripts"],
        zarr=Fault(lambda b: None, InputError, ("`transcripts=True`", "Atera", "read without"), options=MORE["transcripts"]),
    ),
    "morphology missing, 1.x": Fault(
        lambda b: b.remove("morphology_focus.ome.tif", "morphology_mip.ome.tif"), FileMissingError,
        ("no morphology images", "copy them"), ("1.0", "1.6"), MORE["morphology"],
    ),
    "morphology missing": Fault(
        lambda b: b.remove("morphology_focus"), FileMissingError, ("no morphology images", "copy them"),
        STAINED, MORE["morphology"],
    ),
    "files not needed are missing": Fault(
        lambda b: b.remove("transcripts.parquet", "cell_boundaries.parquet", "gene_panel.json"), EQUAL,
        zarr=Fault(lambda b: b.remove("panel_config.json", "morphology_2d"), EQUAL),
    ),
    "segmentation missing": Fault(lambda b: b.remove(ZIP), EQUAL),
    **{
        f"{name} {kind}": Fault(how, error, (name, *words), FILES if name.endswith("parquet") else LAYOUTS, options)
        for name, error, words, options in (
            (SPECS, InputError, ("no valid JSON", "copy"), {}),
            (MATRIX, InputError, ("cannot be read as HDF5", "Copy"), {}),
            (CELLS, InputError, ("cannot be read as parquet", "copy"), {}),
            (ZIP, InputError, ("is damaged", "copy"), {}),
            (IMAGE, InputError, ("opy",), {}),
            ("cell_boundaries.parquet", InputError, ("cannot be read as parquet", "copy"), MORE["boundaries"]),
            ("transcripts.parquet", InputError, ("cannot be read as parquet", "copy"), MORE["transcripts"]),
        )
        for kind, how in (
            ("truncated", lambda b, name=name: b.truncate(name)),
            ("empty", lambda b, name=name: b.write(name, b"")),
            ("of other bytes", lambda b, name=name: b.write(name, bytes(range(256)) * 8)),
        )
    },
    "transcripts with a corrupt page": Fault(
        corrupt_page, InputError, ("transcripts cannot be", "opy"), FILES, MORE["transcripts"]
    ),
    "morphology truncated, 1.x": Fault(
        lambda b: b.truncate("morphology_focus.ome.tif"), InputError, ("morphology_focus.ome.tif", "truncated", "copy"),
        ("1.0", "1.6"), MORE["morphology"],
    ),
    "morphology truncated": Fault(
        lambda b: b.truncate("morphology_focus/" + ("morphology_focus_0000.ome.tif" if b.version in ("2.0", "3.0") else
                             "ch0000_dapi.ome.tif")), InputError, ("morphology_focus/", "copy"),
        STAINED, MORE["morphology"],
    ),
    # experiment.xenium
    "pixel_size missing": Fault(lambda b: b.specs(pixel_size=...), InputError, (SPECS, "`pixel_size`", "None", "restore")),
    "pixel_size 0": Fault(lambda b: b.specs(pixel_size=0), InputError, (SPECS, "`pixel_size`", "is 0;", "restore")),
    "pixel_size text": Fault(lambda b: b.specs(pixel_size="0.2125"), InputError, (SPECS, "'0.2125'", "restore")),
    "pixel_size NaN": Fault(lambda b: b.specs(pixel_size=float("nan")), InputError, (SPECS, "is nan", "restore")),
    "pixel_size true": Fault(lambda b: b.specs(pixel_size=True), InputError, (SPECS, "is True", "restore")),
    "pixel_size x 10": Fault(lambda b: b.specs(pixel_size=2.125), InputError, (SPECS, "is 2.125", "restore")),
    "pixel_size of a thousand digits": Fault(
        lambda b: b.specs(pixel_size=10**1000), InputError, (SPECS, "`pixel_size`", "restore")
    ),
    "pixel_size 2 % off": Fault(
        lambda b: b.specs(pixel_size=0.217), InputError, (SPECS, "0.217", ZIP, "0.2125", "restore")
    ),
    "version R&D": Fault(lambda b: b.specs(analysis_sw_version="R&D"), EQUAL),
    "version missing": Fault(lambda b: b.specs(analysis_sw_version=...), EQUAL),
    "version of another layout": Fault(lambda b: b.specs(analysis_sw_version="xenium-9.1.0.0"), EQUAL),
    "version R&D, with boundaries": Fault(
        lambda b: b.specs(analysis_sw_version="R&D"), EQUAL, options=MORE["boundaries"]
    ),
    # cell_feature_matrix.h5
    "stored by features": Fault(by_features, InputError, (MATRIX, "stored by features", "one row", "Copy")),
    "index below 0": Fault(
        lambda b: b.matrix(indices=lambda v: put(v, 3, -5)), InputError, (MATRIX, "out of range", "-5", "Copy")
    ),
    "index above the features": Fault(
        lambda b: b.matrix(indices=lambda v: put(v, 3, 10**9)), InputError, (MATRIX, "out of range", "Copy")
    ),
    "indptr out of range": Fault(
        lambda b: b.matrix(indptr=lambda v: put(v, 5, 10**12)), InputError, (MATRIX, "indptr", "Copy")
    ),
    "indptr falling": Fault(
        lambda b: b.matrix(indptr=lambda v: np.r_[v[:3], v[3:-1][::-1], v[-1]]), InputError, (MATRIX, "indptr", "Copy")
    ),
    "indptr of the wrong length": Fault(
        lambda b: b.matrix(indptr=lambda v: v[:-1]), InputError, (MATRIX, "indptr", "Copy")
    ),
    "indices as decimals": Fault(
        lambda b: b.matrix(indices=lambda v: v.astype(float)), InputError, (MATRIX, "float64", "wanted integers", "Copy")
    ),
    "feature twice in one cell": Fault(
        lambda b: b.matrix(indices=lambda v: put(v, 1, v[0])), InputError, (MATRIX, "twice", "Copy")
    ),
    "counts below 0": Fault(
        lambda b: b.matrix(data=lambda v: put(v, 0, -1)), InputError, (MATRIX, "1 counts", "negative", "-1", "Copy")
    ),
    "counts NaN": Fault(
        lambda b: b.matrix(data=lambda v: put(v, 0, np.nan, float)), InputError, (MATRIX, "no whole numbers", "Copy")
    ),
    "counts with decimals": Fault(
        lambda b: b.matrix(data=lambda v: put(v, 0, 0.5, float)), InputError, (MATRIX, "no whole numbers", "0.5", "Copy")
    ),
    "counts as text": Fault(
        lambda b: b.matrix(data=lambda v: v.astype("S")), InputError, (MATRIX, "counts of type", "wanted numbers", "Copy")
    ),
    "counts as float64": Fault(lambda b: b.matrix(data=lambda v: v.astype(float)), EQUAL),
    "counts of another run": Fault(
        lambda b: b.matrix(data=lambda v: v + 1), WARNED, (CELLS, MATRIX, "transcript_counts", "one run")
    ),
    "shape as float64": Fault(lambda b: b.matrix(shape=lambda v: v.astype(float)), EQUAL),
    "shape NaN": Fault(lambda b: b.matrix(shape=np.array([np.nan, 3])), InputError, (MATRIX, "shape", "Copy")),
    "shape wrong": Fault(lambda b: b.matrix(shape=np.array([3, 3])), InputError, (MATRIX, "says shape [3, 3]", "Copy")),
    "shape missing": Fault(lambda b: b.matrix(shape=...), EQUAL),
    "data missing": Fault(lambda b: b.matrix(data=...), InputError, (MATRIX, "no dataset(s) ['data']", "Copy")),
    "no feature_type": Fault(
        lambda b: b.matrix(features__feature_type=...), InputError, (MATRIX, "features/feature_type", "Copy")
    ),
    "no Gene Expression features": Fault(
        lambda b: b.matrix(features__feature_type=lambda v: np.full(v.shape, b"Protein Expression")), InputError,
        (MATRIX, "'Gene Expression'", "Protein Expression", "Copy"),
    ),
    "features of unequal lengths": Fault(
        lambda b: b.matrix(features__name=lambda v: v[:-1]), InputError, (MATRIX, "unequal lengths", "Copy")
    ),
    "names that are no text": Fault(
        lambda b: b.matrix(features__name=lambda v: np.r_[[b"\xff\xfe"], v[1:]]), InputError, (MATRIX, "no text", "copy")
    ),
    "matrix of two dimensions": Fault(
        lambda b: b.matrix(data=lambda v: v[None]), InputError, (MATRIX, "/matrix/data", "no list", "Copy")
    ),
    "no cells": Fault(
        lambda b: b.matrix(barcodes=np.array([], "S10"), indptr=np.array([0]), data=np.array([], "i4"),
                           indices=np.array([], "i8"), shape=...), InputError, (MATRIX, "holds no cells"),
    ),
    "all-zero cells": Fault(empty_cell, "read, all zero"),
    "duplicate symbols": Fault(
        lambda b: b.matrix(features__name=lambda v: np.r_[v[:1], v[:1], v[2:]]), "read, symbols made unique"
    ),
    # ids
    "cells in another order than the matrix": Fault(
        lambda b: b.cells(shuffled), EQUAL,
        zarr=Fault(lambda b: b.cells(shuffled), WARNED, (CELLS, MATRIX, "transcript_counts", "one run")),
    ),
    "cells in another order than the matrix, boundaries": Fault(
        lambda b: b.cells(shuffled), EQUAL, options=MORE["boundaries"],
        zarr=Fault(Broken.reorder_segmentation, EQUAL, options=MORE["boundaries"]),
    ),
    "segmentation in another order": Fault(Broken.reorder_segmentation, EQUAL, (), STAINED),
    "barcodes swapped": Fault(
        lambda b: b.matrix(barcodes=swap), WARNED, (CELLS, MATRIX, "transcript_counts", "2", "one run"),
        zarr=Fault(lambda b: b.matrix(barcodes=swap), WARNED, (CELLS, ZIP, "x_centroid differs for 2", "one run")),
    ),
    "cell listed twice": Fault(
        lambda b: b.cells(lambda r: pd.concat([r, r.iloc[:2]])), InputError, (CELLS, "2 cell ids more than once", "use"),
        zarr=Fault(lambda b: b.cells(lambda r: pd.concat([r, r.iloc[:2]])), InputError, (MATRIX, "says shape", "Copy")),
    ),
    "barcode listed twice": Fault(
        lambda b: b.matrix(barcodes=lambda v: np.r_[v[:1], v[:1], v[2:]]), InputError, (MATRIX, "more than once", "use")
    ),
    "cells missing in one file": Fault(
        lambda b: b.cells(lambda r: r.iloc[3:]), InputError, (CELLS, MATRIX, "3 cells", "take both files from one"),
        zarr=Fault(lambda b: b.cells(lambda r: r.iloc[3:]), InputError, (MATRIX, "says shape", "Copy")),
    ),
    "ids numbers in one file, text in the other": Fault(
        lambda b: b.cells(lambda r: r.assign(cell_id=np.arange(1, len(r) + 1))), InputError,
        (CELLS, MATRIX, "'1'", "take both files from one"), TEXT_LAYOUTS,
        zarr=Fault(
            lambda b: b.cells(lambda r: r.assign(cell_id=np.arange(1, len(r) + 1))), WARNED,
            (CELLS, ZIP, "cells are missing there", "Take both"),
        ),
    ),
    "ids bytes in one file, text in the other": Fault(
        lambda b: b.cells(lambda r: r.assign(cell_id=[v if isinstance(v, bytes) else str(v).encode() for v in r.cell_id])),
        EQUAL,
    ),
    "ids as decimals": Fault(lambda b: b.cells(lambda r: r.assign(cell_id=r.cell_id.astype(float))), EQUAL, (), ("1.0",)),
    "ids that are no text": Fault(
        lambda b: b.cells(lambda r: r.assign(cell_id=[b"\xff\xfe%d" % i for i in range(len(r))])), InputError,
        (CELLS, "no text", "copy"),
    ),
    "segmentation of other cells": Fault(
        other_zip_member, WARNED, (CELLS, ZIP, "x_centroid differs", "Take both files from one")
    ),
    "segmentation of other cells, boundaries": Fault(
        other_zip_member, InputError, (CELLS, ZIP, "x_centroid differs", "Take both"), options=MORE["boundaries"]
    ),
    # centroids
    "one centroid NaN": Fault(lambda b: b.cells(at_centroid(1, np.nan)), WARNED, ("1 of", CELLS, "no finite centroid")),
    "one centroid infinite": Fault(lambda b: b.cells(at_centroid(1, np.inf)), WARNED, ("1 of", CELLS, "left out")),
    "5 centroids NaN": Fault(
        lambda b: b.cells(at_centroid(5, np.nan)), InputError, ("5 of", CELLS, "no finite centroid", "check")
    ),
    "centroids missing": Fault(
        lambda b: b.cells(without("y_centroid")), InputError, (CELLS, "['y_centroid']", "Use the original"),
        zarr=Fault(lambda b: b.cells(without("y_centroid")), InputError, (CELLS, "['centroid_row']", "Copy")),
    ),
    "centroids as text": Fault(
        lambda b: b.cells(lambda r: r.assign(x_centroid=r.x_centroid.astype(str))), InputError,
        (CELLS, "['x_centroid']", "hold no numbers", "Use the original"),
        zarr=Fault(
            lambda b: b.cells(lambda r: r.assign(x_centroid=r.x_centroid.astype(str))), InputError,
            (CELLS, "['centroid_column']", "hold no numbers", "Copy"),
        ),
    ),
    "centroids moved by 2 um": Fault(
        lambda b: b.cells(lambda r: r.assign(x_centroid=r.x_centroid + 2)), WARNED, (CELLS, ZIP, "x_centroid differs")
    ),
    "a letter of a method changed": Fault(
        lambda b: b.cells(lambda r: r.assign(segmentation_method=r.segmentation_method.str.replace("Seg", "Sog", n=1))),
        WARNED, (CELLS, ZIP, "Sogmented", "does not list"), STAINED[:-1],
    ),
    "area unknown": Fault(lambda b: (b.remove(ZIP), b.cells(without("cell_area"))), "read, median radius"),
    "cells outside the image": Fault(
        lambda b: (b.remove(ZIP), b.cells(lambda r: r.assign(x_centroid=r.x_centroid + 5000))), AlignmentError,
        (ALIGNMENT, "100%", "outside the H&E", "check"),
    ),
    # only where all is one zipped Zarr
    "a piece of the counts missing": Fault(
        lambda b: lose(b, "X/data/0"), InputError, (MATRIX, "0 of the 1 pieces of /X/data", "Copy"), (ZARR,)
    ),
    **{
        f"a piece of {array} missing": Fault(
            lambda b, array=array: lose(b, f"{array}/0"), InputError, (MATRIX, f"0 of the 1 pieces of /{array}", "Copy"), (ZARR,)
        )
        for array in ("obs/barcode", "obs/centroid_row", "var/feature_id", "var/feature_name", "var/feature_type")
    },
    "a matrix that is not sparse": Fault(
        lambda b: replaced(b, "X", np.zeros((3, 3))), InputError, (MATRIX, "sparse matrix (CSR)", "Copy"), (ZARR,)
    ),
    "the matrix of a Xenium bundle": Fault(
        lambda b: replaced(b, "cell_features", np.zeros(3)), InputError, (MATRIX, "as Xenium writes it", "Copy"), (ZARR,)
    ),
    "barcodes missing": Fault(
        lambda b: b.matrix(barcodes=...), InputError, (MATRIX, "['barcode']", "Copy"), (ZARR,)
    ),
    "gene names missing": Fault(
        lambda b: b.matrix(features__name=...), InputError, (MATRIX, "['feature_name']", "Copy"), (ZARR,)
    ),
    "cells without a table": Fault(lambda b: lose(b, "obs/"), InputError, (MATRIX, "['obs']", "Copy"), (ZARR,)),
    "a column shorter than the others": Fault(
        lambda b: replaced(b, "obs/cell_area", np.ones(3)), InputError, (MATRIX, "{'cell_area': 3}", "Copy"), (ZARR,)
    ),
    "columns with names that a store refuses": Fault(
        lambda b: replaced(b, "obs/k=2 (a)", np.ones(N_CELLS)), EQUAL, (), (ZARR,)
    ),
    **{
        f"outlines {what}": Fault(
            lambda b, fields=fields: b.polygons(**fields), answer, (ZIP, *words), (ZARR,), MORE["boundaries"]
        )
        for what, fields, answer, words in (
            ("of cells that are not there", {"cell_index": lambda v: v + 5}, InputError, ("out of range", "Copy")),
            ("of other cells", {"cell_index": lambda v: np.roll(v, 1)}, InputError, ("centroids", "take all files")),
            ("in pixels", {"vertices": lambda v: v / 0.2125}, InputError, ("centroids", "take all files")),
            ("longer than their vertices", {"num_vertices": lambda v: v + 90}, InputError, ("more than there are", "Copy")),
            ("with vertices NaN", {"vertices": lambda v: v * np.nan}, InputError, ("not finite", "Copy")),
            ("fewer than owners", {"vertices": lambda v: v[:-1]}, InputError, ("owners", "Copy")),
            ("without area", {"num_vertices": lambda v: np.r_[2, v[1:]]}, WARNED, ("1 outlines of cells", "left out")),
        )
    },
}  # fmt: skip
# alike in all layouts: the H&E and its alignment
OF_HE: dict[str, Fault] = {
    "no alignment": Fault(lambda b: b.remove(ALIGNMENT), AlignmentError, (IMAGE, ALIGNMENT, "no alignment", "he_alignment=")),
    "two images": Fault(second_image, InputError, (IMAGE, "b_he_image.tif", "he_image=")),
    "two alignments": Fault(
        second_alignment, AlignmentError, ("a_imagealignment.csv", "b_imagealignment.csv", "he_alignment=")
    ),
    ".tif instead of .ome.tif": Fault(lambda b: (b.path / IMAGE).rename(b.path / "S1_he_image.tif"), EQUAL),
    "image of an unknown kind": Fault(
        lambda b: (b.path / IMAGE).rename(b.path / "S1.xyz"), InputError, (".xyz", "wanted", "onvert"),
        options={"he_image": "S1.xyz"},
    ),
    "image not there": Fault(
        lambda b: None, FileMissingError, ("gone.tif", "Give"), options={"he_image": "gone.tif", "he_alignment": "identity"}
    ),
    "matrix singular": Fault(
        lambda b: b.alignment(lambda m: np.diag([0, 0, 1])), AlignmentError, (ALIGNMENT, "singular", "again")
    ),
    "matrix NaN": Fault(lambda b: b.alignment(lambda m: m * np.nan), AlignmentError, (ALIGNMENT, "NaN", "again")),
    "matrix projective": Fault(
        lambda b: b.alignment(lambda m: m + np.outer([0, 0, 1], [1e-4, 0, 0])), AlignmentError,
        (ALIGNMENT, "last row", "affine"),
    ),
    "matrix 2 x 3": Fault(lambda b: b.alignment(lambda m: m[:2]), AlignmentError, (ALIGNMENT, "2 row(s)", "again")),
    "matrix transposed": Fault(lambda b: b.alignment(lambda m: m.T), AlignmentError, (ALIGNMENT, "last row", "transpose")),
    "matrix with a header": Fault(
        lambda b: b.write(ALIGNMENT, "a,b,c\n" + b.own(ALIGNMENT).read_text()), AlignmentError,
        (ALIGNMENT, "text", "header"),
    ),
    "matrix in um": Fault(
        lambda b: b.alignment(lambda m: np.diag([0.2125, 0.2125, 1]) @ m), AlignmentError,
        (ALIGNMENT, "implies an H&E pixel", "not to um"),
    ),
    "matrix inverse": Fault(lambda b: b.alignment(np.linalg.inv), AlignmentError, (ALIGNMENT, "outside the H&E", "inverse")),
    "matrix squeezed": Fault(
        lambda b: b.alignment(lambda m: m @ np.diag([2, 1, 1])), AlignmentError, (ALIGNMENT, "stretches", "again")
    ),
    "alignment empty": Fault(lambda b: b.write(ALIGNMENT, ""), AlignmentError, (ALIGNMENT, "again")),
    "alignment no text": Fault(lambda b: b.write(ALIGNMENT, b"\xff\xfe\x00"), AlignmentError, (ALIGNMENT, "again")),
    "two keypoints": Fault(keypoints("0,0,0,0", "9,9,9,9"), AlignmentError, (ALIGNMENT, "keypoints")),
    "keypoints on a line": Fault(
        keypoints(*(f"{i * 100},{i * 100},{i * 90},{i * 90}" for i in range(5))), AlignmentError, (ALIGNMENT, "line")
    ),
    # pixels of the H&E
    "image gray": Fault(
        lambda b: b.image(lambda p: p[..., 0], photometric="minisblack", metadata={"axes": "YX"}), InputError,
        (IMAGE, "RGB"),
    ),
    "image 16-bit": Fault(lambda b: b.image(lambda p: p.astype(np.uint16) * 100), InputError, (IMAGE, "16")),
    "image of decimals": Fault(lambda b: b.image(lambda p: p.astype(np.float32)), InputError, (IMAGE, "float32")),
    "image transparent": Fault(
        lambda b: b.image(lambda p: np.dstack([p, np.full(p.shape[:2], 200, np.uint8)]), extrasamples=["unassalpha"]),
        InputError, (IMAGE, "transparent"),
    ),
    "image with an opaque alpha": Fault(
        lambda b: b.image(lambda p: np.dstack([p, np.full(p.shape[:2], 255, np.uint8)]), extrasamples=["unassalpha"]),
        EQUAL,
    ),
    "image planar": Fault(
        lambda b: b.image(lambda p: np.ascontiguousarray(np.moveaxis(p, 2, 0)), planarconfig="separate",
                          metadata={"axes": "SYX"}), EQUAL,
    ),
    "corrupt tile": Fault(corrupt_tile, InputError, (IMAGE, "opy")),
    # names
    **{
        f"image name {name[:8]!r}": Fault(lambda b: None, InputError, ("`image_key=", "letters"), options={"image_key": name})
        for name in ("a/b", "..", "a b", "x" * 101, "")
    },
    "table and image of one name": Fault(
        lambda b: None, InputError, ("`image_key='one'`", "`table_key='one'`", "choose"), options={"image_key": "one", "table_key": "one"}
    ),
}  # fmt: skip
