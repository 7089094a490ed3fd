"""Which embedding is meant where nobody said one.

Floor 4, above train. Used by inference/vit, tl/_aggregate, tl/_cross_validate, tl/_ensemble, tl/_vit.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from spatialsig import _keys
from spatialsig.slide.each import try_slides
from spatialsig.slide.slides import learn_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from spatialsig.slide.slides import Data, Slide

AUTO = "auto"  # the embedding of our autoencoder, where it is there


def chosen_rep(
    data: Data, use_rep: str | None, *, table_key: str, where: Callable[[Iterable[bool]], bool]
) -> str | None:
    """Embedding to use of the slides: the one that was named; by ``"auto"`` ``X_ae``, or none.

    ``where`` is ``any`` or ``all`` of the slides that need to have it. What the slides without it are told, or those that
    cannot be read, is left to who uses it.
    """
    if use_rep != AUTO:
        return use_rep
    found = try_slides(learn_from(data), partial(_has, table_key=table_key), "look for embeddings")
    return _keys.X_AE if where(outcome.value is True for outcome in found) else None


def _has(slide: Slide, *, table_key: str) -> bool:
    return table_key in slide.sdata.tables and _keys.X_AE in slide.sdata.tables[table_key].obsm
