"""How much of what a model says of patches comes from their image, and how much from their expression.

Floor 5, above slide. Used by tl/_attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spatialsig.data.patches import read_patches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.data.patches import PatchSource
    from spatialsig.models.ensemble import SignatureModel

N_OTHERS = 8  # patches whose image, or expression, stands in for the one that is taken away
IMAGE, EXPRESSION = "share_image", "share_expression"


class ModalityShares:
    """Shares of image and expression in the variance of the scores over patches, gathered batch by batch.

    The two are players of a game whose worth is the score. Who does not play is replaced by that of other patches, the mean over
    them. With two players the Shapley value of one is the mean of what it adds to the other and what it adds alone; the values of
    both add up to the score, less a constant. The share of a player is the covariance of its values with the scores over their
    variance, so that the shares add up to 1.

    Parameters
    ----------
    model
        Model; it lies on its device.
    columns
        Columns of the model's scores; all of them where empty.
    source
        Images of the patches.
    embedding
        Their embeddings ``(n_patches, d)``, NaN rows where missing; None where the model is given none.
    seed
        Seed of the patches that stand in.
    """

    def __init__(
        self,
        model: SignatureModel,
        columns: Sequence[int],
        source: PatchSource,
        embedding: NDArray[np.float32] | None,
        *,
        seed: int,
    ) -> None:
        self.model, self.columns = model, list(columns) or list(range(len(model.signatures)))
        self._scores: list[NDArray[np.float64]] = []
        self._of_image: list[NDArray[np.float64]] = []
        given = np.empty(0, np.int64) if embedding is None else np.flatnonzero(np.isfinite(embedding).all(axis=1))
        self._others: list[tuple[NDArray[np.uint8], NDArray[np.float32]]] = []
        if embedding is not None and len(given):
            drawn = np.random.default_rng(seed).choice(given, min(N_OTHERS, len(given)), replace=False)
            self._others = list(zip(read_patches(source, drawn), embedding[drawn], strict=True))

    def add(self, images: NDArray[np.uint8], ae: NDArray[np.float32] | None) -> None:
        """Take away the image, then the expression, of patches ``(b, 3, h, w)`` that have both."""
        if not self._others or ae is None:
            return
        has_both = np.isfinite(ae).all(axis=1)
        if not has_both.any():
            return
        images, ae = images[has_both], ae[has_both]
        whole, by_image, by_code = self._predict(images, ae), np.zeros(()), np.zeros(())
        for image, code in self._others:
            by_image = by_image + self._predict(images, np.repeat(code[None], len(images), axis=0)) / len(self._others)
            by_code = by_code + self._predict(np.repeat(image[None], len(images), axis=0), ae) / len(self._others)
        self._scores.append(whole)
        self._of_image.append((by_image + whole - by_code) / 2)

    def table(self) -> dict[str, NDArray[np.float64]]:
        """Share of image and of expression in each score; all is of the image where no patch has an embedding, NaN where no score varies."""
        if not self._others:
            return {IMAGE: np.ones(len(self.columns)), EXPRESSION: np.zeros(len(self.columns))}
        scores, of_image = (
            each - each.mean(axis=0) for each in (np.concatenate(self._scores), np.concatenate(self._of_image))
        )
        variance = (scores**2).sum(axis=0)
        share = np.full(len(self.columns), np.nan)
        np.divide((scores * of_image).sum(axis=0), variance, out=share, where=variance > 0)
        return {IMAGE: share, EXPRESSION: 1 - share}

    def _predict(self, images: NDArray[np.uint8], ae: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.model.predict(images, ae).astype(np.float64)[:, self.columns]
