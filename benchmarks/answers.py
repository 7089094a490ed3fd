"""What the package answers to what other people's files and habits broke elsewhere: each case by its call and its command.

python benchmarks/answers.py [SECTION ...]
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import sys
import tempfile
import textwrap
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import geopandas as gpd
import numpy as np
import shapely
import tifffile
from answers_cases import LABEL, SMOOTH, SPLIT, TRAIN, Case, Place, refused, room, scaled, split, stale, tables, tiff
from damaged_models import sign_again
from PIL import Image
from spatialdata.models import ShapesModel
from spatialdata.transformations import Identity, get_transformation

import spatialsig as sp
from spatialsig.cli import main as command_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from answers_cases import Change
    from spatialdata import SpatialData

SHOWN = 700  # characters of an answer
INDENTED: dict[str, Any] = {"initial_indent": " " * 4, "subsequent_indent": " " * 8, "break_on_hyphens": False}


def images(p: Place) -> list[Case]:
    """Images that contradict themselves."""
    contradicting = p.own(p.bundle)
    file = next(contradicting.glob("*_he_image.ome.tif"))
    tifffile.tiffcomment(file, str(tifffile.tiffcomment(file)).replace('="0.2738"', '="0.5476"').encode())
    turned, exif = p.new("a.jpg"), Image.Exif()
    exif[274] = 6
    Image.fromarray(SMOOTH).save(turned, exif=exif)
    planes, names = np.moveaxis(SMOOTH[..., ::-1], 2, 0), {"axes": "CYX", "Channel": {"Name": ["b", "g", "r"]}}
    bgr = tiff(p.new("bgr.ome.tif"), planes.copy(), ome=True, photometric="minisblack", metadata=names)
    sizes = [("0.02738", "µm"), ("0,5", "µm"), ("", "µm"), ("0", "µm"), ("NaN", "µm"), ("0.00002", "in"), ("5000", "Å")]

    def he(name: str, path: Path, um_per_px: float | None = None) -> Case:
        size = [] if um_per_px is None else ["--um-per-px", um_per_px]
        return Case(name, lambda: sp.io.mpp(sp.io.read_he(path, um_per_px=um_per_px)), p.importing(lambda: path, *size))

    def sized(number: str, unit: str) -> Path:
        written = {f"PhysicalSize{axis}{of}": given for axis in "XY" for of, given in (("", 7.7777777), ("Unit", unit))}
        path = tiff(p.new("a.ome.tif"), ome=True, metadata={"axes": "YXS", **written})
        path.write_bytes(path.read_bytes().replace(b'"7.7777777"', f'"{number}"'.encode().ljust(11)))
        return path

    def tiles(slide: SpatialData, shift: int) -> str:
        y, x = np.mgrid[0:400:80, 0:400:80].reshape(2, -1)
        boxes = shapely.box(x + shift, y + shift, x + shift + 80, y + shift + 80)
        place = get_transformation(slide["he_image"], get_all=True) if shift else {"global": Identity()}
        frame = gpd.GeoDataFrame({"geometry": boxes, "pixel_y0": y, "pixel_x0": x})
        slide["tiles"] = ShapesModel.parse(frame, transformations=place)
        sp.pp.import_patches(slide, "tiles", min_tissue=0, key_added="new")
        return f"placed as the columns say: {np.array_equal(slide['new'][['y0', 'x0']], np.c_[y, x])}"

    def sopa(slide: SpatialData) -> str:
        y, x = np.mgrid[0:400:80, 0:400:80].reshape(2, -1)
        boxes = np.c_[x, y, x + 80, y + 80].tolist()
        frame = gpd.GeoDataFrame({"geometry": shapely.box(x + 20, y + 20, x + 60, y + 60), "bboxes": boxes})
        slide["tiles"] = ShapesModel.parse(frame, transformations=get_transformation(slide["he_image"], get_all=True))
        sp.pp.import_patches(slide, "tiles", min_tissue=0, key_added="new")
        return f"edge of a patch: {slide.attrs['spatialsig']['patches']['new']['size_l0']} px"

    return [
        Case("C9  a file that states twice the size that its alignment implies", lambda: sp.io.read_xenium(contradicting).path, p.importing(lambda: contradicting)),
        *(p.on(f"C9  the H&E {by:g} times as large as it is, then qc_alignment", scaled(by), lambda s: sp.pp.qc_alignment(s)["verdict"].tolist()) for by in (2, 0.5, 1.37)),
        *(he(f"C10 an OME-XML size of {number!r} {unit}", sized(number, unit)) for number, unit in sizes),
        *(he(f"C10 an OME-XML size of {number!r} {unit}, um_per_px=0.5", sized(number, unit), 0.5) for number, unit in sizes),
        *(he(f"C10 an SVS with {said}", tiff(p.new("a.svs"), description=f"Aperio|AppMag = 20|{said}|x"))
          for said in ("MPP = 0,5", "MPPX = 0.5|MPPY = 0.5", "MPP X = 0.25|MPP Y = 0.5", "MPPX = 0.5")),
        p.on("C11 tiles that lost their transformation", None, lambda s: tiles(s, 0)),
        p.on("C11 tiles whose columns say another place", None, lambda s: tiles(s, 8)),
        p.on("C11 tiles of sopa with bboxes twice as large as their geometries", None, sopa),
        he("C12 a TIFF with an orientation tag", tiff(p.new("a.tif"), extratags=[(274, "H", 1, 6, True)]), 0.5),
        he("C12 a JPEG with an orientation in its EXIF", turned, 0.5),
        Case("C12 channels named b, g, r: is red the red of the scan", lambda: np.array_equal(
            sp.io.read_he(bgr, um_per_px=0.5)["he_image"]["scale0"]["image"].sel(c="r"), SMOOTH[..., 0]), p.importing(lambda: bgr, "--um-per-px", 0.5)),
    ]  # fmt: skip


def stores(p: Place) -> list[Case]:
    """Stores and paths."""
    new, shared, settings = sp.datasets.toy(size_um=100, sample="new"), p.store(), p.bundle / "experiment.xenium"
    old, chained, dangling = p.file(".zgroup", '{"zarr_format": 2}').parent, p.new("a::b"), p.own(p.bundle)
    he = next(dangling.glob("*_he_image.ome.tif"))
    he.unlink()
    he.symlink_to("/unmounted/slide.ome.tif")

    def linked() -> Path:
        link = p.new("link.zarr")
        link.symlink_to(p.store())
        return link

    def through(link: Path) -> str:
        sp.io.write(new, link, overwrite=True)
        behind = sp.io.read(link.resolve()).attrs["spatialsig"]["sample"] == "new"
        return f"still a link: {link.is_symlink()}; the store behind it is new: {behind}"

    def packed() -> Path:
        return Path(shutil.make_archive(str(p.new("slide")), "zip", p.store()))

    def sections() -> Path:
        folder = p.new("stores")
        for name in ("A", "B"):
            sp.io.read_he(tiff(p.new(f"P1.section{name}.tif")), um_per_px=0.5, out=folder / f"{name}.zarr")
        return folder

    def explorer(kind: str) -> Case:
        bundle, folder = p.own(p.bundle), p.new("export")
        folder.mkdir()
        next(bundle.glob("*_he_imagealignment.csv")).rename(folder / "matrix.csv")
        given = folder if kind == "folder" else Path(shutil.make_archive(str(folder), "zip", folder))
        read = lambda: sp.io.read_xenium(bundle, he_alignment=given).attrs["spatialsig"]["source"]["he_alignment"]  # noqa: E731
        return Case(f"D15 the {kind} of Xenium Explorer", read, p.importing(lambda: bundle, "--he-alignment", given))

    return [
        Case("D13 repair of a Zarr 2 store", lambda: sp.io.repair(old), lambda: ["repair", old]),
        Case("D14 write(overwrite=True) through a link", lambda: through(linked()), lambda: ["import", p.bundle, "--out", linked(), "--overwrite"]),
        Case("D14 a read-only share", lambda: sp.pp.make_patches(shared, patch_px=28, um_per_px=2.0), lambda: ["split", shared, "--by", "block"], lambda: refused(errno.EROFS)),
        Case("D14 a bundle with a link to an H&E that is gone", lambda: sp.io.read_xenium(dangling), p.importing(lambda: dangling)),
        Case("D14 P1.sectionA.tif and P1.sectionB.tif", lambda: [sp.io.read(store).attrs["spatialsig"]["sample"] for store in sorted(sections().iterdir())], lambda: ["split", sections(), "--n-folds", 2]),
        Case("D14 a path with '::'", lambda: sp.io.write(new, chained / "s.zarr"), lambda: ["import", p.bundle, "--out", chained / "s.zarr"]),
        *map(explorer, ("zip", "folder")),
        Case("D15 experiment.xenium instead of its directory", lambda: sp.io.read_xenium(settings), p.importing(lambda: settings)),
        *(Case(f"D15 {name} given to read_he", lambda n=name: sp.io.read_he(p.file(n, "x")), p.importing(lambda n=name: p.file(n, "x")))
          for name in ("experiment.xenium", "cells.parquet", "tissue_positions.csv", "S1_exprMat_file.csv", "cell_by_gene.csv", "a.h5ad")),
        Case("D   a zip where a store is wanted", lambda: sp.pp.split(packed(), by="block"), lambda: ["split", packed(), "--by", "block"]),
        Case("D   a model where a store is wanted", lambda: sp.pp.split(p.root / "model", by="block"), lambda: ["split", p.root / "model", "--by", "block"]),
        Case("D   a model saved where one is", lambda: p.model.save(p.own(p.root / "model")), lambda: p.words(TRAIN, OUT=p.root / "model")),
        Case("D   a file that is no store", lambda: sp.io.read(settings), lambda: ["status", settings]),
    ]  # fmt: skip


def atera(p: Place) -> list[Case]:
    """Atera."""
    made = {version: p.made(version) for version in ("atera-preview", "atera-1.0")}
    xenium, own, matrix = sp.io.read_xenium(p.bundle)["table"], made["atera-1.0"], "cell_feature_matrix.zarr.zip"

    def alike(slide: SpatialData) -> str:
        same = (slide["table"].X != xenium.X).nnz == 0 and slide["table"].obs_names.equals(xenium.obs_names)
        return f"{sorted(name for _, name, _ in slide.gen_elements())}; counts and ids those of Xenium: {same}"

    def fault(name: str, breaks: Callable[[Path], object]) -> Case:
        broken = p.own(own)
        breaks(broken)
        return Case(f"E   {name}", lambda: sp.io.read_atera(broken), p.importing(lambda: broken))

    return [
        *(Case(f"E   {version} by read_xenium", lambda b=b: alike(sp.io.read_xenium(b)), p.importing(lambda b=b: b)) for version, b in made.items()),
        *(Case(f"E   {version} by read_atera, outlines too", lambda b=b: alike(sp.io.read_atera(b, boundaries=True))) for version, b in made.items()),
        fault("counts cut short", lambda b: os.truncate(b / matrix, 5000)),
        fault("counts missing", lambda b: (b / matrix).unlink()),
        fault("settings that are no JSON", lambda b: (b / "experiment.spatial").write_text("{")),
        Case("E   transcripts, which it has none of", lambda: sp.io.read_atera(own, transcripts=True)),
        Case("E   experiment.spatial instead of its directory", lambda: sp.io.read_atera(own / "experiment.spatial"), p.importing(lambda: own / "experiment.spatial")),
    ]  # fmt: skip


def values(p: Place) -> list[Case]:
    """Arguments and values."""
    score, learn = partial(sp.tl.score_cells, signatures="seed"), partial(sp.tl.train_vit, use_rep=None)
    ids = {name: f"ENSG{i:011d}" for i, name in enumerate(p.study["table"].var_names)}
    of_ids, few = {"T": list(ids.values())[:9]}, {"T": ["CD3D", "CD3E", "TRAC"], "X": ["CXCL8", "ZZZ1", "ZZZ2"]}

    def never(slide: SpatialData) -> None:
        sp.tl.score_cells(slide, {"T": ["CD3D", "CD3E", "CD2"], "X": ["ZZZ1", "ZZZ2", "ZZZ3"]})
        sp.tl.aggregate_patches(slide, use_rep=None, min_cells=5)

    def on(name: str, change: Callable[[Any], object], call: Change, command: str = LABEL) -> Case:
        """Case of a changed table, in a slide without the record by which it would be stale."""
        return p.on(f"F   {name}", lambda s: (change(s["table"]), s.attrs["spatialsig"].pop("lineage")), call, command)  # fmt: skip

    def named(change: Callable[[str], str], column: str = "") -> Callable[[Any], object]:
        """Change of a table to other names of genes; those it has stay in a column."""
        return lambda t: (column and t.var.insert(0, column, t.var_names), setattr(t, "var_names", [*map(change, t.var_names)]))  # fmt: skip

    return [
        p.on("F   a number for a model", None, lambda s: sp.tl.predict(s, 0), "predict STORE --model 0"),
        p.on("F   an image model for an autoencoder", None, lambda s: sp.tl.embed_cells(s, p.model), "embed STORE --model MODEL"),
        p.on("F   a decimal comma", None, lambda s: learn(s, learning_rate="0,001"), f"{TRAIN} --set learning_rate=0,001"),
        p.on("F   signatures of which one is never measured", never, lambda s: learn(s, max_epochs=1), TRAIN),
        p.on("F   signatures_key=()", None, lambda s: learn(s, signatures_key=()), f"{TRAIN} --set signatures_key=[]"),
        p.on("F   io.write(slide, path=True)", None, lambda s: sp.io.write(s, path=True)),
        p.on("F   max_epochs=10**30", None, lambda s: learn(s, max_epochs=10**30), TRAIN + "0" * 30),
        p.on("F   an option that there is not", None, lambda s: learn(s, max_epoch=1), f"{TRAIN} --set max_epoch=1"),
        *(on(f"a count of {value:g}", lambda t, v=value: (setattr(t, "X", t.X.astype(float)), t.X.data.put(17, v)), call)
          for value, call in ((np.inf, score), (2.0**63, sp.tl.noise_ceiling))),
        *(on(f"positions of three dimensions, then {command[:5]}", lambda t: t.obsm.update(spatial=np.pad(t.obsm["spatial"], ((0, 0), (0, 1)))), call, command)
          for call, command in ((split, SPLIT), (sp.pp.assign_cells, LABEL))),
        *(on(f"{share:.1%} of the positions {value}", lambda t, n=share, v=value: t.obsm["spatial"].put(np.arange(0, 2 * int(n * t.n_obs), 2), v), split, SPLIT)
          for share, value in ((0.005, np.nan), (0.1, np.inf))),
        p.on("F   a table without cells", lambda s: (s["table"].uns.pop("spatialdata_attrs"), s.tables.update(table=s["table"][:0].copy())), split, SPLIT),
        *(p.on(f"F   um_per_global_px of {um}", lambda s, u=um: s.attrs["spatialsig"].update(um_per_global_px=u), sp.pp.assign_cells, LABEL) for um in (0, np.nan)),
        on("a gene name twice", named(lambda name: name.replace("CD3D", "CD3E")), partial(sp.tl.train_autoencoder, signatures="seed"),
           "train-ae STORE --out OUT --signatures seed"),
        on("genes named by ids", named(ids.__getitem__), score),
        on("genes named by ids, symbols in a column", named(ids.__getitem__, "symbol"), score),
        on("the same, gene_symbols='symbol'", named(ids.__getitem__, "symbol"), partial(score, gene_symbols="symbol"), f"{LABEL} --gene-symbols symbol"),
        on("genes in the capitals of the mouse", named(str.capitalize), score),
        on("ids with versions", named(lambda name: f"{ids[name]}.5"), partial(sp.tl.score_cells, signatures=of_ids), ""),
        on("a former name of a gene", named(lambda name: name.replace("ACE2", "IL8")), partial(sp.tl.score_cells, signatures=few), ""),
    ]  # fmt: skip


def full_disk(p: Place) -> list[Case]:
    """A full disk."""
    store, model, out = p.store(), p.root / "model", p.new("a.geojson")

    def left(write: Callable[[], object], place: Path) -> str:
        """How a writer ends, and which files it leaves changed or beside those that were there."""
        contents = lambda: {(file, file.read_bytes()) for file in place.parent.rglob("*") if file.is_file()}  # noqa: E731
        before, said = contents(), answer(write)
        return f"{said} | changed or left: {sorted({file.name for file, _ in contents() ^ before}) or 'nothing'}"

    return [
        *(Case(f"G   model.save over a model, {n} bytes free", lambda: left(lambda: p.model.save(model, overwrite=True), model), None, lambda n=n: room(n)) for n in (0, 300, 2000, 20000)),
        Case("G   training, 20000 bytes free", None, lambda: p.words(TRAIN), lambda: room(20000)),
        Case("G   write over a store, 2000 bytes free", lambda: left(lambda: sp.io.write(p.study, store, overwrite=True), store),
             lambda: ["predict", store, "--model", model], lambda: room(2000)),
        Case("G   export_geojson, 300 bytes free", lambda: left(lambda: sp.io.export_geojson(p.study, out), out), lambda: ["export", "geojson", store, "--out", out], lambda: room(300)),
        Case("G   not a byte is left for the lock of a store", lambda: left(lambda: sp.pp.make_patches(store, patch_px=28, um_per_px=2.0), store),
             lambda: ["split", store, "--by", "block"], lambda: refused(errno.ENOSPC)),
    ]  # fmt: skip


def damaged(p: Place) -> list[Case]:
    """Damaged models."""
    store, load = p.store(), sp.models.SignatureViT.load

    def case(name: str, file: str, change: Callable[[bytes], bytes], *, signed: bool = False) -> Case:
        model = p.own(p.root / "model")
        (model / file).write_bytes(change((model / file).read_bytes()))
        if signed:
            sign_again(model)
        return Case(f"H   {name}", lambda: load(model), lambda: ["predict", store, "--model", model])

    def flip(content: bytes) -> bytes:
        return content[:-9] + bytes([content[-9] ^ 64]) + content[-8:]

    return [
        case("a flipped bit of the weights", "weights.safetensors", flip),
        case("weights cut short", "weights.safetensors", lambda content: content[:999]),
        case("weights that are NaN, check sums made to fit", "weights.safetensors", lambda content: content[:-400] + b"\xff" * 400, signed=True),
        case("a flipped bit of the scaler", "scaler.npz", flip),
        case("a scaler that is no zip, check sums made to fit", "scaler.npz", lambda _: b"PK\x03\x04 no zip", signed=True),
        case("another configuration", "config.json", lambda content: content.replace(b'"patch_px": 28', b'"patch_px": 29')),
        case("a record without check sums", "run.json", lambda _: b"{}"),
    ]  # fmt: skip


def answer(call: Callable[[], object]) -> str:
    """What a call returned or the error it raised, and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            said = f"returns {str(call())[:SHOWN]}"
        except Exception as error:  # noqa: BLE001 (what is not ours is shown as such)
            kind = "" if isinstance(error, sp.errors.SpatialsigError) else "UNTYPED "
            said = f"{kind}{type(error).__name__}: {error}"
    ours = Counter(str(each.message) for each in caught if issubclass(each.category, sp.errors.SpatialsigWarning))
    return " | ".join([*(f"warns{f' {n} times' if n > 1 else ''}: {text}" for text, n in ours.items()), said])


