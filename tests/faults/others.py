"""What copying, spreadsheets, other software and other systems do to the files of a bundle, and the reader's answers."""

from __future__ import annotations

import gzip
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile

from spatialsig.errors import AlignmentError, FileMissingError, InputError, SpatialsigError

from .conftest import ALIGNMENT, FILES, IMAGE, LAYOUTS, MATRIX_ZARR, ZARR, Broken
from .table import CELLS, EQUAL, MATRIX, MORE, SPECS, STAINED, WARNED, ZIP, Fault, put

NEEDED = (SPECS, MATRIX, CELLS)
OF_IMAGE = {"he_image": "S1.png"}
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 123456789\n".format("0" * 64)
PAGE = "<!DOCTYPE html>\n<html><body><h1>403 Forbidden</h1></body></html>\n"


# what stands in the place of a file
def gzipped(b: Broken, name: str) -> None:
    b.write(name, gzip.compress((b.path / b.spelled(name)).read_bytes(), 1))


def zeros(b: Broken, name: str) -> None:
    b.write(name, bytes((b.path / b.spelled(name)).stat().st_size))


def in_place_of(make: Callable[[Path], Any]) -> Callable[[Broken, str], None]:
    def change(b: Broken, name: str) -> None:
        b.remove(name)
        make(b.path / b.spelled(name))

    return change


def named(change: Callable[[str], str]) -> Callable[[Broken, str], None]:
    def rename(b: Broken, name: str) -> None:
        file = b.path / b.spelled(name)
        file.rename(file.with_name(change(file.name)))

    return rename


IN_PLACE: dict[str, tuple[Callable[[Broken, str], None], str]] = {
    "a Git LFS pointer": (lambda b, name: b.write(name, LFS), "git lfs pull"),
    "a web page": (lambda b, name: b.write(name, PAGE), "web page"),
    "gzipped under the same name": (gzipped, "gzip"),
    "all zeros": (zeros, "zeros"),
    "a folder": (in_place_of(lambda file: file.mkdir()), "is a folder"),
    "a pipe": (in_place_of(os.mkfifo), "pipe"),
    "a link to nowhere": (in_place_of(lambda file: file.symlink_to("/gone/file")), "link to '/gone/file'"),
    "a link to itself": (in_place_of(lambda file: file.symlink_to(file)), "link to"),
}
MISNAMED: dict[str, Callable[[str], str]] = {
    "in capitals": str.upper,
    "half downloaded": lambda name: f"{name}.part",
    "with a copy's number": lambda name: f"{name.partition('.')[0]} (1).{name.partition('.')[2]}",
    "still compressed": lambda name: f"{name}.gz",
}


def error_of(kind: str, name: str) -> type[Exception]:
    if "link" in kind:
        return FileMissingError
    return AlignmentError if name == ALIGNMENT and kind != "a pipe" else InputError


def clutter(b: Broken) -> None:
    """What file managers leave beside files and in zips."""
    for file in [*b.path.iterdir()]:
        (b.path / f"._{file.name}").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "~$cells.xlsx"):
        (b.path / name).write_bytes(b"\x00")
    (b.path / "__MACOSX").mkdir()
    (b.path / "__MACOSX" / "._cells.parquet").write_bytes(b"\x00")
    for folder in ("morphology_focus", "morphology_2d"):
        if (b.path / folder).exists():
            (b.path / folder / "._ch0000_dapi.ome.tif").write_bytes(b"\x00")


def rezip(b: Broken, name: str, change: Callable[[str], str] = str, **options: Any) -> zipfile.ZipFile:
    """Members of a zip under other names, in a new one that may be added to."""
    file = b.own(name)
    with zipfile.ZipFile(file) as old:
        members = {change(member): old.read(member) for member in old.namelist()}
    new = zipfile.ZipFile(file, "w", **options)
    for member, content in members.items():
        new.writestr(member, content)
    return new


