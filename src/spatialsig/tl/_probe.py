"""A linear probe: a ridge regression, or a small network, on the features of a frozen encoder.

Floor 7, above evaluation. Called as sp.tl.train_probe; used by cli/model_commands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import nn

from spatialsig import _keys
from spatialsig._arguments import Count, Key, Natural, Positive, Seed, checked
from spatialsig.errors import InputError, KeyMissingError
from spatialsig.inference.probe import AUTO, RIDGE, ProbeOptions, train_signature_probe
from spatialsig.inference.tuning import FROZEN
from spatialsig.inference.vit import VitOptions
from spatialsig.models import SignatureViT
from spatialsig.models.pretrained import PretrainedViT
from spatialsig.nn.backbones import TABLE
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data


@checked
@needs_cells
def train_probe(
    data: Data,
    features_key: Key | None = None,
    *,
    backbone: str | nn.Module | Callable[..., Any] | PretrainedViT | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    head: Literal["ridge", "mlp"] = RIDGE,
    n_components: Count | Literal["auto"] | None = 256,
    penalty: Positive | Literal["auto"] = AUTO,
    test_fold: Natural | None = 0,
    seed: Seed = 0,
    weights: str | None = "n_cells",
    targets_key: Key | None = None,
    signatures_key: Key = _keys.SIGNATURES,
    patches_key: Key = _keys.PATCHES,
    **fit_options: Any,
) -> SignatureViT:
    """Fit a head on the features of a frozen encoder: standardised, reduced to principal components, ridge regression.

    This is how foundation models of pathology are compared today [1]_ [2]_. The penalty of the ridge regression [3]_ is chosen
    for every signature on patients held out in turn inside the training part (on blocks of neighbouring patches where
    there is one patient); components are computed without the patients held out, too. It takes minutes on a CPU.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; not modified.
    features_key
        Table of features, as :func:`embed_patches`, LazySlide or sopa write it; ``"table/entry"`` for an entry of its
        ``obsm``. No pixels are read, here and in :func:`predict`.
    backbone
        In place of a table the encoder, see :func:`spatialsig.nn.backbones.build_backbone`, or what :func:`pretrain_vit`
        returned: its features are computed once, and the model takes pixels, those of :func:`predict_files` too.
    backbone_options
        More for ``build_backbone``: ``um_per_px``, ``mean``, ``std``, ``input_px``, ``pool``, ``download``.
    head
        ``"ridge"``, or ``"mlp"``: a linear path and a network of one hidden layer on the components, trained together.
    n_components
        Principal components, at most as many as features, and patches less one; None takes all, ``"auto"`` (ridge
        only) chooses for every signature together with the penalty.
    penalty
        Of the squared weights, per patch: ``alpha`` of scikit-learn, divided by the number of patches. ``"auto"`` chooses among
        15 from 1e-4 to 1e3.
    test_fold
        Fold that is not used; ``None`` trains on every slide.
    seed
        Of the network of ``head="mlp"``.
    weights
        Weight of each patch, as for :func:`train_vit`: ``"n_cells"``, ``"sem"`` or ``None``.
    targets_key
        Table whose ``X`` is predicted, or ``"table/entry"``; None takes ``signatures_key``.
    signatures_key, patches_key
        Table of labels, shapes element of the patches.
    **fit_options
        For ``head="mlp"``, passed on to :func:`spatialsig.train.fit_vit`: ``max_epochs``, ``learning_rate``, ...

    Returns
    -------
    The trained model, taken wherever one of :func:`train_vit` is. ``run["chosen_from"]`` is the table that components and
    penalty were chosen from, a row per signature and setting: ``error`` (squared error on held-out patients, in
    shares of that of the mean), ``pearson``, ``chosen``; ``run["probe"]`` holds what was chosen.

    Raises
    ------
    KeyMissingError
        If the table of features or of labels is not there.
    LeakageError
        If slides were split by patient, and a patient was renamed so that held-out and training slides share it.
    InputError
        If not one of ``features_key`` and ``backbone`` is given, options belong to the other head, or as for :func:`train_vit`.

    Warns
    -----
    SpatialsigWarning
        If the encoder has learned from held-out slides, or was trained at another resolution.

    References
    ----------
    .. [1] Chen RJ, Ding T, Lu MY, et al. Towards a general-purpose foundation model for computational pathology. Nature
       Medicine 30, 850-862 (2024). https://doi.org/10.1038/s41591-024-02857-3
    .. [2] Jaume G, Doucet P, Song AH, et al. HEST-1k: a dataset for spatial transcriptomics and histology image analysis.
       Advances in Neural Information Processing Systems 37 (2024). https://doi.org/10.48550/arXiv.2406.16192
    .. [3] Hoerl AE, Kennard RW. Ridge regression: biased estimation for nonorthogonal problems. Technometrics 12, 55-67
       (1970). https://doi.org/10.1080/00401706.1970.10488634

    Examples
    --------
    >>> import pandas as pd
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> sp.tl.embed_patches(sdata, sp.datasets.toy_model(sdata), key_added="features")
    >>> model = sp.tl.train_probe(sdata, "features")
    >>> pd.DataFrame(model.run["chosen_from"]).columns.tolist()
    ['signature', 'n_components', 'penalty', 'error', 'pearson', 'chosen']
    """
    probe = ProbeOptions(head=head, n_components=n_components, penalty=penalty)
    probe.check(fit_options)
    options = VitOptions.of(
        **_encoder(features_key, backbone, backbone_options), use_rep=None, test_fold=test_fold, seed=seed,
        weights=weights, targets_key=targets_key, signatures_key=signatures_key, patches_key=patches_key,
        **fit_options,
    )  # fmt: skip
    try:
        return train_signature_probe(data, options, probe)
    except KeyMissingError as error:  # below, a table is the backbone of a model
        raise KeyMissingError(str(error).replace("`backbone=", "`features_key=")) from error


def _encoder(features_key: str | None, backbone: Any, backbone_options: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the features are of, as options of a training."""
    if (features_key is None) == (backbone is None):
        given = "neither" if features_key is None else "both"
        msg = (
            f"{given} of `features_key` and `backbone` is given; wanted one: `features_key` of the table that "
            "`sp.tl.embed_patches` wrote, or `backbone` to compute the features here."
        )
        raise InputError(msg)
    if isinstance(backbone, PretrainedViT):
        return {"pretrained": backbone, "size": backbone.config, "tune": FROZEN}
    if features_key is None:
        return {"backbone": backbone, "backbone_options": backbone_options, "tune": FROZEN}
    return {"backbone": f"{TABLE}:{features_key}"}
