"""The commented configuration that ``spatialsig init`` writes.

Floor 11, above report. Used by cli/project_commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialsig._files import write_text
from spatialsig.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = """\
# What `spatialsig run {name}` does; every line but the first two may be left out. See docs/run.md.
bundles: {bundles}  # csv: sample, patient, bundle, he_image, he_alignment (paths relative to it); without bundle, an H&E alone
out: results  # directory for stores, models, tables and report.html

title: Molecular signatures from H&E
seed: 0
check_alignment: true  # measure how far each H&E lies off its cells

cells:  # those with fewer are left out
  min_counts: 10
  min_genes: 5
split:
  by: patient  # or slide; block for a single slide
  n_folds: 4  # at most the number of patients
  test_fold: 0  # held out: judged, never learnt from
  block_um: 1000  # edge of a block, by block only
  buffer_um: 256  # between folds, by block only
genes:
  n_top_genes: 2000  # most variable genes, for the autoencoder
tissue: null  # true: outline it by sp.pp.find_tissue first; or {{sensitivity: 1.0}}, any of its keywords
patches:
  patch_px: 224  # edge of a patch, px of the model
  um_per_px: 0.5
  stride_um: null  # distance between patches, µm; null: their edge
  min_tissue: 0.25  # share of a patch
  normalize_stain: false  # read all slides in the colours of one reference
patch_qc: null  # true: measure blur, pen and folds by sp.pp.qc_patches; {{drop: true}} leaves poor patches out
labels:
  signatures: tumour_microenvironment  # a built-in set (synthetic slides measure seed), a file (gmt, csv, json, yaml), or a mapping: {{T cell: [CD3D, CD3E]}}
  stat: mean  # of the scores of a patch's cells; or median
  min_cells: 10  # of a labelled patch
  min_genes: 3  # of a signature, measured on all slides
  min_fraction: 0.5
  gene_symbols: null  # column of var with symbols, where genes are named by ids
autoencoder:  # further keywords of sp.tl.train_autoencoder
  n_latent: 32
  max_epochs: 12  # passes over the training cells
features: null  # of a network of others, by sp.tl.embed_patches: {{backbone: "transformers:DIRECTORY"}}; a baseline, and
  # what the image model learns from with `vit: {{backbone: "table:embedding"}}`
vit:  # further keywords of sp.tl.train_vit
  size: tiny  # small, base
  fusion: gated  # token, film, add; none learns from the H&E alone
  max_epochs: null  # passes over the training patches; null: 24, or as few as a backbone of others needs
  validation_fold: null  # a fold that chooses the best epoch and calibrates; null: the full schedule
  backbone: vit  # ours; or of others: "timm:NAME@FILE", "transformers:DIRECTORY", "MODULE:FUNCTION" that builds one of yours
ensemble: null  # {{n_members: 5}}: that many models, by sp.tl.train_ensemble
calibration: null  # {{coverage: 0.9}}: intervals, by sp.tl.calibrate; wants `vit: {{validation_fold: 1}}`
cross_validation: null  # true: hold out every fold once, by sp.tl.cross_validate (without `vit.validation_fold`)
"""


def write_template(path: Path, *, bundles: Path, overwrite: bool = False) -> None:
    """A commented configuration with the defaults; a file that is there is replaced only with ``overwrite``.

    Raises
    ------
    InputError
        If there is a file.
    """
    if path.is_dir():
        msg = f"{str(path)!r} is a folder; wanted the file to write, for example {str(path / 'config.yaml')!r}."
        raise InputError(msg)
    if path.exists() and not overwrite:
        msg = f"{str(path)!r} is there already; choose another name, or pass `overwrite=True` to replace it."
        raise InputError(msg)
    write_text(path, TEMPLATE.format(name=path.name, bundles=bundles))
