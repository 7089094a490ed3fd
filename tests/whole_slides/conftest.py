"""A model learned from synthetic patients, and the file of a slide that was held out, in the forms of several scanners."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

import spatialsig as sp
from spatialsig.nn.vit import ViTConfig

TINY = ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))


def write_pyramid(path: Path, levels: list[np.ndarray], *, um_per_px: float, ome: bool = False) -> Path:
    """Tiled TIFF ``(y, x, 3)`` with its levels, as OME-TIFF or as an Aperio scanner writes it, without loss."""
    tile = {"tile": (128, 128), "compression": "zlib", "photometric": "rgb"}
    if ome:
        metadata = {"axes": "YXS", "PhysicalSizeX": um_per_px, "PhysicalSizeY": um_per_px}
        with tifffile.TiffWriter(path, ome=True) as file:
            file.write(levels[0], subifds=len(levels) - 1, metadata=metadata, **tile)
            for level in levels[1:]:
                file.write(level, subfiletype=1, **tile)
        return path
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            said = f"Aperio Image Library v12\n{level.shape[1]}x{level.shape[0]} |AppMag = 20|MPP = {um_per_px}"
            file.write(level, description=said, metadata=None, **tile)
            if number == 0:  # the second page is the thumbnail, in strips
                file.write(levels[-1][::2, ::2], description=said, metadata=None, photometric="rgb", rowsperstrip=16)
    return path


@pytest.fixture(scope="session")
def pyramid() -> Callable[..., Path]:
    """:func:`write_pyramid`."""
    return write_pyramid


@pytest.fixture(scope="session")
def toy_pixels() -> list[np.ndarray]:
    """Levels ``(y, x, 3)`` of a toy slide, 1 µm per px."""
    sdata = sp.datasets.toy(size_um=300.0)
    image = sdata["he_image"]
    return [image[f"scale{k}"]["image"].transpose("y", "x", "c").to_numpy() for k in range(3)]


@pytest.fixture(scope="session")
def toy_vit() -> sp.models.SignatureViT:
    """Model of patches of 28 px at 2 µm/px; what it predicts means nothing."""
    return sp.datasets.toy_model(sp.datasets.toy_study())


@pytest.fixture
def scans(tmp_path: Path, toy_pixels: list[np.ndarray]) -> Path:
    """Folder of four slides in four formats, one of them with blanks and accents, and a fifth that is broken."""
    folder = tmp_path / "my scans é"
    folder.mkdir()
    write_pyramid(folder / "a.svs", toy_pixels, um_per_px=1.0)
    write_pyramid(folder / "b.ome.tif", toy_pixels, um_per_px=1.0, ome=True)
    Image.fromarray(toy_pixels[0]).save(folder / "Präparat 3 µ.png")
    Image.fromarray(np.ascontiguousarray(toy_pixels[0][::-1])).save(folder / "d.jpg", quality=95)
    whole = (folder / "a.svs").read_bytes()
    (folder / "broken.svs").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("no slide")
    return folder


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[sp.Cohort, sp.models.SignatureViT, str, Path]:
    """Cohort of three synthetic patients in one stain, a calibrated model of one of them, one held out, its image file."""
    root = tmp_path_factory.mktemp("study")
    bundles = sp.datasets.synthetic_xenium(root / "bundles", n_slides=3, size_um=300.0, seed=5, transcripts=False)
    cohort = sp.Cohort.from_bundles(root / "bundles" / "bundles.csv", root / "stores")
    sp.pp.split(cohort, by="patient", n_folds=3)
    sp.pp.find_tissue(cohort)
    sp.pp.make_patches(cohort, patch_px=28, um_per_px=2.0)
    sp.pp.normalize_stain(cohort)
    sp.pp.assign_cells(cohort)
    sp.tl.score_cells(cohort, "seed")
    sp.tl.aggregate_patches(cohort, min_cells=3, use_rep=None)
    model = sp.tl.train_vit(cohort, use_rep=None, size=TINY, max_epochs=1, test_fold=0, validation_fold=1)
    sp.tl.calibrate(cohort, model)
    held_out = next(name for name in cohort if cohort[name].attrs["spatialsig"]["split"]["fold"] == 0)
    file = bundles.set_index("sample").loc[held_out, "he_image"]
    sp.tl.predict(cohort, model)
    return cohort, model, held_out, Path(file)
