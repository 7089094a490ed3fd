"""Expression of cells: training an autoencoder on the counts of many slides, and embedding cells with it.

Floor 5, above slide. Used by evaluation/fold_plan, pipeline/run_options, tl/_autoencoder, tl/_cross_validate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from spatialsig import _keys
from spatialsig._arguments import Count, Fraction, Key, Natural, Seed, check_fit, checked_class
from spatialsig._checks import check_choice, option_names
from spatialsig._progress import track
from spatialsig.data.cells import MemoryCells, StoredCells
from spatialsig.errors import InputError
from spatialsig.nn.autoencoder import AutoencoderConfig
from spatialsig.nn.device import choose_device
from spatialsig.signatures import Source, describe_names, in_panel_names, read_signatures
from spatialsig.slide.coordinates import positions
from spatialsig.slide.copies import refuse_leaks
from spatialsig.slide.counts import common_genes, count_blocks, counts_of, named_genes
from spatialsig.slide.folds import folds_of, is_training
from spatialsig.slide.seen import PATIENTS, SAMPLES, patients_of
from spatialsig.slide.slides import open_slides, slide_count
from spatialsig.stats.cell_rows import sub_matrix
from spatialsig.stats.expression import gene_moments, library_size, scaler_from_moments
from spatialsig.train import fit_autoencoder

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from spatialsig.data.cells import CellSource
    from spatialsig.models import Autoencoder
    from spatialsig.slide.slides import Data, Slide

PANELS = ("intersection", "union")
# what a run decides itself, so that it is no option of the fit
_DECIDED = ("genes", "mean", "std", "validation", "measured", "validation_measured", "config", "seed")
FIT_OPTIONS = option_names(fit_autoencoder, without=_DECIDED)


@dataclass
class TrainingCells:
    """Cells of several slides to read from, the genes each measures, and sums of their expression."""

    genes: list[str]
    samples: list[str] = field(default_factory=list)
    sources: list[CellSource] = field(default_factory=list)
    measured: list[NDArray[np.bool_]] = field(default_factory=list)
    sums: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=list)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Genes that each slide measures, ``(n_slides, n_genes)``."""
        return np.stack(self.measured)

    def add(self, slide: Slide, table_key: str, rows: NDArray[np.bool_]) -> None:
        """Take chosen cells of a slide, and sum up their expression for the scaler."""
        if not rows.any():
            return
        columns = np.asarray(slide.table(table_key).var_names.get_indexer(self.genes), np.int64)
        chosen, measured = np.flatnonzero(rows), columns >= 0
        used = np.zeros(slide.table(table_key).n_vars, bool)
        used[columns[measured]] = True
        sums = np.zeros((2, len(used)))
        for block, counts in count_blocks(slide, table_key):
            sums += gene_moments(counts, library_size(counts, genes=used), rows=rows[block])
        self.sums.append((np.where(measured, sums[0][columns], 0), np.where(measured, sums[1][columns], 0)))
        if slide.path is None:
            source: CellSource = MemoryCells(sub_matrix(counts_of(slide, table_key), columns, chosen))
        else:
            source = StoredCells(slide.path / "tables" / table_key / "X", columns, chosen)
        self.samples.append(slide.name)
        self.sources.append(source)
        self.measured.append(measured)

    def scaler(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and deviation of every gene over the cells of the slides that measure it."""
        total, squares = np.sum(self.sums, axis=0)
        n = np.array([source.n_cells for source in self.sources]) @ self.mask
        mean, std = scaler_from_moments(total, squares, n.astype(np.float64))
        return mean.astype(np.float32), std.astype(np.float32)


@checked_class
@dataclass(frozen=True)
class AutoencoderOptions:
    """Arguments of :func:`spatialsig.tl.train_autoencoder`, which describes them; unknown names in ``fit`` are refused."""

    signatures: Source = "tumour_microenvironment"
    exclude_signature_genes: bool = True
    gene_symbols: str | None = None
    panel: str = "intersection"
    test_fold: Natural | None = 0
    validation_fold: Natural | None = None
    n_latent: Count = 32
    hidden: tuple[int, ...] = (1024, 256)
    loss: str = "mse"
    denoise: Fraction = 0.2
    slide_offsets: bool = False
    linear_path: bool = True
    seed: Seed = 0
    table_key: Key = _keys.TABLE
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        fit = check_fit(self.fit, fit_autoencoder, (*_NAMES, *FIT_OPTIONS), function="train_autoencoder")
        object.__setattr__(self, "fit", fit)
        check_choice(self.panel, PANELS, name="panel")
        self.config(0)  # which checks its numbers

    def config(self, n_batches: int) -> AutoencoderConfig:
        """Shape of the network, with offsets for that many slides."""
        return AutoencoderConfig(
            hidden=tuple(self.hidden),
            n_latent=self.n_latent,
            dropout=self.denoise,
            linear_path=self.linear_path,
            loss=self.loss,
            n_batches=n_batches,
        )

    @classmethod
    def of(cls, **options: Any) -> AutoencoderOptions:
        """Sort options into those of the run and those of the fit."""
        return cls(
            **{name: value for name, value in options.items() if name in _NAMES},
            fit={name: value for name, value in options.items() if name not in _NAMES},
        )


_NAMES = tuple(f.name for f in fields(AutoencoderOptions) if f.name != "fit")


def train_expression_autoencoder(data: Data, options: AutoencoderOptions) -> Autoencoder:
    """Train an autoencoder; all options are checked before the first slide is opened."""
    choose_device(None)  # which checks that it is there
    refuse_leaks(data, [fold for fold in (options.test_fold, options.validation_fold) if fold is not None])
    samples, genes = _genes(data, options)
    training, validation = _cells(data, genes, options)
    if not training.sources:
        msg = (
            f"`test_fold={options.test_fold}`, `validation_fold={options.validation_fold}` leave no training cells; "
            "choose another fold."
        )
        raise InputError(msg)
    mean, std = training.scaler()
    union = options.panel == "union"
    model, history = fit_autoencoder(
        training.sources,
        genes=genes,
        mean=mean,
        std=std,
        measured=training.mask if union else None,
        validation=validation.sources or None,
        validation_measured=validation.mask if union and validation.sources else None,
        config=options.config(len(training.sources) if options.slide_offsets else 0),
        seed=options.seed,
        **options.fit,
    )
    model.run |= {
        "test_fold": options.test_fold,
        "validation_fold": options.validation_fold,
        "samples": samples,
        SAMPLES: training.samples,
        PATIENTS: patients_of(data, training.samples),
        "n_training_cells": sum(source.n_cells for source in training.sources),
        "exclude_signature_genes": options.exclude_signature_genes,
        "panel": options.panel,
        "seed": options.seed,
        "scaler_sha256": model.scaler_sha256,
        "history": history.to_dict("list"),
    }
    return model


def embed_slide(slide: Slide, model: Autoencoder, *, table_key: str) -> NDArray[np.float32]:
    """Embedding ``(n_cells, n_latent)`` of the cells of a slide; genes are looked up by name.

    Raises
    ------
    InputError
        If the slide does not measure all genes of the model.
    """
    columns = model.align_genes(slide.table(table_key).var_names, where=f"slide {slide.name!r}")
    measured = None if (columns >= 0).all() else columns >= 0
    codes = [
        model.get_latent_representation(sub_matrix(counts, columns), measured=measured)
        for _, counts in count_blocks(slide, table_key)
    ]
    return np.concatenate(codes)


def _excluded(var: Mapping[str, pd.DataFrame], options: AutoencoderOptions) -> set[str]:
    """Genes of the signatures, by the names of the tables; refused where they have other names there and none is found."""
    if not options.exclude_signature_genes:
        return set()
    signatures = in_panel_names(read_signatures(options.signatures), var, options.gene_symbols)
    excluded = {gene for genes in signatures.values() for gene in genes}
    for slide, frame in var.items():
        if excluded.isdisjoint(frame.index) and (hint := describe_names(excluded, frame)):
            msg = (
                f"slide {slide!r} has none of the {len(excluded)} signature genes to leave out by their names, so that the "
                f"embedding would hold the answer. {hint}"
            )
            raise InputError(msg)
    return excluded


def _marked(slide: Slide, table_key: str) -> NDArray[np.bool_]:
    """Which genes of a table to learn from: the variable ones where they were looked for."""
    slide.lineage.check(f"{table_key}/var/{_keys.HIGHLY_VARIABLE}")
    var = slide.table(table_key).var
    if _keys.HIGHLY_VARIABLE not in var:
        return np.ones(len(var), bool)
    marked = var[_keys.HIGHLY_VARIABLE]
    if marked.isna().any():
        msg = (
            f"slide {slide.name!r}: var[{_keys.HIGHLY_VARIABLE!r}] is missing for {marked.isna().sum()} of {len(var)} "
            "genes; call `sp.pp.highly_variable_genes` again."
        )
        raise InputError(msg)
    return np.asarray(marked, bool)


def _genes(data: Data, options: AutoencoderOptions) -> tuple[list[str], list[str]]:
    """Names of the slides, and the genes to learn from."""
    var, panels = {}, []
    for slide in open_slides(data):
        var[slide.name] = named_genes(slide, options.table_key)
        panels.append(list(var[slide.name].index[_marked(slide, options.table_key)]))
    excluded = _excluded(var, options)
    everywhere = options.panel == "intersection"
    variable = common_genes(panels) if everywhere else list(dict.fromkeys(gene for genes in panels for gene in genes))
    genes = [gene for gene in variable if gene not in excluded]
    if len(genes) < 2:
        msg = (
            f"only {len(genes)} genes are left for the autoencoder: {len(variable)} highly variable genes are measured on "
            f"{'all' if everywhere else 'any'} slides, {len(excluded)} signature genes are excluded. Raise "
            "`n_top_genes` in `sp.pp.highly_variable_genes`, use fewer signatures, or `panel='union'`."
        )
        raise InputError(msg)
    return list(var), genes


def _cells(data: Data, genes: list[str], options: AutoencoderOptions) -> tuple[TrainingCells, TrainingCells]:
    """Cells to train on, and cells to choose the best epoch by."""
    training, validation = TrainingCells(genes), TrainingCells(genes)
    for slide in track(open_slides(data), "find cells", total=slide_count(data), unit="slide"):
        xy_um = positions(slide, options.table_key)
        rows = is_training(slide, xy_um, test_fold=options.test_fold)
        if options.validation_fold is not None:
            held_out = rows & (folds_of(slide, xy_um) == options.validation_fold)
            validation.add(slide, options.table_key, held_out)
            rows &= ~held_out
        training.add(slide, options.table_key, rows)
    return training, validation
