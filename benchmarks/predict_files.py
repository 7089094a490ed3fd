"""Predict a whole slide straight from its image file: memory, share of reading, speed beside the network alone and the prototype.

The image is a tiled JPEG OME-TIFF with a pyramid, made in blocks: an ellipse of synthetic tissue on glass at 0.25 um/px. It is
predicted by `sp.tl.predict_files`, in a process of its own each, with the network that `train_vit` makes by default (224 px at
0.5 um/px) and with the prototype's (512 px), the fastest of all per px; both untrained: speed does not depend on the weights.
`share_of_forward` is the time of the network on patches in memory over that of the same number predicted from the file,
`share_of_reading` what is left; both on the patches alone, while `seconds` is the whole call: tissue, patches, prediction, files,
page. The prototype's own code reads patches of the same image, as sdata.write stores it, with the ImageTilesDataset of the
installed spatialdata, whose version is recorded.

    python benchmarks/predict_files.py [--quick] [--height 30000 --width 40000] [--json PATH]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from import_counts import status_mib
from import_he import QUALITY, TILE_PX, UM_PER_PX, tile_variants
from machine import keep_record, machine, record_options

if TYPE_CHECKING:
    from collections.abc import Iterator

GOALS = {"peak_gib": 2.0, "share_of_forward": 0.92, "share_of_reading": 0.1, "ImageTilesDataset / ours": 9.0}
N_SIGNATURES = 6
GLASS = 243  # grey level
REACH = 0.9  # of the ellipse of tissue, share of the image
QUICK = (4096, 5120)
DEFAULT, PROTOTYPE = "default", "prototype"
PEER_PX = 4096  # edge of the part of the image that the prototype reads
ENCODED = {"level": QUALITY, "colorspace": "RGB", "outcolorspace": "YCBCR", "subsampling": "420"}


def write_slide(path: Path, height: int, width: int) -> None:
    """OME-TIFF with levels of 2, 4, 8, ... as SubIFDs; no level is ever in memory as a whole."""
    import imagecodecs
    import tifffile

    rng = np.random.default_rng(0)
    encoded = tile_variants(rng)
    tiles = [imagecodecs.jpeg8_decode(tile) for tile in encoded]
    glass = np.full((TILE_PX, TILE_PX, 3), GLASS, np.uint8)
    rows, columns = -(-height // TILE_PX), -(-width // TILE_PX)
    y, x = np.mgrid[:rows, :columns]
    on_tissue = ((y + 0.5) / rows * 2 - 1) ** 2 + ((x + 0.5) / columns * 2 - 1) ** 2 < REACH
    chosen = np.where(on_tissue, rng.integers(0, len(tiles), (rows, columns)), len(tiles))
    tiles.append(glass)
    encoded.append(imagecodecs.jpeg8_encode(glass, **ENCODED))
    n_levels = 1
    while min(height, width) >> n_levels >= TILE_PX:
        n_levels += 1

    def level_tiles(level: int) -> Iterator[bytes]:
        step = 2**level
        small = [
            tile.reshape(TILE_PX // step, step, TILE_PX // step, step, 3).mean(axis=(1, 3)).astype(np.uint8)
            for tile in tiles
        ]
        for top in range(0, -(-(height >> level) // TILE_PX)):
            for left in range(0, -(-(width >> level) // TILE_PX)):
                if level == 0:
                    yield encoded[chosen[top, left]]
                    continue
                whole = np.full((TILE_PX, TILE_PX, 3), GLASS, np.uint8)
                part, edge = chosen[top * step : (top + 1) * step, left * step : (left + 1) * step], TILE_PX // step
                for (row, column), k in np.ndenumerate(part):
                    whole[row * edge : (row + 1) * edge, column * edge : (column + 1) * edge] = small[k]
                yield imagecodecs.jpeg8_encode(whole, **ENCODED)

    options: dict[str, Any] = {"dtype": np.uint8, "tile": (TILE_PX, TILE_PX), "photometric": "ycbcr"}
    options |= {"subsampling": (2, 2), "compression": "jpeg"}
    metadata = {"axes": "YXS", "PhysicalSizeX": UM_PER_PX, "PhysicalSizeY": UM_PER_PX}
    with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
        file.write(level_tiles(0), shape=(height, width, 3), subifds=n_levels - 1, metadata=metadata, **options)
        for level in range(1, n_levels):
            file.write(
                level_tiles(level), shape=(height >> level, width >> level, 3), subfiletype=1, metadata=None, **options
            )


def default_model() -> Any:
    """The network that `train_vit` makes when nothing else is said."""
    import torch

    import spatialsig as sp
    from spatialsig.nn.signature import SignatureConfig
    from spatialsig.nn.vit import SIZES

    torch.manual_seed(0)
    names = [f"s{k}" for k in range(N_SIGNATURES)]
    scale = {"target_mean": np.zeros(N_SIGNATURES), "target_std": np.ones(N_SIGNATURES)}
    config = SignatureConfig(SIZES["tiny"], N_SIGNATURES, 0, "none")
    return sp.models.SignatureViT(config, names, **scale, patch_px=224, um_per_px=0.5)


def child(who: str, image: Path, out: Path) -> None:
    """Predict the slide once in this process and print what it took."""
    import torch
    from whole_slide import new_model

    import spatialsig as sp
    from spatialsig.inference import inputs

    warnings.simplefilter("ignore")
    sp.settings.progress = False
    model, whole = (default_model() if who == DEFAULT else new_model()), inputs.ModelInputs.predict_watched
    spent: list[tuple[float, int]] = []

    def timed(self: inputs.ModelInputs, rows: Any, **options: Any) -> Any:
        start = time.perf_counter()
        found = whole(self, rows, **options)
        spent.append((time.perf_counter() - start, len(rows)))
        return found

    inputs.ModelInputs.predict_watched = timed  # type: ignore[method-assign]
    shape = (inputs.BATCH, 3, model.patch_px, model.patch_px)
    pixels, alone = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), []

    def forward() -> None:
        start = time.perf_counter()
        model.predict(pixels)
        alone.append((time.perf_counter() - start) / len(pixels))

    for _ in range(6):
        forward()
    alone = alone[2:]  # the first calls start threads
    before, start = status_mib("VmHWM"), time.perf_counter()
    done = sp.tl.predict_files(model, image, out, formats=["h5ad", "html"])
    seconds, peak = time.perf_counter() - start, status_mib("VmHWM")
    for _ in range(4):  # before and after, so that a machine that gets busy is seen in both
        forward()
    (of_patches, n), per_patch = spent[0], float(np.median(alone))
    share = min(1.0, per_patch * n / of_patches)
    result = {
        "n_patches": int(done["n_patches"].iloc[0]), "seconds": seconds, "seconds_of_prediction": of_patches,
        "ms_per_patch": of_patches / n * 1e3, "ms_forward": per_patch * 1e3, "share_of_forward": share,
        "share_of_reading": 1 - share, "peak_gib": peak / 2**10, "gib_before": before / 2**10,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    print(json.dumps(result))


def measure(who: str, image: Path, folder: Path) -> dict[str, float]:
    """Predict once in a fresh process."""
    command = [sys.executable, __file__, "--child", who, str(image), str(folder / who)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {name: round(value, 4) for name, value in json.loads(run.stdout.splitlines()[-1]).items()}


def prototype_ms(image: Path, folder: Path, n: int) -> float:
    """Median ms per patch of the prototype's code on a part of the image, stored as sdata.write does."""
    from tissue_image import peer_store, squares
    from vit_speed import Naive
    from whole_slide import PX, peer

    import spatialsig as sp

    level = sp.io.read_he(image)["he_image"]["scale1"]["image"].data
    px = min(PEER_PX, *level.shape[1:]) // PX * PX
    y0, x0 = ((edge - px) // 2 for edge in level.shape[1:])
    _, shapes = squares(px, PX)
    peer_store(folder / "peer.zarr", level[:, y0 : y0 + px, x0 : x0 + px].rechunk((1, 4096, 4096)), shapes)
    predict, spent = peer(folder / "peer.zarr", Naive().eval()), []
    rows = np.arange(min(n, len(shapes)))
    for _ in range(4):  # the first round opens files
        start = time.perf_counter()
        predict(rows)
        spent.append((time.perf_counter() - start) / len(rows) * 1e3)
    return float(np.median(spent[1:]))


def main() -> None:
    """Measure and record."""
    parser = record_options(__doc__, "predict_files", quick=f"{QUICK[1]} x {QUICK[0]} px")
    parser.add_argument("--height", type=int, default=30_000)
    parser.add_argument("--width", type=int, default=40_000)
    parser.add_argument("--child", nargs=3, metavar=("WHO", "IMAGE", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], Path(args.child[1]), Path(args.child[2]))
        return
    warnings.simplefilter("ignore")
    height, width = QUICK if args.quick else (args.height, args.width)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = folder / "slide.ome.tif"
        write_slide(image, height, width)
        ours = {who: measure(who, image, folder) for who in (DEFAULT, PROTOTYPE)}
        theirs = prototype_ms(image, folder, 4 if args.quick else 16)
        size = image.stat().st_size / 2**30
    found = {name: ours[DEFAULT][name] for name in ("share_of_forward", "share_of_reading")}
    found |= {"peak_gib": max(each["peak_gib"] for each in ours.values())}
    found |= {"ImageTilesDataset / ours": theirs / ours[PROTOTYPE]["ms_per_patch"]}
    result: dict[str, object] = {
        "quick": args.quick,
        "machine": machine(),
        "spatialdata": version("spatialdata"),
        "height": height,
        "width": width,
        "file_gib": round(size, 3),
        "ours": ours,
        "ms_per_patch_prototype": round(theirs, 2),
        "ratios": {name: {"found": round(value, 3), "goal": GOALS[name]} for name, value in found.items()},
    }
    keep_record(args.json, result, shown=["spatialdata", "ours", "ms_per_patch_prototype", "ratios"])


if __name__ == "__main__":
    main()
