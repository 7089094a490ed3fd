"""Whether maps of attribution say where a score comes from: what is lost without the places that they name, and without any others.

Floor 5, above slide. Used by tl/_attention.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from spatialsig import _keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spatialsig.models.ensemble import SignatureModel

SHARE = 0.2  # of the places of a patch
N_RANDOM = 3  # draws of as many places
GLASS = 255
COLUMNS = (_keys.SAMPLE, "signature", "n_patches", "drop", "drop_random", "drop_se", "share_faithful")


class Deletion:
    """Scores of patches without the places that a map names, gathered batch by batch.

    Parameters
    ----------
    model
        Model; it lies on its device.
    columns
        Columns of the model's scores, one for each channel of the maps. Empty where the one channel is that of all scores and has no
        sign: changes are then counted without theirs.
    cell_px
        Edge of a place, model px.
    seed
        Seed of the places that are drawn.
    """

    def __init__(self, model: SignatureModel, columns: Sequence[int], *, cell_px: int, seed: int) -> None:
        self.model, self.columns, self.cell_px = model, tuple(columns), cell_px
        self._rng = np.random.default_rng(seed)
        self._drops: list[NDArray[np.float64]] = []
        self._random: list[NDArray[np.float64]] = []

    def add(self, images: NDArray[np.uint8], ae: NDArray[np.float32] | None, maps: NDArray[np.float32]) -> None:
        """Score patches ``(b, 3, h, w)`` without what their maps ``(b, channels, rows, columns)`` name most, and without as much at random."""
        whole = self._scores(images, ae)
        lost = [whole - self._scores(self._without(images, maps[:, k]), ae) for k in range(maps.shape[1])]
        drawn = [self._rng.random((len(maps), *maps.shape[2:])) for _ in range(N_RANDOM)]
        random = np.mean([self._change(whole - self._scores(self._without(images, d), ae)) for d in drawn], axis=0)
        if self.columns:
            self._drops.append(
                np.stack([change[:, column] for change, column in zip(lost, self.columns, strict=True)], 1)
            )
            self._random.append(random[:, self.columns])
        else:
            self._drops.append(self._change(lost[0]))
            self._random.append(random)

    def table(self, sample: str) -> pd.DataFrame:
        """One row per signature, see :func:`spatialsig.tl.attention`."""
        names = [self.model.signatures[k] for k in self.columns or range(len(self.model.signatures))]
        drops, random = np.concatenate(self._drops), np.concatenate(self._random)
        n = len(drops)
        error = (drops - random).std(axis=0, ddof=1) / np.sqrt(n) if n > 1 else np.full(len(names), np.nan)
        rows = {
            _keys.SAMPLE: sample,
            "signature": names,
            "n_patches": n,
            "drop": drops.mean(axis=0),
            "drop_random": random.mean(axis=0),
            "drop_se": error,
            "share_faithful": (drops > random).mean(axis=0),
        }
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _change(self, lost: NDArray[np.float64]) -> NDArray[np.float64]:
        return lost if self.columns else np.abs(lost)

    def _scores(self, images: NDArray[np.uint8], ae: NDArray[np.float32] | None) -> NDArray[np.float64]:
        return self.model.predict(images, ae).astype(np.float64)

    def _without(self, images: NDArray[np.uint8], values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Blank glass at the places with the largest values ``(b, rows, columns)``."""
        flat = values.reshape(len(values), -1)
        n = max(1, round(SHARE * flat.shape[1]))
        chosen = np.zeros(flat.shape, bool)
        np.put_along_axis(chosen, np.argpartition(-flat, n - 1, axis=1)[:, :n], True, axis=1)  # noqa: FBT003
        places = chosen.reshape(values.shape).repeat(self.cell_px, axis=1).repeat(self.cell_px, axis=2)
        height, width = images.shape[2:]
        return np.where(places[:, None, :height, :width], np.uint8(GLASS), images)


def for_store(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Columns of a table as a store keeps them: None in place of NaN, which JSON does not know."""
    return table.astype(object).where(table.notna(), None).to_dict("list")  # type: ignore[return-value]
