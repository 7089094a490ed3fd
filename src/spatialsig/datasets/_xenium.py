"""Whole synthetic Xenium runs written with paired H&E and a known truth.

Floor 8, above io, pl, pp, tl. Called as sp.datasets.synthetic_xenium; used by pipeline/demo, pipeline/estimate.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from spatialsig._arguments import (
    AnyPath,
    Count,
    Fraction,
    Micrometres,
    Natural,
    NotNegative,
    Positive,
    Seed,
    UmPerPx,
    checked,
)
from spatialsig._files import draft_beside, writing
from spatialsig._progress import track
from spatialsig._settings import settings
from spatialsig.datasets.synthetic.bundle.layouts import LAYOUTS
from spatialsig.datasets.synthetic.bundle.write import write_bundle
from spatialsig.datasets.synthetic.image.render import paint_he
from spatialsig.datasets.synthetic.image.tiff import write_he
from spatialsig.datasets.synthetic.slide import Depth, Recipe, SyntheticSlide, check_recipe, make_slide
from spatialsig.datasets.synthetic.truth import true_cells, true_masks, true_patches, write_masks
from spatialsig.errors import InputError
from spatialsig.store.tables import storable


@checked
def synthetic_xenium(
    directory: AnyPath,
    *,
    n_slides: Count = 4,
    seed: Seed = 0,
    size_um: Micrometres = 1000.0,
    n_patients: Count | None = None,
    counts_per_cell: Depth = 150.0,
    density_per_mm2: Positive = 4500.0,
    image_signal: Fraction = 1.0,
    stain_sd: NotNegative = 0.12,
    slide_sd: NotNegative = 0.35,
    gap_share: Fraction = 0.03,
    registration_error_um: NotNegative = 0.0,
    warp_um: NotNegative = 0.0,
    rotation_deg: float | Sequence[float] | None = None,
    he_um_per_px: UmPerPx = 0.2738,
    pixel_size_um: Micrometres = 0.2125,
    transcripts: bool = True,
    version: str = "3.0",
    stains: int = 1,
    he_in_bundle: bool = True,
    lumen_share: Fraction = 0.0,
    fat_share: Fraction = 0.0,
    n_folds: Natural = 0,
    n_pen: Natural = 0,
    defocus_share: Fraction = 0.0,
) -> pd.DataFrame:
    """Write Xenium or Atera output folders, each with an H&E, its alignment and the planted truth.

    The files are those of Xenium Onboard Analysis [1]_ and are read by ``spatialdata_io.xenium`` as they are, all but
    those of ``version="atera-1.0"``, which only :func:`spatialsig.io.read_atera` reads. Eight cell
    types lie in smooth regions, their positions a log-Gaussian Cox process [2]_; a proliferation programme drives genes
    and nuclei of the tumour cells; counts are negative binomial with ambient transcripts, spill-over and control
    probes; the H&E is painted in optical density [3]_, its fibres by line integral convolution [4]_.
    Slide ``i`` of a seed is the same however many slides are written.

    Parameters
    ----------
    directory
        Folder to fill; made if missing. Bundles that exist already are refused.
    n_slides
        Number of slides, named ``S1``, ``S2``, ...
    seed
        Random seed.
    size_um
        Side of the square tissue.
    n_patients
        Slides are dealt to this many patients in turn; default one patient per slide. Slides of one patient share
        their mixture of cell types.
    counts_per_cell
        Median transcripts per cell.
    density_per_mm2
        Cells per mm2 of tissue.
    image_signal
        Share of cells that look like their own type; the others take the look of a random cell.
    stain_sd
        Spread of stain strength and hue between slides.
    slide_sd
        Spread of the mixture of cell types between patients (sd of the logits).
    gap_share
        Share of the tissue that is empty.
    registration_error_um
        Length of the shift between the alignment file and the truth.
    warp_um
        Amplitude of a smooth residual displacement that no affine undoes.
    rotation_deg
        Rotation from H&E to morphology image, one number or one per slide; by default a different one for each slide:
        about 90, mirrored, -90 and 180 degrees, each a few degrees off.
    he_um_per_px, pixel_size_um
        Pixel sizes of H&E and morphology image.
    transcripts
        Write all transcripts; otherwise those of a few cells, which keeps the folder readable. None in ``"atera-1.0"``.
    version
        Layout of the folders: ``"1.0"``, ``"1.6"``, ``"2.0"``, ``"3.0"`` or ``"4.0"`` of Xenium, ``"atera-preview"``
        (files as those of Xenium) or ``"atera-1.0"`` (zipped Zarr, without transcripts) of Atera. Cells, counts and
        pictures are the same in all of them; ids of cells are running numbers in ``"1.0"``.
    stains
        Channels of the morphology image: 1 (DAPI), or from ``"2.0"`` on 4 (DAPI, boundary, interior RNA, interior
        protein).
    he_in_bundle
        Put the H&E and its alignment into the bundle folder; otherwise beside it, in ``directory``.
    lumen_share, fat_share
        Share of the tissue that is lumen (white, lined by one row of tumour cells) and fat cell (white, thin walls,
        few flat nuclei). Cells and counts follow.
    n_folds, n_pen
        Folds of the H&E section and pen marks on its glass, per slide. They change the picture only.
    defocus_share
        Share of the tissue that is out of focus in the H&E.

    Returns
    -------
    Table with one row per slide: ``sample``, ``patient``, ``bundle``, ``he_image``, ``he_alignment`` (absolute paths).
    The same table with paths relative to the folder is written to ``bundles.csv``.

    In each bundle folder (or beside it), with the files of 10x: ``<sample>_he_image.ome.tif``, ``<sample>_he_imagealignment.csv``
    (Atera: ``<sample>_he_alignment.csv``; 3 x 3, H&E px to morphology px). In ``directory``:

    - ``<sample>_truth.h5ad``: ``X`` expected counts without noise (float32); ``obs``: ``cell_id``, ``sample``,
      ``patient``, ``cell_type``, ``drawn_type``, ``programme``; ``obsm["spatial"]`` um; ``obsm["he_px"]`` nucleus
      centres in H&E px (x, y); ``uns``: ``signatures``, ``he_to_um``, ``alignment``.
    - ``<sample>_truth_patches.parquet``: grid of 112 um squares from the top-left corner of the H&E: ``y0``, ``x0``,
      ``size_l0``, ``row``, ``col``, ``n_cells``, ``fraction_<type>``, ``programme``, ``score_<signature>``, and the
      share of the patch that is ``white_share`` (no tissue), ``lumen_share``, ``fat_share``, ``fold_share``,
      ``pen_share``, ``defocus_share``.
    - ``<sample>_truth_masks.tif``: the same six as masks ``(6, y, x)``, uint8 0 or 1, a pixel for every 4 x 4 px of
      the H&E.

    Raises
    ------
    InputError
        A number is out of range, or a bundle folder exists already.
    StoreError
        The disk is full or cannot be written to; nothing is left of the slides.

    References
    ----------
    .. [1] 10x Genomics. Understanding Xenium outputs.
       https://www.10xgenomics.com/support/software/xenium-onboard-analysis/latest/analysis/xoa-output-understanding-outputs
    .. [2] Møller J, Syversveen AR, Waagepetersen RP. Log Gaussian Cox processes. Scandinavian Journal of Statistics 25,
       451-482 (1998). https://doi.org/10.1111/1467-9469.00115
    .. [3] Ruifrok AC, Johnston DA. Quantification of histochemical staining by color deconvolution. Analytical and
       Quantitative Cytology and Histology 23, 291-299 (2001). PMID 11531144
    .. [4] Cabral B, Leedom LC. Imaging vector fields using line integral convolution. SIGGRAPH, 263-270 (1993).
       https://doi.org/10.1145/166117.166151

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import spatialsig as sp
    >>> with TemporaryDirectory() as folder:
    ...     bundles = sp.datasets.synthetic_xenium(folder, n_slides=1, size_um=100, transcripts=False)
    >>> bundles.columns.tolist()
    ['sample', 'patient', 'bundle', 'he_image', 'he_alignment']
    """
    recipe = Recipe(
        size_um=size_um, counts_per_cell=counts_per_cell, density_per_mm2=density_per_mm2, image_signal=image_signal,
        stain_sd=stain_sd, slide_sd=slide_sd, gap_share=gap_share, registration_error_um=registration_error_um,
        warp_um=warp_um, he_um_per_px=he_um_per_px, pixel_size_um=pixel_size_um, transcripts=transcripts,
        version=version, stains=stains, he_in_bundle=he_in_bundle, lumen_share=lumen_share, fat_share=fat_share,
        n_folds=n_folds, n_pen=n_pen, defocus_share=defocus_share,
    )  # fmt: skip
    check_recipe(recipe)
    rotations = _rotations(rotation_deg, n_slides)
    root = Path(directory).absolute()
    samples = [f"S{index + 1}" for index in range(n_slides)]
    _refuse_existing(root, samples)
    rows = []
    # beside their place until all are whole: half a bundle would be taken for one, and refused by the next call
    with writing(root), draft_beside(root / "draft") as draft:
        for index in track(range(n_slides), "Writing synthetic slides", unit="slide"):
            patient = index % (n_patients or n_slides)
            slide = make_slide(
                recipe, seed=seed, index=index, sample=samples[index], patient=f"P{patient + 1}",
                patient_index=patient, rotation_deg=rotations[index],
            )  # fmt: skip
            rows.append(_write_slide(draft, slide))
        manifest = pd.DataFrame(rows)
        manifest.to_csv(draft / "bundles.csv", index=False)
        for entry in sorted(draft.iterdir(), key=lambda entry: (entry.name == "bundles.csv", entry.is_dir())):
            os.replace(entry, root / entry.name)
    paths = ["bundle", "he_image", "he_alignment"]
    manifest[paths] = manifest[paths].map(lambda path: str(root / path))
    return manifest


def _rotations(rotation_deg: float | Sequence[float] | None, n_slides: int) -> list[float | None]:
    if rotation_deg is None or isinstance(rotation_deg, (int, float)):
        return [rotation_deg] * n_slides
    if len(rotation_deg) != n_slides:
        msg = f"`rotation_deg` must be one number or one per slide ({n_slides}); got {len(rotation_deg)} numbers."
        raise InputError(msg)
    return list(rotation_deg)


def _refuse_existing(root: Path, samples: list[str]) -> None:
    taken = [str(root / sample) for sample in samples if (root / sample).exists()]
    if taken:
        msg = f"`directory={str(root)!r}` already holds {taken}; choose another directory or remove them."
        raise InputError(msg)


def _write_slide(root: Path, slide: SyntheticSlide) -> dict[str, str]:
    """Write one slide's bundle, H&E and truth; returns its row of the manifest."""
    bundle = root / slide.sample
    bundle.mkdir(parents=True)
    place = bundle if slide.recipe.he_in_bundle else root
    image = place / f"{slide.sample}_he_image.ome.tif"
    alignment = place / f"{slide.sample}_{LAYOUTS[slide.recipe.version].alignment}"
    # packing the files and painting the picture keep different parts of the machine busy
    with ThreadPoolExecutor(min(settings.threads, 2)) as pool:
        packed = pool.submit(write_bundle, bundle, slide)
        painted = pool.submit(lambda: write_he(image, paint_he(slide), um_per_px=slide.recipe.he_um_per_px))
        cell_ids, _ = packed.result(), painted.result()
    np.savetxt(alignment, slide.frames.alignment, delimiter=",", fmt="%.18e")
    storable(true_cells(slide, cell_ids), where="the truth").write_h5ad(root / f"{slide.sample}_truth.h5ad")
    masks = true_masks(slide)
    write_masks(root / f"{slide.sample}_truth_masks.tif", masks, um_per_px=slide.recipe.he_um_per_px)
    true_patches(slide, masks).to_parquet(root / f"{slide.sample}_truth_patches.parquet", index=False)
    paths = {"bundle": bundle, "he_image": image, "he_alignment": alignment}
    return {
        "sample": slide.sample,
        "patient": slide.patient,
        **{name: path.relative_to(root).as_posix() for name, path in paths.items()},
    }
