"""Many slides, each in its own store: accepted by every function that takes one slide.

Floor 9, above atlas, datasets, maps. Called as sp.Cohort; used by 5 modules of cli, pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pandas as pd
from spatialdata import SpatialData

from spatialsig import _keys
from spatialsig._arguments import AnyPath, Key, checked
from spatialsig._checks import check_files, check_key, warn
from spatialsig._files import write_text, writing
from spatialsig._text import counted
from spatialsig.errors import StoreError
from spatialsig.io._bundles import MANIFEST, PATH, check_same, list_slides, read_slides
from spatialsig.io._cohort import (
    BUNDLE,
    HE_ALIGNMENT,
    HE_IMAGE,
    PREDICT,
    ROLE,
    UM_PER_PX,
    at_home,
    check_samples,
    read_manifest,
)
from spatialsig.io._panels import compare_panels, difference, genes_of, read_panels
from spatialsig.slide.roles import measured
from spatialsig.store.lock import writer_lock
from spatialsig.store.metadata import check_path, elements_on_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spatialsig._workers import Outcome

T = TypeVar("T")


class Cohort:
    """Slides on disk; nothing is opened before it is asked for.

    Parameters
    ----------
    source
        A directory with ``cohort.csv`` (as :meth:`from_bundles` leaves it) or, without one, with stores
        ``<sample>.zarr``; a csv with columns ``sample``, ``path`` and optionally ``patient`` (paths relative to it);
        or a mapping of sample names to stores.

    Attributes
    ----------
    stores
        Sample -> path of its store.
    obs
        One row per slide: ``sample``, ``patient``, ``path``, ``role``: ``"measured"``, or ``"predict"`` for an H&E alone,
        which functions that need cells pass over.
    failures
        Sample -> why its store, or (after :meth:`from_bundles`) its bundle could not be read.

    Raises
    ------
    FileMissingError
        If the source or stores are missing (all are named).
    InputError
        If names are not unique or cannot name a file.

    Examples
    --------
    >>> import spatialsig as sp
    >>> sp.Cohort({})
    Cohort of 0 slides, 0 patients
    """

    @checked
    def __init__(self, source: AnyPath | Mapping[str, AnyPath]) -> None:
        self.failures: dict[str, str] = {}
        rows = list_slides(source, self.failures)
        check_files(rows[PATH], what="stores of the cohort", fix="Move them back, or read the bundles again.")
        self.obs = rows
        self.stores: dict[str, Path] = dict(zip(rows[_keys.SAMPLE], rows[PATH], strict=True))
        self.learn_from: Cohort = self

    @classmethod
    @checked
    def open(cls, directory: AnyPath) -> Cohort:
        """Open the cohort that lies in ``directory``."""
        return cls(Path(directory))

    @classmethod
    @checked
    def from_bundles(
        cls, manifest: AnyPath | pd.DataFrame, out: AnyPath, *, boundaries: bool = False, overwrite: bool = False
    ) -> Cohort:
        """Read Xenium bundles into stores, one per slide.

        A slide whose store is there, whole and from the same bundle is not read again, so that an interrupted import
        resumes where it stopped. A slide that fails does not stop the others.

        Parameters
        ----------
        manifest
            csv or frame with columns ``sample``, ``bundle`` (directory) and optionally ``patient``, ``he_image``,
            ``he_alignment``. A slide without ``bundle`` is an H&E alone, to predict on; ``um_per_px`` is the size of its
            pixels where the image does not state it. Where ``role`` is given, it is ``predict`` for these and ``measured``
            for others. Relative paths start at the csv, for a frame at the working directory.
        out
            Directory for the stores ``<sample>.zarr`` and ``cohort.csv``.
        boundaries
            Also read the outlines of cells and nuclei of every bundle, as :func:`spatialsig.io.read_xenium` does.
        overwrite
            Read all slides again and replace their stores.

        Returns
        -------
        The cohort of the slides that could be read; ``failures`` says why others could not. A warning names the
        slides whose panels differ.

        Raises
        ------
        FileMissingError
            If there is no manifest.
        InputError
            If a column is missing, names are not unique or cannot name a file, or every slide fails.
        """
        return import_cohort(manifest, out, partial(read_bundle, boundaries=boundaries, overwrite=overwrite))

    @checked
    def panels(self, *, table_key: Key = _keys.TABLE) -> pd.DataFrame:
        """Compare the genes that the slides measure.

        Parameters
        ----------
        table_key
            Table of the cells.

        Returns
        -------
        One row per slide, indexed by sample:

        - ``n_genes``: genes of the slide;
        - ``n_shared``: those that every slide measures;
        - ``n_missing``: those that another slide measures and this one does not;
        - ``n_other_ids``: symbols that have another ``gene_ids`` on the first slide;
        - ``panel``: hash of the sorted symbols; equal where the panels are.

        A slide without such a table is a :class:`KeyMissingError`.
        """
        return compare_panels(read_panels(measured(self).stores, table_key=table_key))

    @checked
    def genes(
        self, how: Literal["intersection", "union"] = "intersection", *, table_key: Key = _keys.TABLE
    ) -> list[str]:
        """Symbols that every slide measures (``"intersection"``) or at least one (``"union"``), in their order.

        A slide without such a table is a :class:`KeyMissingError`.
        """
        return genes_of(read_panels(measured(self).stores, table_key=table_key), how=how)

    @checked
    def subset(self, samples: Sequence[str]) -> Cohort:
        """Cohort of the named slides, in the given order."""
        samples = list(samples)
        for sample in samples:
            check_key(self.stores, sample, name="samples", where="the cohort")
        check_samples(samples)
        chosen = Cohort({})
        chosen.obs = self.obs.loc[samples].copy()
        chosen.stores = {sample: self.stores[sample] for sample in samples}
        return chosen

    @checked
    def part(self, samples: Sequence[str]) -> Cohort:
        """Named slides to work on; what is learnt from a cohort is still learnt from all of it, unlike in a subset."""
        chosen = self.subset(samples)
        chosen.learn_from = self.learn_from
        return chosen

    @checked
    def __getitem__(self, sample: str) -> SpatialData:
        """Read one slide from its store."""
        from spatialsig.io import read

        check_key(self.stores, sample, name="sample", where="the cohort")
        return read(self.stores[sample])

    def __len__(self) -> int:
        return len(self.stores)

    def __iter__(self) -> Iterator[str]:
        return iter(self.stores)

    def __contains__(self, sample: object) -> bool:
        return isinstance(sample, str) and sample in self.stores

    def __repr__(self) -> str:
        slides = self.obs[_keys.PATIENT].value_counts(sort=False)
        several = ", ".join(f"{patient}: {counted(n, 'slide')}" for patient, n in slides.items() if n > 1)
        patients = f"{counted(len(slides), 'patient')}{f' ({several})' if several else ''}"
        lines = [f"Cohort of {counted(len(self), 'slide')}, {patients}"]
        width = max((len(sample) for sample in self), default=0)
        for sample, patient, path, role in self.obs[[_keys.SAMPLE, _keys.PATIENT, PATH, ROLE]].itertuples(index=False):
            lines.append(f"  {sample:<{width}}  patient {patient}  {path}{'  (H&E alone)' if role == PREDICT else ''}")
        lines += [f"  failed: {sample}: {why}" for sample, why in self.failures.items()]
        return "\n".join(lines)


def import_cohort(
    manifest: str | Path | pd.DataFrame,
    out: str | Path,
    read: Callable[[pd.Series[Any], Path], T],
    *,
    choose: Callable[[list[str]], list[str]] | None = None,
    on_done: Callable[[Outcome[T]], None] = lambda _: None,
) -> Cohort:
    """Cohort of the slides of a manifest, all or those that ``choose`` takes; ``read(row, store)`` makes each.

    Those that fail are left out, and named; ``on_done`` is told of each.
    """
    rows = read_manifest(manifest)
    check_path(out := at_home(out), name="`out`")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    samples = rows[_keys.SAMPLE]
    chosen = rows if choose is None else rows[samples.isin(choose(samples.tolist()))]
    failures = read_slides(chosen, out, read, on_done=on_done)
    with writer_lock(out / MANIFEST, "import"):
        read_here = set(chosen[_keys.SAMPLE])
        there = [s not in failures and (s in read_here or (out / f"{s}.zarr").exists()) for s in samples]
        _save(rows[there], out)
    cohort = Cohort(out)
    cohort.failures |= failures
    if len(cohort) > 1 and (what := difference(cohort.panels())) is not None:
        warn(what)
    return cohort


def read_bundle(row: pd.Series[Any], path: Path, *, overwrite: bool, boundaries: bool = False) -> None:
    """Read one bundle or H&E, unless its store is there already."""
    from spatialsig.io import read_he, read_xenium
    from spatialsig.io.xenium.extras import NUCLEUS_BOUNDARIES

    if path.exists() and not overwrite:
        check_same(row, path)
        there = {name for _, name, _ in elements_on_disk(path)}
        if boundaries and row[BUNDLE] is not None and NUCLEUS_BOUNDARIES not in there:
            msg = f"store {str(path)!r} was read without `boundaries`. Pass `overwrite=True` to read the slide again."
            raise StoreError(msg)
        return
    named = {name: row[name] for name in (_keys.SAMPLE, _keys.PATIENT)}
    if row[BUNDLE] is None:
        read_he(row[HE_IMAGE], **named, um_per_px=row[UM_PER_PX], out=path, overwrite=overwrite)
    else:
        images = {name: row[name] for name in (HE_IMAGE, HE_ALIGNMENT)}
        read_xenium(row[BUNDLE], **named, **images, boundaries=boundaries, out=path, overwrite=overwrite)


def _save(rows: pd.DataFrame, out: Path) -> None:
    table = rows[[_keys.SAMPLE, _keys.PATIENT]].assign(**{PATH: [f"{sample}.zarr" for sample in rows[_keys.SAMPLE]]})
    write_text(out / MANIFEST, table.to_csv(index=False))
