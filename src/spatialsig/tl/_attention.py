"""Maps over the H&E of what each place in the patches adds to the predicted scores.

Floor 7, above evaluation. Called as sp.tl.attention.
"""

from __future__ import annotations

from collections.abc import Sequence as ListLike
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from spatialsig import _keys
from spatialsig._arguments import Count, Key, NewKey, checked
from spatialsig._checks import check_choice, check_key
from spatialsig._progress import progress_bar
from spatialsig.data.features import in_batches
from spatialsig.data.passes import ahead
from spatialsig.errors import InputError
from spatialsig.inference.deletion import Deletion, for_store
from spatialsig.inference.inputs import AHEAD, ModelInputs, inputs_name
from spatialsig.inference.modalities import ModalityShares
from spatialsig.inference.provenance import why_absent
from spatialsig.inference.rasters import Raster
from spatialsig.models.ensemble import SignatureModel, members_of, placed, weights_hash
from spatialsig.models.scalers import standardised_embedding
from spatialsig.nn.saliency import BASELINES, MEAN, can_roll_out, integrated_gradients, rollout, summed_cells
from spatialsig.slide.added import check_added
from spatialsig.slide.each import map_slides
from spatialsig.slide.parts import obsm_of
from spatialsig.slide.slides import Data

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from spatialsig.models import SignatureViT
    from spatialsig.slide.slides import Slide

METHODS = ("gradient", "rollout")
ROLLOUT = "attention"  # name of the one channel: attention does not tell signatures apart
BATCH = 16
SEED = 0  # of the places that are deleted at random
FINEST_PX = 8  # a nucleus at 0.5 um/px is 10 to 20 px; single pixels are noise


@dataclass(frozen=True)
class _Asked:
    method: str
    columns: tuple[int, ...]  # of the signatures
    names: tuple[str, ...]  # of the channels
    cell_px: int
    n_steps: int
    baseline: str