def locked(b: Broken, name: str) -> None:
    """A zip whose members are said to be encrypted."""
    content = bytearray(b.own(name).read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(mark)
        while start >= 0:
            content[start + at] |= 1
            start = content.find(mark, start + 1)
    b.write(name, bytes(content))


def bundle_as_zip(b: Broken) -> None:
    with zipfile.ZipFile(b.path.with_suffix(".zip"), "w") as zipped:
        for file in (file for file in b.path.iterdir() if file.is_file()):
            zipped.write(file, f"S1/{file.name}")
    b.path = b.path.with_suffix(".zip")


def nested(b: Broken) -> None:
    inner = b.path.rename(b.path.with_name("other"))
    b.path.mkdir()
    inner.rename(b.path / "outs")


def moved_to(name: str) -> Callable[[Broken], None]:
    def move(b: Broken) -> None:
        b.path = b.path.rename(b.path.with_name(name))

    return move


def through_a_link(b: Broken) -> None:
    b.path.with_name("link").symlink_to(b.path)
    b.path = b.path.with_name("link")


# cells.parquet as other software writes it
def parquet(change: Callable[[pa.Table], pa.Table] = lambda table: table, **options: Any) -> Callable[[Broken], None]:
    def write(b: Broken) -> None:
        file = b.own(CELLS)
        pq.write_table(change(pq.read_table(file)), file, **options)

    return write


def column(name: str, change: Callable[[pa.ChunkedArray], Any]) -> Callable[[pa.Table], pa.Table]:
    def replace(table: pa.Table) -> pa.Table:
        place = table.column_names.index(name)
        return table.set_column(place, name, change(table.column(name)))

    return replace


def text_ids(dtype: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    return column("cell_id", lambda ids: ids.cast(pa.string()).cast(dtype))


def more(name: str, values: Callable[[int], Any]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.append_column(name, values(len(table)))


def changed_ids(change: Callable[[str], str]) -> Callable[[Broken], None]:
    return parquet(
        column("cell_id", lambda ids: pa.array([change(i) for i in ids.cast(pa.string()).to_pylist()], pa.string()))
    )


# the matrix as other software writes it
def reversed_rows(b: Broken) -> None:
    """Indices of each cell falling instead of rising."""
    starts: list[np.ndarray] = []
    b.matrix(indptr=lambda v: starts.append(v) or v)

    def turned(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values[a:z][::-1] for a, z in zip(starts[0][:-1], starts[0][1:], strict=True)])

    b.matrix(indices=turned, data=turned)


def as_h5ad(b: Broken) -> None:
    with h5py.File(b.own(MATRIX), "w") as file:
        for name in ("X", "obs", "var"):
            file.create_group(name)


def link_inside(b: Broken) -> None:
    with h5py.File(b.own(MATRIX), "r+") as file:
        del file["matrix/data"]
        file["matrix/data"] = h5py.ExternalLink("gone.h5", "/data")


def packed_again(b: Broken) -> None:
    with h5py.File(b.own(MATRIX), "r+") as file:
        for name in ("data", "indices"):
            values = file[f"matrix/{name}"][()]
            del file[f"matrix/{name}"]
            file.create_dataset(f"matrix/{name}", data=values, compression="lzf", shuffle=True, chunks=(100,))


def long_text(values: np.ndarray) -> np.ndarray:
    return np.array([v.decode() for v in values], dtype=h5py.string_dtype())


def alignment_text(change: Callable[[str], str | bytes]) -> Callable[[Broken], None]:
    return lambda b: b.write(ALIGNMENT, change(b.own(ALIGNMENT).read_text()))


# the H&E as other software writes it
def png(change: Callable[[np.ndarray], np.ndarray] = lambda p: p, **options: Any) -> Callable[[Broken], None]:
    def write(b: Broken) -> None:
        import imagecodecs

        pixels = tifffile.imread(b.path / IMAGE, series=0, level=0)
        (b.path / "S1.png").write_bytes(imagecodecs.png_encode(change(pixels), **options))
        b.remove(IMAGE)

    return write


def pillow_png(**options: Any) -> Callable[[Broken], None]:
    def write(b: Broken) -> None:
        from PIL import Image

        mode, save = options.get("mode", "RGB"), options.get("save", {})
        picture = Image.fromarray(tifffile.imread(b.path / IMAGE, series=0, level=0))
        (picture.quantize(200) if mode == "P" else picture.convert(mode)).save(b.path / "S1.png", **save)
        b.remove(IMAGE)

    return write


def tags(change: Callable[[tifffile.TiffFile], None], **options: Any) -> Callable[[Broken], None]:
    """Write the H&E plain, then change its tags in place."""

    def write(b: Broken) -> None:
        b.image(**options)
        with tifffile.TiffFile(b.path / IMAGE, mode="r+b") as tif:
            change(tif)

    return write


def counts_of_bytes(value: int) -> Callable[[Broken], None]:
    def change(tif: tifffile.TiffFile) -> None:
        tag = tif.pages.first.tags["TileByteCounts"]
        tag.overwrite([value] * tag.count)

    return tags(change)


def moved_tiles(move: Callable[[int], int]) -> Callable[[Broken], None]:
    def change(tif: tifffile.TiffFile) -> None:
        tag = tif.pages.first.tags["TileOffsets"]
        tag.overwrite([move(int(offset)) for offset in np.atleast_1d(tag.value)])

    return tags(change)


def looping(b: Broken) -> None:
    """The list of pages leads back to its first."""
    b.image(bigtiff=False)
    content = bytearray((b.path / IMAGE).read_bytes())
    start = int.from_bytes(content[4:8], "little")
    end = start + 2 + 12 * int.from_bytes(content[start : start + 2], "little")
    content[end : end + 4] = start.to_bytes(4, "little")
    b.write(IMAGE, bytes(content))


def described(change: Callable[[str], str]) -> Callable[[Broken], None]:
    def write(tif: tifffile.TiffFile) -> None:
        tif.pages.first.tags["ImageDescription"].overwrite(change(tif.ome_metadata))

    return tags(write)


def two_slides(b: Broken) -> None:
    pixels = tifffile.imread(b.path / IMAGE, series=0, level=0)
    b.remove(IMAGE)
    with tifffile.TiffWriter(b.path / IMAGE) as tif:
        for part in (pixels, pixels[:-100, :-50]):
            tif.write(part, photometric="rgb", tile=(256, 256), compression="zlib", metadata=None)


def without_tables(b: Broken) -> None:
    """JPEG tiles whose tables are neither in them nor in the tag for them."""
    b.image(compression="jpeg", photometric="rgb")
    content = (b.path / IMAGE).read_bytes()
    b.write(IMAGE, content.replace(b"\xff\xdb\x00", b"\xff\xfe\x00").replace(b"\xff\xc4\x00", b"\xff\xfe\x00"))


def renamed_copy(data: bytes) -> Callable[[Broken], None]:
    return lambda b: b.write(IMAGE, data)


OTHERS: dict[str, Fault] = {
    # something else in the place of a file
    **{
        f"{name} is {kind}": Fault(
            lambda b, name=name, how=how: how(b, name),
            error_of(kind, name),
            (name, word),
            FILES if name == CELLS else LAYOUTS,
        )
        for kind, (how, word) in IN_PLACE.items()
        for name in (SPECS, MATRIX, CELLS, ZIP, IMAGE, ALIGNMENT)
        if not (name == ALIGNMENT and kind in ("a folder",))
    },
    **{
        f"{name} {kind}": Fault(
            lambda b, name=name, how=how: named(how)(b, name),
            FileMissingError,
            (name, "rename"),
            FILES if name == CELLS else LAYOUTS,
        )
        for kind, how in MISNAMED.items()
        for name in NEEDED
    },
    "image half downloaded": Fault(
        lambda b: named(MISNAMED["half downloaded"])(b, IMAGE), WARNED, (f"{IMAGE}.part", "he_image=")
    ),
    "image of a kind that is not looked for": Fault(
        lambda b: (b.path / IMAGE).rename(b.path / "S1_he_image.png"), WARNED, ("S1_he_image.png", "he_image=")
    ),
    "alignment without its image": Fault(lambda b: b.remove(IMAGE), WARNED, (ALIGNMENT, "he_image=")),
    "alignment in capitals": Fault(lambda b: named(str.upper)(b, ALIGNMENT), EQUAL),
    "image in capitals": Fault(lambda b: named(str.upper)(b, IMAGE), EQUAL),
    # the folder
    "what file managers leave": Fault(clutter, EQUAL),
    "what file managers leave, morphology": Fault(clutter, EQUAL, (), STAINED, MORE["morphology"]),
    "the bundle as a zip": Fault(bundle_as_zip, SpatialsigError, ("S1.zip", "unpack")),
    "the bundle one folder deeper": Fault(nested, FileMissingError, ("outs", "give")),
    "the bundle through a link": Fault(through_a_link, EQUAL),
    **{
        f"the bundle named {name!r}": Fault(moved_to(name), EQUAL)
        for name in ("été 東京", "it's \"S1\"", "S1\nB", "S1[0]*?", "S1 #100%", "-S1", "~S1 $HOME")
    },
    # the manifest
    "manifest with a byte order mark": Fault(
        lambda b: b.write(SPECS, b"\xef\xbb\xbf" + b.own(SPECS).read_bytes()), EQUAL
    ),
    "manifest as UTF-16": Fault(lambda b: b.write(SPECS, b.own(SPECS).read_text().encode("utf-16")), EQUAL),
    "manifest with Windows line ends": Fault(
        lambda b: b.write(SPECS, b.own(SPECS).read_text().replace(",", ",\r\n")), EQUAL
    ),
    "manifest with a comma too many": Fault(
        lambda b: b.write(SPECS, b.own(SPECS).read_text().rstrip()[:-1] + ",}"), InputError, (SPECS, "no valid JSON")
    ),
    "manifest as a list": Fault(
        lambda b: b.write(SPECS, f"[{b.own(SPECS).read_text()}]"), InputError, (SPECS, "list", "restore")
    ),
    "manifest nested without end": Fault(
        lambda b: b.write(SPECS, "[" * 100_000), InputError, (SPECS, "no valid JSON")
    ),
    **{
        f"pixel_size {what}": Fault(
            lambda b, value=value: b.specs(pixel_size=value), InputError, (SPECS, "`pixel_size`", "restore")
        )
        for what, value in (
            ("in nm", 212.5), ("negative", -0.2125), ("infinite", float("inf")), ("with a unit", "0.2125 µm"),
            ("a list", [0.2125, 0.2125]), ("null", None), ("with a decimal comma", "0,2125"),
        )
    },
    "pixel_size said twice": Fault(
        lambda b: b.write(SPECS, '{"pixel_size": 0.4,' + b.own(SPECS).read_text().lstrip()[1:]), InputError,
        (SPECS, "pixel_size", "twice", "restore"),
    ),
    "version of other types": Fault(
        lambda b: b.specs(analysis_sw_version=4.0, xenium_ranger="4.0", major_version="x"), EQUAL
    ),
    # cells.parquet of other software
    **{
        f"ids as {dtype}": Fault(parquet(text_ids(dtype)), EQUAL, (), FILES)
        for dtype in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.string()))
    },
    "cells in many row groups": Fault(parquet(row_group_size=7), EQUAL, (), FILES),
    "cells in the old format of parquet": Fault(
        parquet(version="1.0", data_page_version="2.0", compression="brotli", use_dictionary=False), EQUAL, (), FILES
    ),
    "cells with an index of pandas": Fault(
        lambda b: pd.read_parquet(b.own(CELLS)).set_index(np.arange(100)[::-1]).to_parquet(b.own(CELLS)), EQUAL, (), FILES
    ),
    "cells as a csv": Fault(
        lambda b: b.write(CELLS, pd.read_parquet(b.own(CELLS)).to_csv()), InputError, (CELLS, "parquet", "copy"), FILES
    ),
    "cells as a folder of parts": Fault(
        lambda b: (b.remove(CELLS), (b.path / CELLS).mkdir(), (b.path / CELLS / "part-0.parquet").write_bytes(b"PAR1")),
        InputError, (CELLS, "is a folder"), FILES,
    ),
    "a column twice": Fault(
        parquet(more("x_centroid", lambda n: pa.array(np.zeros(n)))), InputError, (CELLS, "x_centroid", "twice"), FILES
    ),
    "a column that is not needed twice": Fault(
        parquet(lambda t: more("note", lambda n: pa.array(["a"] * n))(more("note", lambda n: pa.array(["a"] * n))(t))),
        InputError, (CELLS, "note", "twice"), FILES,
    ),
    "columns in capitals": Fault(
        parquet(lambda t: t.rename_columns([name.upper() for name in t.column_names])), InputError,
        (CELLS, "no column(s)", "cell_id"), FILES,
    ),
    **{
        f"a column of {what}": Fault(
            parquet(more("extra", values)), InputError, (CELLS, "'extra'", "cannot be stored", "Turn it into"), FILES
        )
        for what, values in (
            ("lists", lambda n: pa.array([[1, 2]] * n)),
            ("structures", lambda n: pa.array([{"a": 1}] * n)),
            ("times", lambda n: pa.array([0] * n, pa.timestamp("us"))),
            ("decimals", lambda n: pa.array([1] * n).cast(pa.decimal128(21, 2))),
            ("bytes", lambda n: pa.array([b"\xff"] * n)),
        )
    },
    **{
        f"a column of {what}": Fault(parquet(more("extra", values)), EQUAL, (), FILES, {"out": True})
        for what, values in (
            ("truth values and gaps", lambda n: pa.array([None, True] * (n // 2))),
            ("nothing", lambda n: pa.nulls(n)),
            ("text and gaps", lambda n: pa.array([None, "a"] * (n // 2)).dictionary_encode()),
        )
    },
    **{
        f"a column called {name[:8]!r}": Fault(
            parquet(more(name, lambda n: pa.array(np.ones(n)))), InputError, (CELLS, repr(name), "cannot be stored", "rename"), FILES
        )
        for name in ("area/um2", "", "_index", "a b", "x" * 300)
    },
    **{
        f"a column called {name!r}": Fault(
            parquet(more(name, lambda n: pa.array(np.ones(n)))), WARNED, (CELLS, f"{name}_original"), FILES
        )
        for name in ("Cell_ID", "sample", "Region")
    },
    "centroids in px": Fault(
        lambda b: (b.remove(ZIP), b.cells(lambda r: r.assign(x_centroid=r.x_centroid / 0.2125, y_centroid=r.y_centroid / 0.2125))),
        AlignmentError, (ALIGNMENT, "outside the H&E"),
    ),
    "centroids swapped": Fault(
        lambda b: b.cells(lambda r: r.assign(x_centroid=r.y_centroid, y_centroid=r.x_centroid)), WARNED,
        (CELLS, ZIP, "x_centroid differs"),
    ),
    "centroids in single precision": Fault(
        lambda b: b.cells(lambda r: r.assign(x_centroid=r.x_centroid.astype("float32").astype(float))), "read, in single precision"
    ),
    "areas below 0": Fault(
        lambda b: b.cells(lambda r: r.assign(cell_area=-1.0)), WARNED, (CELLS, ZIP, "cell_area differs")
    ),
    "areas as text": Fault(lambda b: b.cells(lambda r: r.assign(cell_area="12 µm²")), InputError, (CELLS, "['cell_area']", "hold no numbers")),
    "a row of totals": Fault(
        lambda b: b.cells(lambda r: pd.concat([r, r.iloc[:1].assign(cell_id=type(r.cell_id[0])(99_999_999) if not isinstance(r.cell_id[0], (str, bytes)) else "Total")])),
        InputError, (CELLS, "cells"), FILES,
    ),
    "no rows": Fault(lambda b: b.cells(lambda r: r.iloc[:0]), InputError, (CELLS,), FILES),
    "ids of another region": Fault(changed_ids(lambda i: f"{i}7x"), InputError, (CELLS, MATRIX, "one bundle"), FILES),
    "ids with blanks": Fault(changed_ids(lambda i: f"{i} "), InputError, (CELLS, MATRIX, "one bundle"), FILES),
    "an id missing": Fault(
        parquet(column("cell_id", lambda ids: pa.array([None, *ids.to_pylist()[1:]], ids.type))), InputError,
        (CELLS, "cell_id"), FILES,
    ),
    # the matrix of other software
    "unsorted indices": Fault(reversed_rows, EQUAL),
    **{
        f"{name} missing": Fault(lambda b, name=name: b.matrix(**{name: ...}), InputError, (MATRIX, name, "Copy"))
        for name in ("indices", "indptr")
    },
    **{
        f"counts as {dtype}": Fault(lambda b, dtype=dtype: b.matrix(data=lambda v: v.astype(dtype)), EQUAL)
        for dtype in ("int64", "uint16", "float32", ">i4")
    },
    "counts as truth values": Fault(
        lambda b: b.matrix(data=lambda v: v.astype(bool)), InputError, (MATRIX, "counts of type bool", "Copy")
    ),
    "counts infinite": Fault(
        lambda b: b.matrix(data=lambda v: put(v, 0, np.inf, float)), InputError, (MATRIX, "no whole numbers", "Copy")
    ),
    "a count beyond all counts": Fault(
        lambda b: b.matrix(data=lambda v: put(v, 0, 2**40 + 1, np.int64)), InputError, (MATRIX, "2^24", "Copy")
    ),
    "counts normalised": Fault(
        lambda b: b.matrix(data=lambda v: np.log1p(v)), InputError, (MATRIX, "no whole numbers", "Copy")
    ),
    "indptr counted from 1": Fault(
        lambda b: b.matrix(indptr=lambda v: v + 1), InputError, (MATRIX, "indptr", "from 0", "Copy")
    ),
    "indices as int32": Fault(lambda b: b.matrix(indices=lambda v: v.astype("i4"), indptr=lambda v: v.astype("i4")), EQUAL),
    "text of variable length": Fault(
        lambda b: b.matrix(barcodes=long_text, features__name=long_text, features__id=long_text), EQUAL, (), FILES
    ),
    "counts compressed in another way": Fault(packed_again, EQUAL, (), FILES),
    "an h5ad": Fault(as_h5ad, InputError, (MATRIX, "no group /matrix", "obs", "Copy"), FILES),
    "counts in another file": Fault(link_inside, InputError, (MATRIX, "Copy"), FILES),
    "names empty": Fault(
        lambda b: b.matrix(features__name=lambda v: put(v, slice(0, 2), b"")), "read, named by id"
    ),
    "one gene of an unknown type": Fault(
        lambda b: b.matrix(features__feature_type=lambda v: put(v.astype("S40"), 0, b"Custom")), WARNED, (CELLS, "transcript_counts")
    ),
    "feature types in small letters": Fault(
        lambda b: b.matrix(features__feature_type=lambda v: np.char.lower(v)), InputError,
        (MATRIX, "'Gene Expression'", "gene expression"),
    ),
    "all names one": Fault(
        lambda b: b.matrix(features__name=lambda v: np.full(v.shape, b"GENE")), "read, symbols made unique"
    ),
    # zips that were packed again
    "segmentation packed again": Fault(
        lambda b: rezip(b, ZIP, compression=zipfile.ZIP_DEFLATED).close(), EQUAL, options=MORE["boundaries"]
    ),
    "segmentation in a folder of its zip": Fault(
        lambda b: rezip(b, ZIP, lambda name: f"cells.zarr/{name}").close(), InputError, (ZIP, "cells.zarr/", "again")
    ),
    "segmentation with what macOS adds": Fault(
        lambda b: (new := rezip(b, ZIP), new.writestr("__MACOSX/._cell_id", b"\0"), new.close()), EQUAL
    ),
    "segmentation with a password": Fault(lambda b: locked(b, ZIP), InputError, (ZIP, "copy")),
    "segmentation unpacked": Fault(
        lambda b: (b.path / ZIP).rename(b.path / "cells.zarr"), EQUAL
    ),
    "counts with a password": Fault(lambda b: locked(b, MATRIX_ZARR), InputError, (MATRIX_ZARR, "copy"), (ZARR,)),
    "counts in a folder of their zip": Fault(
        lambda b: rezip(b, MATRIX_ZARR, lambda name: f"m.zarr/{name}").close(), InputError, (MATRIX_ZARR, "m.zarr/", "again"), (ZARR,)
    ),
    "counts unpacked": Fault(
        lambda b: (b.path / MATRIX_ZARR).rename(b.path / MATRIX_ZARR.removesuffix(".zip")), FileMissingError,
        (MATRIX_ZARR, "rename"), (ZARR,),
    ),
    "segmentation without outlines": Fault(
        lambda b: rezip(b, ZIP, lambda name: name.replace("polygon_sets", "other")).close(), InputError, (ZIP, "polygon_sets"), (ZARR,), MORE["boundaries"]
    ),
    # alignments out of a spreadsheet
    **{
        f"alignment {what}": Fault(alignment_text(change), EQUAL)
        for what, change in (
            ("with a byte order mark", lambda t: b"\xef\xbb\xbf" + t.encode()),
            ("as UTF-16", lambda t: t.encode("utf-16")),
            ("with Windows line ends", lambda t: t.replace("\n", "\r\n")),
            ("with semicolons and decimal commas", lambda t: t.replace(",", ";").replace(".", ",")),
            ("with tabs", lambda t: t.replace(",", "\t")),
            ("with commas at the ends", lambda t: t.replace("\n", ",,\n")),
            ("with quotes", lambda t: "\n".join(",".join(f'"{v}"' for v in line.split(",")) for line in t.split())),
            ("with empty lines", lambda t: "\n" + t.replace("\n", "\n\n")),
        )
    },
    **{
        f"alignment {what}": Fault(alignment_text(change), AlignmentError, (ALIGNMENT, "again"))
        for what, change in (
            ("with names of rows", lambda t: "".join(f"r,{line}\n" for line in t.splitlines())),
            ("with a first line sep=", lambda t: "sep=,\n" + t),
            ("with a row too many", lambda t: t + "0,0,0\n"),
            ("with a number missing", lambda t: t[: t.rindex(",")] + "\n"),
            ("as JSON", lambda t: "[" + t + "]"),
            ("with text for a number", lambda t: t.replace(t.split(",")[0], "#REF!", 1)),
        )
    },
    "alignment infinite": Fault(lambda b: b.alignment(lambda m: m * np.inf), AlignmentError, (ALIGNMENT, "again")),
    "alignment of a half-size copy": Fault(
        lambda b: b.alignment(lambda m: m @ np.diag([2, 2, 1])), WARNED, ("2 times that", "qc_alignment")
    ),
    # H&E of other software
    **{
        f"image {what}": Fault(lambda b, options=options: b.image(**options), EQUAL)
        for what, options in (
            ("as BigTIFF", {"bigtiff": True}), ("big-endian", {"byteorder": ">"}), ("in strips", {"tile": None, "rowsperstrip": 7}),
            ("uncompressed", {"compression": None}), ("compressed by LZW", {"compression": "lzw", "predictor": True}),
            ("without metadata", {"ome": False, "metadata": None}),
        )
    },
    "image 16-bit in disguise": Fault(lambda b: b.image(lambda p: p.astype(np.uint16) * 257), EQUAL),
    "image of 32-bit integers": Fault(lambda b: b.image(lambda p: p.astype(np.uint32)), InputError, (IMAGE, "uint32")),
    "image of two channels": Fault(
        lambda b: b.image(lambda p: p[..., :2], photometric="minisblack", metadata={"axes": "YXC"}, planarconfig="contig"), InputError, (IMAGE, "RGB")
    ),
    "image as a stack": Fault(
        lambda b: b.image(lambda p: np.stack([p, p]), metadata={"axes": "ZYXS"}), InputError, (IMAGE, "stack")
    ),
    "image in CMYK": Fault(
        lambda b: b.image(lambda p: np.dstack([255 - p, p[..., 0] * 0]), photometric="separated"), InputError, (IMAGE, "CMYK")
    ),
    "image of black and white": Fault(
        lambda b: b.image(lambda p: p[..., 0] > 128, photometric="minisblack", metadata={"axes": "YX"}, compression=None), InputError, (IMAGE, "RGB")
    ),
    "image of two slides": Fault(two_slides, InputError, (IMAGE, "which one")),
    "image without a tile": Fault(counts_of_bytes(0), InputError, (IMAGE, "no pixels", "again")),
    "tiles of a few bytes": Fault(counts_of_bytes(5), InputError, (IMAGE, "again"), options={"out": True}),
    "tiles beyond the end": Fault(moved_tiles(lambda at: at + 2**31), InputError, (IMAGE, "truncated")),
    "tiles moved by a byte": Fault(moved_tiles(lambda at: at + 1), InputError, (IMAGE, "again"), options={"out": True}),
    "pages that lead back": Fault(looping, EQUAL),
    "tables of JPEG missing": Fault(without_tables, InputError, (IMAGE, "again"), options={"out": True}),
    "OME-XML cut": Fault(described(lambda text: text[: len(text) // 2]), EQUAL),
    "OME-XML that names other files": Fault(
        described(lambda text: text.replace("<TiffData", '<TiffData FirstC="0"').replace("</Pixels>", '<TiffData IFD="0" FirstC="0"><UUID FileName="gone.ome.tif">urn:uuid:0</UUID></TiffData></Pixels>')),
        EQUAL,
    ),
    **{
        f"a {what} called TIFF": Fault(renamed_copy(data), InputError, (IMAGE, what))
        for what, data in (("JPEG", b"\xff\xd8\xff\xe0" + bytes(100)), ("PNG", b"\x89PNG\r\n\x1a\n" + bytes(100)), ("PDF", b"%PDF-1.7\n" + bytes(100)))
    },
    "image as a PNG": Fault(png(), EQUAL, options=OF_IMAGE),
    "image as an interlaced PNG": Fault(pillow_png(save={"interlace": 1}), EQUAL, options=OF_IMAGE),
    "image as a PNG with a gamma": Fault(pillow_png(save={"gamma": 0.45}), EQUAL, options=OF_IMAGE),
    "image as a gray PNG": Fault(pillow_png(mode="L"), InputError, ("S1.png", "RGB"), options=OF_IMAGE),
    "image as a 16-bit PNG": Fault(png(lambda p: p.astype(np.uint16) * 100), InputError, ("S1.png", "16"), options=OF_IMAGE),
    "image as a PNG cut": Fault(
        lambda b: (png()(b), (b.path / "S1.png").write_bytes((b.path / "S1.png").read_bytes()[:-5000])), InputError, ("S1.png", "again"), options=OF_IMAGE
    ),
}  # fmt: skip
