"""Every public function that is given a damaged store: it works, or says which store is damaged, where, and what to do."""

import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import zarr
from spatialdata import SpatialData
from spatialdata.models import Labels2DModel
from spatialdata.transformations import Identity
from tests.quick import all_of
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, ZstdCodec

import spatialsig as sp
from spatialsig.errors import KeyMissingError, SpatialsigError, StoreError
from spatialsig.slide.coordinates import full_resolution
from spatialsig.slide.fingerprints import of_pixels
from spatialsig.store import matrices
from spatialsig.store.commit import write_attrs
from spatialsig.store.metadata import consolidate
from spatialsig.store.parts import commit_transformations
from spatialsig.store.stored import table as stored_table
from spatialsig.store.stored.damage import computed, decoding
from spatialsig.store.stream import ChannelsLast

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from fuzz_arguments import SLOW, Study

pytestmark = pytest.mark.filterwarnings("ignore:single cells of .* are predicted no better")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    warnings.simplefilter("ignore")
    made = Study(tmp_path_factory.mktemp("study"))
    made.slide.write(made.folder / "foreign.zarr")  # without checksums and manifests
    return made


def chunks_below(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and "c" in file.relative_to(folder).parts]


def flip(files: list[Path]) -> None:
    """Turn the first bytes round, and one in the middle: no codec takes that for its own."""
    assert files
    for file in files:
        data = bytearray(file.read_bytes())
        for place in (0, 1, 2, 3, len(data) // 2):
            data[place % len(data)] ^= 0xFF
        file.write_bytes(data)


def outcomes(study: Study, damage: Callable[[Path], None], whole: Path) -> dict[str, Exception | None]:
    """How every function ends that is given a store with this damage; aligning is refused where there are patches."""
    ended: dict[str, Exception | None] = {}
    for n, name in enumerate(sorted({*study.calls(0)} - SLOW - {"pp.align_he"})):
        place = study.folder / f"damaged_{whole.stem}"
        given = study.calls(n)[name]
        takes = [key for key, value in given.items() if value is study.slide or value is study.bare]
        takes += [
            key for key, value in given.items() if isinstance(value, Path) and value == study.folder / "slide.zarr"
        ]
        if not takes and name not in ("Cohort", "Cohort.panels", "Cohort.genes", "Cohort.__getitem__"):
            continue
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)
        damage(place)
        shutil.rmtree(study.folder / f"out{n}", ignore_errors=True)
        (study.folder / f"out{n}").mkdir()
        try:
            given |= {key: sp.io.read(place) if name in ("io.write", "datasets.toy_model") else place for key in takes}
            given |= {"source": {"S1": place}} if name == "Cohort" else {}
            before, study.cohort = (
                study.cohort,
                sp.Cohort({"S1": place}) if name.startswith("Cohort.") else study.cohort,
            )
            study.target(name)(**given)
            ended[name] = None
        except Exception as error:  # noqa: BLE001 - looked at by the caller
            ended[name] = error
        finally:
            study.cohort = before if name.startswith("Cohort.") else study.cohort
            plt.close("all")
    return ended


def check_ends_well(ended: dict[str, Exception | None], store: str, *, at_least: int) -> None:
    raw = {name: repr(error) for name, error in ended.items() if error and not isinstance(error, SpatialsigError)}
    assert not raw
    refused = {name: str(error) for name, error in ended.items() if error}
    assert len(refused) >= at_least, refused.keys()
    unclear = {name: text for name, text in refused.items() if store not in text or "sp.io.verify" not in text}
    assert not unclear


PARTS = {
    "images": (lambda store: chunks_below(store / "images"), 25),
    **{
        f"tables/{part}": (lambda store, part=part: chunks_below(store / "tables" / "table" / part), 30)
        for part in ("X", "obs", "obsm", "var")
    },
}


@pytest.mark.parametrize("whole", all_of(["slide.zarr", "foreign.zarr"], quick={"foreign.zarr"}))
@pytest.mark.parametrize("part", all_of(PARTS, quick={"images"}))
def test_damaged_chunks(study: Study, part: str, whole: str) -> None:
    find, at_least = PARTS[part]
    ended = outcomes(study, lambda store: flip(find(store)), study.folder / whole)
    check_ends_well(ended, f"damaged_{Path(whole).stem}", at_least=at_least)


