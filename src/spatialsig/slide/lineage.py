"""What every result was made from: recorded when it is written, compared before it is used.

A part is an element of the object or something in it: ``patches``, ``table/X``, ``table/obsm/X_ae``,
``he_image/pixels``, ``he_image/place``. What a function writes is recorded in ``attrs["spatialsig"]["lineage"]`` with the
fingerprints of what it was made from. A part without a record, made in memory or by other software, is taken as it is.
So is one that was changed by hand since: it is reported, and what was made from it before is stale.

Floor 4, above train. Used by cli/project_commands, io/_verify, slide/added, slide/copies, slide/slides.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from spatialsig import _keys
from spatialsig._hashing import json_hash
from spatialsig.errors import InputError, StaleError
from spatialsig.slide.coordinates import check_squares, place_hash
from spatialsig.slide.fingerprints import Kept, Numbers, of_column, of_pixels, of_shapes
from spatialsig.slide.parts import (
    COLUMNS,
    COLUMNS_OF_SHAPES,
    FOLDS,
    MEMBERS,
    PLACE,
    STAIN,
    changed_by_hand,
    described,
    level_of,
    what_is_made,
    with_levels,
)
from spatialsig.store.stored.table import StoredTable
from spatialsig.store.tables import parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    import pandas as pd

    from spatialsig.slide.slides import Slide

T = TypeVar("T")
LINEAGE = "lineage"  # under attrs["spatialsig"]
MADE_BY, CONTENT, HELD, SOURCES, SPOTS = "made_by", "content", "held", "from", "spots"
FRESH, STALE, CHANGED = "fresh", "stale", "changed"  # states of a part
_KEPT = Kept()  # of tables that were read from stores, see `store/snapshot.py`


class Lineage:
    """Record of what the parts of one slide were made from; what was found is kept until :meth:`forget`."""

    def __init__(self, slide: Slide) -> None:
        self.slide = slide
        self._prints: dict[str, str | None] = {}
        self._numbers: dict[str, Numbers | None] = {}
        self._kept = Kept()
        self._fresh: set[str] = set()
        self._looked_at: set[str] = set()
        self.forget()

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """Part -> who made it, its fingerprint then, those of its sources, and values by which a selection is known."""
        entries: dict[str, dict[str, Any]] = self.slide.attrs.get(LINEAGE, {})
        return entries

    def forget(self) -> None:
        """Look at every part anew: something was replaced."""
        # nobody writes into the tables of stores, which are shared; into those of an object its owner may
        self._kept = Kept() if self.slide.path is None else _KEPT
        self._prints.clear()
        self._numbers.clear()
        self._fresh.clear()

    def record(self, part: str, sources: Iterable[str], *, made_by: str) -> None:
        """Record on the object what a part holds and was made from; sources that are not there are left out."""
        prints = {one: self.fingerprint(one) for source in sources for one in with_levels(self.slide, source)}
        self.slide.attrs.setdefault(LINEAGE, {})[part] = {
            MADE_BY: made_by,
            SOURCES: {source: found for source, found in prints.items() if found is not None},
            SPOTS: {source: spots for source in sorted(prints) if (spots := self._spots(source))},
        }
        self.note(part)

    def note(self, part: str, *, but: Collection[str] = ()) -> None:
        """Note what a recorded part holds now, ``but`` what had been changed by hand before: other values are not ours."""
        entry = self.entries.get(part)
        if not entry:
            return
        if "" not in but:
            entry[CONTENT] = self.fingerprint(part)
            entry[SPOTS].pop(part, None)
            entry[SPOTS] |= {part: spots} if (spots := self._spots(part)) else {}
        aspects = [aspect for aspect in self._aspects(part) if aspect not in but]
        found = {aspect: self.fingerprint(f"{part}/{aspect}") for aspect in aspects}
        entry[HELD] = entry.get(HELD, {}) | {aspect: print_ for aspect, print_ in found.items() if print_ is not None}

    def void_inside(self, key: str) -> list[str]:
        """Empty the records of what was in an element that is made anew; returns their parts."""
        inside = [part for part in self.entries if part.startswith(f"{key}/")]
        self.entries.update({part: {} for part in inside})
        return inside

    def by_hand(self, part: str) -> list[str]:
        """What of a part is other than when we wrote it: ``""`` for itself, ``obs/key`` for what it holds beside."""
        entry = self.entries.get(part, {})
        before, spots = entry.get(CONTENT), entry.get(SPOTS, {}).get(part)
        if before is not None and not self._is_same(part, before, spots, by_row="/" in part):
            # a column of which rows were left out cannot be told from another one
            return [""] if self._numbers_of(part) is not None or spots == (self._spots(part) or None) else []
        return [
            aspect for aspect in entry.get(HELD, {}) if not self._has_own(part, aspect) and self._is_other(part, aspect)
        ]

    def is_edited(self, part: str) -> bool:
        """Whether the values of a part are no longer those that the function which wrote it made."""
        key, _, aspect = part.partition("/")
        if not aspect or self._has_own(key, aspect):
            return "" in self.by_hand(part)
        spots, table = self.entries.get(key, {}).get(SPOTS, {}).get(key), self.slide.sdata.tables.get(key)
        # of a table of which rows were left out nothing is known
        whole = table is None or not spots or spots["n"][0] == table.n_obs
        return whole and self._is_other(key, aspect)

    def _is_other(self, part: str, aspect: str) -> bool:
        """Whether something in an element is there and other than when the element was written."""
        before = self.entries.get(part, {}).get(HELD, {}).get(aspect)
        return before is not None and self.fingerprint(f"{part}/{aspect}") not in (None, before)

    def _has_own(self, part: str, aspect: str) -> bool:
        """Whether something in an element was written after it, with a record of its own."""
        return bool(self.entries.get(f"{part}/{aspect}"))

    def _aspects(self, part: str) -> Iterator[str]:
        """What an element holds beside what its fingerprint is of."""
        if part in self.slide.sdata.shapes:
            of_places = (_keys.Y0, _keys.X0) if part in self.slide.attrs.get("patches", {}) else ()
            yield from (
                f"{COLUMNS_OF_SHAPES}{name}"
                for name in self.slide.sdata.shapes[part]
                if name not in ("geometry", *of_places)
            )
        if part in self.slide.sdata.tables:
            table = self.slide.sdata.tables[part]
            for section in ("obs", "var", "obsm", "layers"):
                yield from (f"{section}/{key}" for key in parts_of(table, section))

    def check(self, part: str) -> None:
        """Refuse a stale part; whatever reads a part of a slide, in any room above too, calls this first.

        Raises
        ------
        StaleError
            Naming the part, what changed, and the function to call again.
        """
        for message in self.stale(part):
            raise StaleError(message)

    def stale(self, part: str) -> Iterator[str]:
        """What has changed since a part was made, one sentence each, in the order in which to make things again."""
        if part in self._fresh or part in self._looked_at:  # the second: a record that leads to itself
            return
        self._looked_at.add(part)
        try:
            yield from self._stale(part)
        finally:
            self._looked_at.discard(part)

    def _stale(self, part: str) -> Iterator[str]:
        recorded = self.entries.get(part) or self.entries.get(part.partition("/")[0]) or {SOURCES: {}}
        fresh = True
        sources = sorted(recorded[SOURCES].items())
        for message in (message for source, _ in sources for message in self.stale(source)):
            fresh = False
            yield message
        for source, before in sources:
            if level_of(source) and not fresh:  # the reason is given
                continue
            # what belongs to single rows of a table stays right when others are left out
            by_row = part.startswith(f"{source.partition('/')[0]}/")
            spots = recorded[SPOTS].get(source)
            if not self._is_same(source, before, spots, by_row=by_row):
                fresh = False
                left_out = not by_row and self._is_same(source, before, spots, by_row=True)
                yield (
                    f"slide {self.slide.name!r}: {described(self.slide, part)} was made from {described(self.slide, source)}, "
                    f"{'of which rows were left out' if left_out else 'which changed'} afterwards; call "
                    f"`sp.{recorded[MADE_BY]}` again."
                )
        for message in self._moved(part):
            fresh = False
            yield message
        if fresh:
            self._fresh.add(part)

    def _moved(self, part: str) -> Iterator[str]:
        """A sentence where outlines of patches no longer lie where their columns say."""
        spec, shapes = self.slide.attrs.get("patches", {}).get(part), self.slide.sdata.shapes.get(part)
        if spec is not None and shapes is not None and {_keys.Y0, _keys.X0} <= set(shapes):
            try:
                check_squares(shapes, spec["size_l0"], name=f"slide {self.slide.name!r}: {part!r}")
            except InputError as error:
                yield str(error)

    def rows(self) -> Iterator[dict[str, str]]:
        """Every part that a function of ours made, with the fields that :func:`spatialsig.io.status` lists."""
        for part, entry in self.entries.items():
            if not entry.get(MADE_BY) or self.fingerprint(part) is None:
                continue
            reasons, aspects = list(dict.fromkeys(self.stale(part))), self.by_hand(part)
            edited = [changed_by_hand(self.slide, part, aspects, entry[MADE_BY])] if aspects else []
            made = {"what": what_is_made(part, entry[MADE_BY]), "part": part, "made_by": f"sp.{entry[MADE_BY]}"}
            state = STALE if reasons else CHANGED if edited else FRESH
            made |= {"state": state, "detail": " ".join(reasons + edited)}
            yield made | {"made_from": ", ".join(source for source in entry[SOURCES] if not level_of(source))}

    def fingerprint(self, part: str) -> str | None:
        """Hash of what a part holds now; None where it is not there or holds what is not in memory."""
        if part not in self._prints:
            self._prints[part] = self._once(part, "fingerprint", partial(self._fingerprint, part))
        return self._prints[part]

    def _fingerprint(self, part: str) -> str | None:
        attrs, sdata = self.slide.attrs, self.slide.sdata
        key, _, aspect = part.partition("/")
        if part == FOLDS:
            return json_hash(attrs["split"]) if "split" in attrs else None
        if aspect.startswith(COLUMNS):
            return (
                None if (frame := self._frame(part)) is None else of_column(frame, aspect.partition("/")[2], self._kept)
            )
        if key in sdata.tables:
            numbers = self._numbers_of(part)
            return None if numbers is None else numbers.fingerprint
        if aspect == PLACE:
            return place_hash(self.slide, key)
        if (pixels := sdata.images.get(key, sdata.labels.get(key))) is not None:  # `sdata[key]` would read every table
            return of_pixels(pixels, level_of(part))
        if key not in sdata.shapes:
            return None
        spec = attrs.get("patches", {}).get(key)
        if aspect == STAIN:
            return json_hash((spec or {}).get(STAIN))
        return of_shapes(sdata.shapes[key], spec)

    def _frame(self, part: str) -> pd.DataFrame | None:
        """Frame that holds a column of a table or of shapes."""
        key, _, aspect = part.partition("/")
        table = self.slide.sdata.tables.get(key)
        frame: pd.DataFrame | None = self.slide.sdata.shapes.get(key)
        if table is not None:
            frame = table.var if aspect.startswith("var/") else table.obs
        return frame

    def _spots(self, part: str) -> dict[str, Any]:
        """What tells a selection of a part from another one; empty where nothing does."""
        if part.partition("/")[2].startswith(COLUMNS):
            return {} if (frame := self._frame(part)) is None else {"n": [len(frame)]}
        return self._once(part, "spots", lambda: {} if (numbers := self._numbers_of(part)) is None else numbers.spots)

    def _once(self, part: str, what: str, find: Callable[[], T]) -> T:
        """What ``find`` says of a part; of one that stays in its store, once for as long as its files stay."""
        key, _, aspect = part.partition("/")
        table = self.slide.sdata.tables.get(key)
        return table.found(self._place(key, aspect), what, find) if isinstance(table, StoredTable) else find()

    def _numbers_of(self, part: str) -> Numbers | None:
        """Numbers of a part of a table; None for another part, and for what is not in memory."""
        if part not in self._numbers:
            key, _, aspect = part.partition("/")
            table = self.slide.sdata.tables.get(key)
            self._numbers[part] = None
            if table is not None:
                self._numbers[part] = Numbers.of(table, self._place(key, aspect), self._kept)
        return self._numbers[part]

    def _place(self, table_key: str, aspect: str) -> str:
        """Where a part of a table stands; a membership in patches nowhere once cells are assigned to those of another key."""
        if not aspect.startswith(MEMBERS):
            return aspect or "X"
        assigned = self.slide.params(table_key).get("assign_cells", {}).get("patches_key")
        return f"obsm/{_keys.MEMBERSHIP}" if assigned in (None, aspect.removeprefix(MEMBERS)) else ""

    def _is_same(self, part: str, before: str, spots: Mapping[str, Any] | None, *, by_row: bool) -> bool:
        now = self.fingerprint(part)
        if now is None or now == before or spots is None or (numbers := self._numbers_of(part)) is None:
            return now is None or now == before
        return numbers.is_selection(spots) and (by_row or list(numbers.values.shape) == list(spots["n"]))
