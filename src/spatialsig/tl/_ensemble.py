"""An ensemble of one model, trained several times from different seeds.

Floor 7, above evaluation. Called as sp.tl.train_ensemble; used by pipeline/run_options, pipeline/run_steps.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Count, Key, Seed, checked
from spatialsig._progress import track
from spatialsig.errors import InputError
from spatialsig.inference.stacking import share_stacking
from spatialsig.inference.vit import VitOptions, train_signature_vit, training_rep
from spatialsig.models.ensemble import SignatureEnsemble
from spatialsig.models.vit import SignatureViT
from spatialsig.slide.embeddings import AUTO
from spatialsig.slide.ledger import Ledger, data_hash, run_hash
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data
from spatialsig.store.lock import run_lock

if TYPE_CHECKING:
    from collections.abc import Sequence

MANIFEST = "ensemble.json"
TRAINING = "training"  # checkpoints of the member that trains


@checked
@needs_cells
def train_ensemble(
    data: Data,
    *,
    n_members: Count = 5,
    seed: Seed = 0,
    run_dir: AnyPath | None = None,
    use_rep: Key | None = AUTO,
    signatures_key: Key = _keys.SIGNATURES,
    patches_key: Key = _keys.PATCHES,
    **train_options: Any,
) -> SignatureEnsemble:
    """Train several image models on the same slides from different seeds, to predict as one.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; not modified.
    n_members
        Number of models, at least 2.
    seed
        Of the first; the next ones count up.
    run_dir
        Directory for finished members and the checkpoints of the one that trains: called again with the same data and
        options, training resumes there. None keeps nothing.
    use_rep, signatures_key, patches_key, **train_options
        Passed on to :func:`train_vit`.

    Returns
    -------
    The ensemble [1]_. With ``run_dir``, writes a model directory per member there, and a manifest.

    Raises
    ------
    InputError
        If there are fewer than two members, and as :func:`train_vit`.

    References
    ----------
    .. [1] Lakshminarayanan B, Pritzel A, Blundell C. Simple and scalable predictive uncertainty estimation using deep
       ensembles. Advances in Neural Information Processing Systems 30 (2017). https://doi.org/10.48550/arXiv.1612.01474

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> size = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
    >>> model = sp.tl.train_ensemble(sdata, n_members=2, use_rep=None, size=size, max_epochs=1)
    >>> len(model.members)
    2
    """
    if n_members < 2:
        msg = f"`n_members={n_members}` must be at least 2; call `sp.tl.train_vit` for one."
        raise InputError(msg)
    use_rep = training_rep(data, use_rep, signatures_key=signatures_key, **train_options)
    keys = {"use_rep": use_rep, "signatures_key": signatures_key, "patches_key": patches_key}
    options: dict[str, Any] = keys | train_options
    VitOptions.of(**options)  # refuses what it does not know, before anything is trained
    seeds = range(seed, seed + n_members)
    if run_dir is not None:
        with run_lock(run_dir, "ensemble"):
            decides = run_hash([options, data_hash(data, **keys, table_key=None)])  # type: ignore[arg-type]
            return SignatureEnsemble(_resumed(data, seeds, options, Path(run_dir), decides))
    members: list[SignatureViT] = []
    for of_member in track(seeds, "ensemble", unit="model"):
        members.append(_member(data, of_member, options, members[:1]))
    return SignatureEnsemble(members)


def _resumed(
    data: Data, seeds: Sequence[int], options: dict[str, Any], run_dir: Path, decides: str
) -> list[SignatureViT]:
    """Members that were finished in a directory, and the others trained there."""
    finished = Ledger(run_dir / MANIFEST)
    members: list[SignatureViT] = []
    for seed in track(seeds, "ensemble", unit="model"):
        place = run_dir / f"member-{seed:02d}"
        digest = run_hash([decides, seed])
        if not finished.holds(place.name, digest):
            checkpoints = run_dir / TRAINING / place.name
            model = _member(data, seed, {"run_dir": checkpoints} | options, members[:1])
            model.save(place, overwrite=True)  # unfinished, or of other data
            finished.note(place.name, digest)
            shutil.rmtree(checkpoints, ignore_errors=True)
        members.append(SignatureViT.load(place))
    return members


def _member(data: Data, seed: int, options: dict[str, Any], first: list[SignatureViT]) -> SignatureViT:
    """Train one; what its score trusts was learned with the first."""
    if not first:
        return train_signature_vit(data, VitOptions.of(seed=seed, **options))
    model = train_signature_vit(data, VitOptions.of(seed=seed, **options | {"stacking": False}))
    share_stacking(first[0], model)
    return model