@pytest.mark.parametrize("part", all_of(PARTS, quick={"images", "tables/X"}))
def test_damaged_chunks_of_what_stays_in_its_store(study: Study, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of many rows, matrices of many values, and pixels in places where no record of them looks."""
    monkeypatch.setattr(matrices, "LARGE", 1)
    monkeypatch.setattr(stored_table, "MANY", 1)
    shapes = {full_resolution(image).shape: image for image in study.slide.images.values()}
    monkeypatch.setattr(
        "spatialsig.slide.lineage.of_pixels",
        lambda image, *level: of_pixels(shapes.get(full_resolution(image).shape, study.slide["he_image"]), *level),
    )
    ended = outcomes(study, lambda store: flip(PARTS[part][0](store)), study.folder / "slide.zarr")
    check_ends_well(ended, "damaged_slide", at_least=10)


def with_node(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        document = json.loads(file.read_text())
        change(document)
        file.write_text(json.dumps(document))

    return damage


DAMAGED_JSON: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "binary": lambda file: file.write_bytes(b"\xff\xfe\x80\0" * 20),
    "empty": lambda file: file.write_bytes(b""),
    "list": lambda file: file.write_text("[1, 2]"),
    "null": lambda file: file.write_text("null"),
    "no kind": with_node(lambda document: document.pop("node_type")),
    "attributes": with_node(lambda document: document.update(attributes=[1])),
}
COPIES: dict[str, Callable[[Path], Any]] = {
    "list": with_node(lambda document: document.update(consolidated_metadata=[1])),
    "list inside": with_node(lambda document: document["consolidated_metadata"].update(metadata=[1])),
    "numbers": with_node(lambda document: document["consolidated_metadata"].update(metadata={"images": 3})),
}
# of the root, a kind, an element, a level, a frame and a column
NODES = [
    "zarr.json", "shapes/zarr.json", "shapes/cell_circles/zarr.json", "images/he_image/zarr.json", "images/he_image/s0/zarr.json",
    "tables/table/zarr.json", "tables/table/obs/zarr.json", "tables/table/obs/cell_id/zarr.json",
]  # fmt: skip
TOUCH: dict[str, Callable[[Path], Any]] = {
    "read": sp.io.read, "verify": sp.io.verify, "optimize": sp.io.optimize, "status": sp.io.status, "tissue": partial(sp.pp.find_tissue, min_area_um2=100),
    "split": partial(sp.pp.split, by="block", n_folds=2, block_um=50.0, buffer_um=0.0), "cohort": lambda path: sp.Cohort({"S1": path}).panels(),
    "attributes": lambda path: write_attrs(path, {"a": 1}), "placed": lambda path: commit_transformations(path, "he_image", {"global": Identity()}), "repair": sp.io.repair,
}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("small") / "whole.zarr"
    sp.datasets.toy(size_um=100).write(place)
    return place


@pytest.mark.filterwarnings("ignore:.*moved unfinished")  # writers put it beside the store, and say so
@pytest.mark.parametrize("touch", all_of(TOUCH, quick={"read", "split", "cohort", "repair"}))
def test_damaged_metadata_of_any_part(small: Path, tmp_path: Path, touch: str) -> None:
    damages = {(node, how): damage for node in NODES for how, damage in DAMAGED_JSON.items()}
    damages |= {("zarr.json", f"copy: {how}"): damage for how, damage in COPIES.items()}
    for number, ((node, how), damage) in enumerate(damages.items()):
        place = tmp_path / f"{number}.zarr"
        shutil.copytree(small, place)
        damage(place / node)
        said: Exception | None = None
        found = None
        try:
            found = TOUCH[touch](place)
        except Exception as error:  # noqa: BLE001 - looked at below
            said = error
        where = (node, how, repr(said))
        if said is None:
            assert touch != "verify" or not set(found["status"]) <= {"ok", "not checksummed"}, where
        elif touch == "placed" and isinstance(
            said, KeyMissingError
        ):  # the image that is asked for is no image any more
            assert node == "images/he_image/zarr.json", where
        else:
            assert isinstance(said, StoreError), where
            assert str(place) in str(said), where
            assert "sp.io.verify" in str(said), where
        shutil.rmtree(place)


CODECS: dict[str, dict[str, Any]] = {
    "zstd": {"compressors": ZstdCodec()}, "blosc": {"compressors": BloscCodec()}, "gzip": {"compressors": GzipCodec()},
    "crc32c": {"compressors": Crc32cCodec()}, "shards": {"compressors": ZstdCodec(), "shards": (3, 128, 128)},
}  # fmt: skip


def in_codec(folder: Path, codec: str) -> Path:
    """A store of one image and labels, each with two levels in a codec."""
    slide, place = sp.datasets.toy(size_um=100), folder / f"{codec}.zarr"
    slide["drawn"] = Labels2DModel.parse(np.ones((200, 200), np.int32), dims=("y", "x"))
    slide.write(place)
    for element in ("images/he_image", "labels/drawn"):
        for level in list(zarr.open_group(place / element, mode="r").array_keys()):
            old = zarr.open_array(place / element / level, mode="r")
            options = {"chunks": (1, 64, 64), "shards": None} | CODECS[codec]
            options = {
                key: value if value is None or key == "compressors" else value[-old.ndim :]
                for key, value in options.items()
            }
            options |= {"dimension_names": old.metadata.dimension_names, "overwrite": True}
            zarr.create_array(place / element / level, data=old[:], **options)
    consolidate(place)
    return place


READERS: dict[str, Callable[[Any], Any]] = {
    "computed": lambda slide: computed(full_resolution(slide["he_image"])[:3, 10:150, 5:90]),
    "labels": lambda slide: computed(slide["drawn"]),
    "fingerprint": lambda slide: of_pixels(slide["he_image"]),
    "block": lambda slide: ChannelsLast(full_resolution(slide["he_image"]).data)[:99, :99],
    "tissue": partial(sp.pp.find_tissue, min_area_um2=100),
    "tissue of labels": lambda slide: sp.pp.make_patches(slide, patch_px=28, um_per_px=2.0, tissue_key="drawn", min_tissue=0.0),
    "alignment": sp.pp.qc_alignment,
    "window": sp.pl.alignment,
    "written": lambda slide: sp.io.write(slide, slide.path.with_name("new.zarr")),
    "labels written": lambda slide: sp.io.write(SpatialData.init_from_elements({"drawn": slide["drawn"]}), slide.path.with_name("new.zarr")),
}  # fmt: skip


@pytest.mark.parametrize("codec", all_of(CODECS, quick={"zstd", "shards"}))
def test_every_codec_and_every_reader_of_pixels(codec: str, tmp_path: Path) -> None:
    place = in_codec(tmp_path, codec)
    for name in READERS:
        if "written" not in name:
            READERS[name](sp.io.read(place))
    flip(chunks_below(place / "images") + chunks_below(place / "labels"))
    for name, read in READERS.items():
        slide = sp.io.read(place)
        with pytest.raises(StoreError) as caught:
            read(slide)
        said = rf"'{place}' is damaged: '.*c/0.*' cannot be decoded\. .*sp\.io\.verify\('{place}'\)"
        assert re.search(said, str(caught.value)), name
    assert {"altered"} == {row.status for row in sp.io.verify(place).itertuples() if row.kind in ("images", "labels")}


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    """No bug is called damage: neither beside whole chunks, nor without any."""
    place = in_codec(tmp_path, "zstd")
    arrays = [place / "images" / "he_image"]
    for error in (
        RuntimeError("a bug"),
        ValueError("a bug"),
        KeyError("a bug"),
        OSError(28, "No space left on device"),
    ):
        for behind in (arrays, []):
            with pytest.raises(type(error)) as caught, decoding(lambda behind=behind: behind):
                raise error
            assert caught.value is error
    flip(chunks_below(place / "images"))
    with pytest.raises(OSError, match="No space left") as full, decoding(lambda: arrays):
        raise OSError(28, "No space left on device")
    assert not isinstance(full.value, StoreError)


def test_a_command_says_it_without_a_traceback(tmp_path: Path) -> None:
    place = in_codec(tmp_path, "zstd")
    flip(chunks_below(place / "images"))
    command = [
        sys.executable,
        "-m",
        "spatialsig",
        "label",
        str(place),
        "--all-slides",
        "--um-per-px",
        "2",
        "--patch-px",
        "28",
        "--quiet",
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    said = " ".join((ended.stdout + ended.stderr).split())
    assert ended.returncode == 1, said
    assert "is damaged: " in said, said
    assert "spatialsig verify" in said, said
    assert "Traceback" not in said
