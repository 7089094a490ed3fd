"""Files and folders that are known by their names: what a path is that was given in place of another, and what takes it.

Ground floor. Used by 16 modules of _misfits, cli, io, models, pipeline, signatures, slide, store, whole_slides.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from spatialsig._files import content_hint, object_or_empty

if TYPE_CHECKING:
    from pathlib import Path


class _Platform(NamedTuple):
    """A platform: names of its files with what they are, names that only its output has, and what reads it."""

    name: str
    files: dict[str, str]  # pattern of a whole name, in small letters -> what the file is
    marks: tuple[str, ...]  # patterns of names in its folder
    reader: str  # of its whole folder; empty where a table has to be made first


_10X = {
    r"cells\.(parquet|csv(\.gz)?)": "the table of cells",
    r"cells\.zarr(\.zip)?": "the file of outlines and masks of cells",
    r"(cell|nucleus)_boundaries\.(parquet|csv(\.gz)?)": "a table of outlines of cells",
    r"transcripts\.(parquet|csv(\.gz)?|zarr(\.zip)?)": "the list of transcripts",
    r"cell_feature_matrix(\.(h5|zarr(\.zip)?|tar\.gz))?": "the table of counts",
    r"analysis(\.(zarr(\.zip)?|tar\.gz))?": "the file of clusters",
    r"aux_outputs(\.tar\.gz)?": "a side output",
    r"gene_panel\.json": "the list of genes",
    r"(analysis_summary\.html|metrics_summary\.csv)": "the summary",
}
_PLATFORMS = (
    _Platform(
        "Xenium",
        {r"experiment\.xenium": "the settings file", **_10X},
        (r"experiment\.xenium",),
        "sp.io.read_xenium",
    ),
    _Platform(
        "Atera",
        {r"experiment\.spatial": "the settings file", r"panel_config\.json": "the list of genes", **_10X},
        (r"experiment\.spatial", r"panel_config\.json"),
        "sp.io.read_atera",
    ),
    _Platform(
        "Visium",
        {
            r"(.+_)?(filtered|raw)_feature_bc_matrix(\.(h5|tar\.gz))?": "the table of counts",
            r"tissue_positions(_list)?\.(csv|parquet)": "the table of positions of spots",
            r"scalefactors_json\.json": "the file of scales of its pictures",
            r"(.+_)?feature_slice\.h5": "the file of counts of its finest bins",
            r"(web_summary\.html|metrics_summary\.csv)": "the summary",
            r"spatial(\.tar\.gz)?": "the folder of positions and pictures",
            r"binned_outputs(\.tar\.gz)?": "the folder of counts in bins",
            r"cloupe_?.*\.cloupe|.*\.cloupe": "a file of Loupe Browser",
        },
        (r"(.+_)?(filtered|raw)_feature_bc_matrix(\.h5)?", r"binned_outputs", r"tissue_positions(_list)?\.(csv|parquet)"),
        "",
    ),
    _Platform(
        "CosMx",
        {
            r".*_exprmat_file\.csv(\.gz)?": "the table of counts",
            r".*_metadata_file\.csv(\.gz)?": "the table of cells",
            r".*_fov_positions_file\.csv(\.gz)?": "the table of places of its fields of view",
            r".*_tx_file\.csv(\.gz)?": "the list of transcripts",
            r".*-polygons\.csv(\.gz)?": "a table of outlines of cells",
        },
        (r".*_exprmat_file\.csv(\.gz)?", r".*_fov_positions_file\.csv(\.gz)?"),
        "",
    ),
    _Platform(
        "MERSCOPE",
        {
            r"cell_by_gene\.csv": "the table of counts",
            r"cell_metadata\.csv": "the table of cells",
            r"cell_boundaries\.parquet": "a table of outlines of cells",
            r"detected_transcripts\.(csv|parquet)": "the list of transcripts",
            r"micron_to_mosaic_pixel_transform\.csv": "the matrix of its mosaic",
            r".*\.vzg2?": "a file of MERSCOPE Vizualizer",
        },
        (r"cell_by_gene\.csv", r"detected_transcripts\.(csv|parquet)"),
        "",
    ),
    _Platform("Stereo-seq", {r".*\.(gef|gem|gem\.gz)": "a file of counts"}, (r".*\.gef",), ""),
)  # fmt: skip
# files of no platform -> what they are, and what takes them
_OTHERS = {
    r".*\.h5ad": "an AnnData: give `anndata.read_h5ad(...)` of it with its H&E to `sp.io.from_anndata`",
    r".*\.h5mu": "a MuData: give one AnnData of it with its H&E to `sp.io.from_anndata`",
    r".*\.(loom|rds|rdata|h5seurat)": "a table of cells: make an AnnData of it, and give that with its H&E to `sp.io.from_anndata`",
    r".*\.gmt": "a file of gene sets: `sp.io.read_signatures` and `signatures=` take it",
    r".*\.(geojson|qpproj)": "a file of annotations, such as QuPath writes",
    r".*_?imagealignment\.csv": "an alignment of Xenium Explorer: give it as `he_alignment=`, beside the bundle",
}  # fmt: skip
_TABLE_FIRST = (
    "make an AnnData of the counts and positions, and give it with the H&E to `sp.io.from_anndata` (docs/platforms.md)"
)
MODELS = {
    "Autoencoder": ("sp.tl.train_autoencoder", "sp.models.Autoencoder.load"),
    "CellHead": ("sp.tl.train_cell_head", "sp.models.CellHead.load"),
    "PretrainedViT": ("sp.tl.pretrain_vit", "sp.models.PretrainedViT.load"),
    "SignatureEnsemble": ("sp.tl.train_ensemble", "sp.models.load_signature_model"),
    "SignatureViT": ("sp.tl.train_vit", "sp.models.load_signature_model"),
}  # class of a model -> what makes it, and what reads its directory


def model_words(kind: str) -> str:
    """A model of a kind as it is asked for, with what makes one and what reads it; another class by its name.

    >>> model_words("Autoencoder")
    'an Autoencoder (made by `sp.tl.train_autoencoder`, read by `sp.models.Autoencoder.load`)'
    """
    if kind not in MODELS:
        return f"an instance of {kind}"
    made, read = MODELS[kind]
    return f"{'an' if kind[0] in 'AEIOU' else 'a'} {kind} (made by `{made}`, read by `{read}`)"


def what_is(path: Path) -> str:
    """Sentence with a blank before it on what a path is, and what takes it; empty where nothing is there or it is not known.

    A file is known by its name, by the folder that it lies in, and by its first bytes; a folder by what is in it.
    """
    try:
        known = _folder(path) if path.is_dir() else _file(path) if path.exists() else ""
    except OSError:  # a folder that may not be read
        return ""
    return f" It is {known}." if known else content_hint(path, by_name=False) if path.is_file() else ""


def _file(path: Path) -> str:
    """What a file is, by its name."""
    name = path.name.lower()
    possible = [platform for platform in _PLATFORMS if _meaning(platform.files, name)]
    marked = [platform for platform in possible if _is_of(platform, path.parent)]
    if not possible:
        return _meaning(_OTHERS, name)
    platform = (marked or possible)[0]
    alike = [platform] if marked else [each for each in possible if bool(each.reader) == bool(platform.reader)]
    of = " or ".join(each.name for each in alike)
    return f"{_meaning(platform.files, name)} of {of}: {_whole(platform, path.parent)}"


def _folder(path: Path) -> str:
    """What a folder is, by what lies in it."""
    config = object_or_empty(path / "config.json")
    if config.get("kind") in MODELS:
        return f"the directory of a saved model ({config['kind']}): `{MODELS[config['kind']][1]}` reads it"
    root = object_or_empty(path / "zarr.json").get("attributes")
    if isinstance(root, dict) and "spatialdata_attrs" in root:
        return "a store of a slide: functions take it as it is, and `sp.io.read` reads it"
    if isinstance(root, dict) or (path / ".zgroup").exists() or (path / ".zattrs").exists():
        return "a Zarr hierarchy: of an image in it `sp.io.read_he` makes a slide"
    if (path / "cohort.csv").is_file():
        return "a folder of stores: give `sp.Cohort` of it, or one of the stores"
    for platform in _PLATFORMS:
        if _is_of(platform, path):
            return f"the output of {platform.name}: {_whole(platform, path)}"
    return ""


def _whole(platform: _Platform, folder: Path) -> str:
    """What to give of the output of a platform instead of one of its files."""
    return f"give its directory, {str(folder)!r}, to `{platform.reader}`" if platform.reader else _TABLE_FIRST


def _is_of(platform: _Platform, folder: Path) -> bool:
    """Whether a file that only this platform writes lies in a folder."""
    names = [entry.name.lower() for entry in folder.iterdir()] if folder.is_dir() else []
    return any(re.fullmatch(mark, name) for mark in platform.marks for name in names)


def _meaning(files: dict[str, str], name: str) -> str:
    return next((what for pattern, what in files.items() if re.fullmatch(pattern, name)), "")