@checked
def attention(
    data: Data,
    model: SignatureModel,
    *,
    method: str = "gradient",
    baseline: str = MEAN,
    signatures: Annotated[ListLike[str], Field(min_length=1)] | None = None,
    patches: Annotated[ListLike[int], Field(min_length=1)] | None = None,
    use_rep: Key | None = None,
    cell_px: Count | None = None,
    n_steps: Count = 16,
    device: str | None = None,
    patches_key: Key = _keys.PATCHES,
    signatures_key: Key = _keys.SIGNATURES,
    key_added: NewKey = _keys.ATTENTION,
) -> pd.DataFrame:
    """Draw a map over the H&E of what each place in the patches adds to the predicted scores.

    ``"gradient"`` (integrated gradients [1]_) fades a patch in from ``baseline`` and adds up what every pixel adds to the
    score on the way: signed, in units of the score, one map per signature, for any network. ``"rollout"``
    [2]_ multiplies the attention of all blocks of a transformer: how much is read from where, whatever the signature;
    it does not see what bypasses the attention, such as the texture features of the stem.

    Both say what the *model* looks at. That a region adds to a score does not mean that the tissue there expresses it.

    Parameters
    ----------
    data
        SpatialData, path of a store, or Cohort; modified in place.
    model
        Trained model, or an ensemble (the mean of its members).
    method
        ``"gradient"`` or ``"rollout"``.
    baseline
        What a patch is compared with by ``"gradient"``: ``"mean"``, the mean colour of the patch without any structure, or
        ``"glass"``, no tissue at all. On the way from glass, dark nuclei pass through the look of pale ones of other cell types, and
        their maps mix (``make bench-faithful``).
    signatures
        Which scores; all of the model when None. Not for ``"rollout"``.
    patches
        Ids of the patches (``patch_id``); all when None, which takes about ``n_steps`` times a prediction and as much
        again per signature.
    use_rep
        Patch embedding given to the model, as in :func:`predict`.
    cell_px
        Edge of a cell of the map, model px; must divide the edge of a patch. None takes the largest divisor up to 8 for
        ``"gradient"``, the model's tokens for ``"rollout"`` (which has no other).
    n_steps
        Steps of ``"gradient"``.
    device
        Where the network computes: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"auto"``; None takes
        ``sp.settings.device``.
    patches_key, signatures_key
        Shapes element of the patches, table that holds ``use_rep``.
    key_added
        Name of the new image element; one of that name is replaced.

    Returns
    -------
    Whether the maps are to be believed, tested by deletion [3]_: one row per slide and signature with ``n_patches``, ``drop`` (how much
    the score falls, in its units, when the fifth of the places that adds most is made blank glass), ``drop_random`` (the same of as
    many places at random, the mean of three draws), ``drop_se`` (standard error of the difference over patches) and
    ``share_faithful`` (patches of which the first is larger). For ``"rollout"``, which has no sign, by how much scores change.
    ``share_image`` and ``share_expression`` say what the prediction as a whole comes from, and add up to 1: with ``use_rep``, the part of its
    variance over the patches that goes [4]_ with the Shapley value [5]_ of the image, and of the embedding, each taken away by putting
    those of other patches in its place; without it, 1 and 0. NaN where a score does not vary.

    Writes ``images[key_added]``, float32 ``(c, y, x)``: one channel per signature (one named ``"attention"``
    for ``"rollout"``, where a patch adds up to 1), one pixel per cell, with the transformations of the H&E, over the
    box of the chosen patches; NaN outside them, the mean where patches overlap. Where the patches' stride is no whole
    number of cells, a map is moved by up to half a cell. Also writes ``attrs["spatialsig"]["attention"][key_added]``:
    method, hash of the weights, inputs, patches.

    Raises
    ------
    KeyMissingError
        If a signature or patch does not exist.
    InputError
        If patches, stain or embedding were made otherwise than those the model learned from, the model has no attention to
        follow, or ``cell_px`` does not divide the patch.

    References
    ----------
    .. [1] Sundararajan M, Taly A, Yan Q. Axiomatic attribution for deep networks. International Conference on Machine
       Learning (2017). https://doi.org/10.48550/arXiv.1703.01365
    .. [2] Abnar S, Zuidema W. Quantifying attention flow in transformers. Annual Meeting of the Association for
       Computational Linguistics, 4190-4197 (2020). https://doi.org/10.18653/v1/2020.acl-main.385
    .. [3] Samek W, Binder A, Montavon G, Lapuschkin S, Müller KR. Evaluating the visualization of what a deep neural network has
       learned. IEEE Transactions on Neural Networks and Learning Systems 28, 2660-2673 (2017).
       https://doi.org/10.1109/TNNLS.2016.2599820
    .. [4] Shorrocks AF. Inequality decomposition by factor components. Econometrica 50, 193-211 (1982).
       https://doi.org/10.2307/1912537
    .. [5] Lundberg SM, Lee SI. A unified approach to interpreting model predictions. Advances in Neural Information Processing Systems 30
       (2017). https://doi.org/10.48550/arXiv.1705.07874

    Examples
    --------
    >>> import spatialsig as sp
    >>> sdata = sp.datasets.toy_study()
    >>> model = sp.datasets.toy_model(sdata)
    >>> faithful = sp.tl.attention(sdata, model, signatures=["Immune_T"], patches=[0], n_steps=2)
    >>> faithful["signature"].tolist()
    ['Immune_T']
    >>> sdata["attention"].shape  # one signature; 28 px of a patch in cells of 7 px
    (1, 4, 4)
    """
    check_choice(method, METHODS, name="method")
    check_choice(baseline, BASELINES, name="baseline")
    asked = _asked(model, method, signatures, cell_px, n_steps, baseline)
    keys = {"patches_key": patches_key, "signatures_key": signatures_key, "use_rep": use_rep, "key_added": key_added}
    work = partial(_draw, model=model, asked=asked, patches=patches, device=device, **keys)  # type: ignore[arg-type]
    return pd.concat(map_slides(data, work, "attention"), ignore_index=True)


