"""The image model, trained straight from the stores.

Floor 7, above evaluation. Called as sp.tl.train_vit; used by 5 modules of cli, datasets, pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Count, Key, Natural, Positive, Seed, checked
from spatialsig.inference.vit import VitOptions, train_signature_vit, training_rep
from spatialsig.models import SignatureViT
from spatialsig.models.pretrained import PretrainedViT
from spatialsig.nn.signature import VIT
from spatialsig.nn.vit import ViTConfig
from spatialsig.slide.embeddings import AUTO
from spatialsig.slide.roles import needs_cells
from spatialsig.slide.slides import Data


@checked
@needs_cells
def train_vit(
    data: Data,
    *,
    test_fold: Natural | None = 0,
    validation_fold: Natural | None = None,
    inner_fold: Natural | None = None,
    fusion: str | None = None,
    use_rep: Key | None = AUTO,
    size: str | ViTConfig = "tiny",
    backbone: str | nn.Module | Callable[..., Any] = VIT,
    backbone_options: Mapping[str, Any] | None = None,
    pretrained: PretrainedViT | AnyPath | None = None,
    tune: str | None = None,
    lora: Mapping[str, Any] | None = None,
    layer_decay: Positive | None = None,
    batch_size: Count | None = None,
    seed: Seed = 0,
    weights: str | None = "n_cells",
    targets_key: Key | None = None,
    stacking: bool = True,
    signatures_key: Key = _keys.SIGNATURES,
    patches_key: Key = _keys.PATCHES,
    **fit_options: Any,
) -> SignatureViT:
    """Train a vision transformer to predict the signature scores of a patch from its H&E.

    The network is a vision transformer [1]_ behind a convolutional stem [2]_. Patches are read from the Zarr stores
    while the model trains. With an embedding, a share of the training samples is shown without it [3]_, so that the
    model also works on the H&E alone.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; not modified.
    test_fold
        Fold that is not used; ``None`` trains on every slide.
    validation_fold
        Fold that does not train but chooses the best epoch; ``None`` trains for the full schedule.
    inner_fold
        The same, by the folds that ``sp.pp.split`` assigned inside the training part: needed where every other fold trains.
    fusion
        How the embedding joins the image: ``"gated"``, ``"token"``, ``"film"`` [4]_, ``"add"`` or ``"none"``; None takes
        ``"gated"``, or ``"add"`` for the prototype.
    use_rep
        Patch embedding in ``tables[signatures_key].obsm``; ``None`` trains on H&E only. ``"auto"`` takes ``X_ae``, which only
        ``fusion="none"`` and features of a table can do without.
    size
        ``"tiny"``, ``"small"`` or ``"base"``; with another ``backbone``, the size of the head. ``"seed"`` is the
        prototype, its network trained its way (see :func:`spatialsig.train.fit_vit`), for comparison.
    backbone
        ``"vit"``: a network of our own. Or one that others trained, see
        :func:`spatialsig.nn.backbones.build_backbone`: ``"timm:NAME@FILE"``, ``"transformers:DIRECTORY"``,
        ``"registered:NAME"``, a module or callable. Or ``"table:KEY"``: no pixels are read, features of the patches from
        ``tables[KEY].X`` (``"table:KEY/ENTRY"``: from its ``obsm``) take their place.
    backbone_options
        More for ``build_backbone``: ``um_per_px``, ``mean``, ``std``, ``input_px``, ``pool``, ``download``.
    pretrained
        What :func:`pretrain_vit` returned, or the directory it was saved in: the network starts from there.
    tune
        ``"frozen"``: only the head learns, from features that are computed once (no augmentation); ``"lora"`` [5]_: the
        head and low-rank additions to the attention; ``"full"``: everything. None takes ``"frozen"`` for a ``backbone``
        of others, else ``"full"``.
    lora
        For ``tune="lora"``: ``rank`` (8), ``alpha`` (16), ``layers`` (names of linear layers).
    layer_decay
        For ``tune="full"``: factor between the learning rates of one layer and the next [6]_; None takes 0.75 for a
        network that was trained before, else 1.
    batch_size
        Patches per step; None takes :func:`default_batch_size` of the training patches, or 1 for the prototype.
    seed
        Of the weights, the order of patches and the augmentation.
    weights
        Weight of each patch in the loss: ``"n_cells"`` (all alike where the table does not count cells), ``"sem"``
        (1 / standard error^2, from ``layers["sem"]``, clipped to 10 times the median), or ``None``.
    targets_key
        Table whose ``X`` is predicted, or ``"table/entry"`` for an entry of its ``obsm`` (fractions of cell types from
        :func:`aggregate_patches`, for example); None takes ``signatures_key``.
    stacking
        With an embedding, train the network again on each half of the training patches (by patient where there are several),
        in about the time of one more training run, and learn from the other half how much the final score should trust
        the expression alone [7]_, the image alone, and the network given both. ``False`` leaves scores to the network.
    signatures_key, patches_key
        Table of labels and embedding, shapes element of the patches.
    **fit_options
        Passed on to :func:`spatialsig.train.fit_vit`: ``max_epochs``, ``learning_rate``, ...

    Returns
    -------
    The trained model, which predicts the signatures that any training slide has measured; ``run["signatures_left_out"]``
    names the others, if there are any, ``run["history"]`` holds the losses per epoch, ``run["inputs"]`` what embedding,
    features and labels were made with, which :func:`predict` and :func:`evaluate` compare with what they are given,
    ``run["stacking"]`` the weights of expression, image and both in each score.

    Raises
    ------
    KeyMissingError
        If a table or an entry is not there.
    LeakageError
        If slides were split by patient, and a patient was renamed so that held-out and training slides share it.
    InputError
        If no labelled patch is left to train on; the slides' patches, labels, or the models that made their embeddings
        differ (all differences are listed); or backbone, ``pretrained`` and ``tune`` do not fit.

    Warns
    -----
    SpatialsigWarning
        If signatures were measured on no training slide and are left out, the embedding was made from genes of the
        signatures, or the backbone was trained at another resolution.

    References
    ----------
    .. [1] Dosovitskiy A, Beyer L, Kolesnikov A, et al. An image is worth 16x16 words: transformers for image
       recognition at scale. International Conference on Learning Representations (2021).
       https://doi.org/10.48550/arXiv.2010.11929
    .. [2] Xiao T, Singh M, Mintun E, et al. Early convolutions help transformers see better. Advances in Neural
       Information Processing Systems 34 (2021). https://doi.org/10.48550/arXiv.2106.14881
    .. [3] Neverova N, Wolf C, Taylor G, Nebout F. ModDrop: adaptive multi-modal gesture recognition. IEEE Transactions
       on Pattern Analysis and Machine Intelligence 38, 1692-1706 (2016). https://doi.org/10.1109/TPAMI.2015.2461544
    .. [4] Perez E, Strub F, de Vries H, Dumoulin V, Courville A. FiLM: visual reasoning with a general conditioning
       layer. AAAI Conference on Artificial Intelligence (2018). https://doi.org/10.1609/aaai.v32i1.11671
    .. [5] Hu EJ, Shen Y, Wallis P, et al. LoRA: low-rank adaptation of large language models. International Conference
       on Learning Representations (2022). https://doi.org/10.48550/arXiv.2106.09685
    .. [6] Howard J, Ruder S. Universal language model fine-tuning for text classification. Annual Meeting of the
       Association for Computational Linguistics, 328-339 (2018). https://doi.org/10.18653/v1/P18-1031
    .. [7] Breiman L. Stacked regressions. Machine Learning 24, 49-64 (1996). https://doi.org/10.1007/BF00117832

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> size = sp.ViTConfig(dim=16, depth=1, heads=2, mlp_dim=16, stem=(4, 4), stem_blocks=(0, 0))
    >>> model = sp.tl.train_vit(sdata, use_rep=None, size=size, max_epochs=1)
    >>> model.signatures[:2]
    ('Immune_T', 'Immune_B')
    """
    use_rep = training_rep(data, use_rep, fusion=fusion, backbone=backbone, signatures_key=signatures_key)
    options = VitOptions(
        test_fold=test_fold, validation_fold=validation_fold, inner_fold=inner_fold, fusion=fusion, use_rep=use_rep,
        size=size, backbone=backbone, backbone_options=backbone_options, pretrained=pretrained, tune=tune, lora=lora,
        layer_decay=layer_decay, batch_size=batch_size, seed=seed, weights=weights, targets_key=targets_key,
        stacking=stacking, signatures_key=signatures_key, patches_key=patches_key, fit=fit_options,
    )  # fmt: skip
    return train_signature_vit(data, options)