def typed(words: list[object]) -> str:
    """What the command line says, and its exit code."""
    said, code = io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", ["spatialsig", *map(str, words), "--quiet"]), warnings.catch_warnings(),
        contextlib.redirect_stderr(said), contextlib.redirect_stdout(said),
    ):  # fmt: skip
        warnings.simplefilter("default", sp.errors.SpatialsigWarning)
        try:
            command_line()
        except SystemExit as end:
            code = int(end.code or 0)
        except Exception as error:  # noqa: BLE001
            return f"UNTYPED {type(error).__name__}: {error}"
    return f"exit {code}: {' '.join(said.getvalue().split())[:SHOWN]}"


def main() -> None:
    """Print every case, or those of the sections that are named, with its answers."""
    sp.settings.progress = False
    counts = Counter[str]()
    sections = dict(zip("ABCDEFGH", (stale, tables, images, stores, atera, values, full_disk, damaged), strict=True))
    with tempfile.TemporaryDirectory() as scratch:
        place = Place(Path(scratch))
        for letter in sys.argv[1:] or sections:
            print(f"\n{letter}. {sections[letter].__doc__}\n")
            for case in sections[letter](place):
                print(case.name)
                words = case.command() if case.command else None
                with case.given():
                    answers = [f"API {answer(case.call)}"] if case.call else []
                    answers += [f"CLI spatialsig {' '.join(map(str, words))} -> {typed(words)}"] if words else []
                for text in answers:
                    counts.update([text[:3], *(["untyped"] if "UNTYPED" in text else [])])
                    print(textwrap.fill(text.replace(scratch, "..."), 116, **INDENTED))
    print(f"\nanswers of each door: {dict(counts)}")


if __name__ == "__main__":
    main()