def _draw(
    slide: Slide, *, model: SignatureModel, asked: _Asked, patches: ListLike[int] | None, device: str | None,
    patches_key: str, signatures_key: str, use_rep: str | None, key_added: str,
) -> pd.DataFrame:  # fmt: skip
    check_added(slide, key_added, made_by="tl.attention")
    shown = slide.patches(patches_key)
    inputs = ModelInputs.of(shown, model, signatures_key=signatures_key, use_rep=use_rep)
    rows = shown.rows_named(patches)
    ae = inputs.embedding_of(rows)
    raster = Raster(
        shown.origins[rows],
        asked.names,
        cell_l0=shown.spec.size_l0 * asked.cell_px / shown.spec.patch_px,
        cells=-(-shown.spec.patch_px // asked.cell_px),
    )
    source = shown.source(rows)
    deletion = Deletion(model, asked.columns, cell_px=asked.cell_px, seed=SEED)
    shares = ModalityShares(model, asked.columns, source, ae, seed=SEED)
    with placed(model, device), progress_bar(f"attention {slide.name}", total=len(rows), unit="patch") as bar:
        for batch, images in ahead(in_batches(source, BATCH), depth=AHEAD):
            code = None if ae is None else ae[batch]
            maps = _maps(model, images, code, asked)
            raster.add(batch, maps)
            deletion.add(images, code, maps)
            shares.add(images, code)
            bar.advance(len(batch))
    faithful = deletion.table(slide.name).assign(**shares.table())
    made = {
        "method": asked.method,
        "baseline": asked.baseline,
        "inputs": inputs_name(use_rep),
        "weights_sha256": weights_hash(model),
        "patches_key": patches_key,
        "patches": shown.ids.to_numpy()[rows].tolist(),
        "cell_l0": raster.cell_l0,
        "origin_l0": raster.origin.tolist(),
        "deletion": for_store(faithful.drop(columns=_keys.SAMPLE)),
    }
    sources = [*shown.pixel_parts, *([] if use_rep is None else [obsm_of(signatures_key, use_rep)])]
    slide.put(
        key_added,
        raster.element(slide, shown.spec.image_key),
        made_by="tl.attention",
        sources=sources,
        attrs={"attention": made},
    )
    return faithful


def _asked(
    model: SignatureModel,
    method: str,
    signatures: ListLike[str] | None,
    cell_px: int | None,
    n_steps: int,
    baseline: str,
) -> _Asked:
    if method == "rollout":
        backbone: Any = members_of(model)[0].net.backbone
        if signatures is not None or cell_px is not None:
            msg = "attention rollout is the same for all signatures and has the size of the tokens; leave `signatures` and `cell_px` out."
            raise InputError(msg)
        if not can_roll_out(backbone):
            msg = f"{type(backbone).__name__} does not give its attention; use `method='gradient'`."
            raise InputError(msg)
        rows, _ = backbone.grid_shape(model.patch_px, model.patch_px)
        return _Asked(method, (), (ROLLOUT,), -(-model.patch_px // rows), n_steps, baseline)
    names = model.signatures if signatures is None else tuple(signatures)
    for name in names:
        fix = why_absent(name, model)
        check_key(model.signatures, name, name="signatures", where="the signatures of the model", fix=fix)
    edge = max(n for n in range(1, FINEST_PX + 1) if model.patch_px % n == 0) if cell_px is None else cell_px
    if edge < 1 or model.patch_px % edge:
        msg = f"`cell_px={edge}` does not divide a patch of {model.patch_px} px."
        raise InputError(msg)
    return _Asked(method, tuple(model.signatures.index(name) for name in names), names, edge, n_steps, baseline)


def _maps(
    model: SignatureModel, images: NDArray[np.uint8], ae: NDArray[np.float32] | None, asked: _Asked
) -> NDArray[np.float32]:
    """Maps of a batch, ``(b, channels, rows, columns)``, the mean over the members."""
    members = members_of(model)
    each = [_member_maps(member, images, ae, asked) for member in members]
    mean: NDArray[np.float32] = np.mean(each, axis=0, dtype=np.float32)
    return mean


def _member_maps(
    model: SignatureViT, images: NDArray[np.uint8], ae: NDArray[np.float32] | None, asked: _Asked
) -> NDArray[np.float32]:
    device = next(model.net.parameters()).device
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    code, present = None, None
    if ae is not None:
        code, present = (part.to(device) for part in standardised_embedding(ae, model.ae_mean, model.ae_std))
    if asked.method == "rollout":
        with torch.no_grad():
            return _rolled_out(model, pixels, code, present)[:, None].cpu().numpy()
    contributions = integrated_gradients(
        lambda density: model.net(density, code, present),
        pixels,
        targets=asked.columns,
        n_steps=asked.n_steps,
        baseline=asked.baseline,
    )
    scale = model.target_std[list(asked.columns)].astype(np.float32)
    cells: NDArray[np.float32] = summed_cells(contributions, asked.cell_px).cpu().numpy() * scale[:, None, None]
    return cells


def _rolled_out(model: SignatureViT, pixels: Tensor, code: Tensor | None, present: Tensor | None) -> Tensor:
    net: Any = model.net  # of any kind: what it offers was asked before
    backbone = net.backbone
    grid = backbone.grid_shape(*pixels.shape[2:])
    extra: tuple[Any, ...] = ()
    if model.config.fusion == "token":
        code, present = net.fusion.given(code, present, len(pixels))
        extra = (net.fusion.tokens(net.fusion.embed(code, present)),)
    maps = backbone.forward_attention(pixels, *extra)
    from_class = getattr(getattr(backbone, "config", None), "pool", "class") == "class"
    return rollout(maps, n_prefix=backbone.n_prefix, grid=grid, from_class=from_class)
