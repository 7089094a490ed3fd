"""What a function may replace by its result: what it made before, and nothing else.

Floor 4, above train. Used by 15 modules of labels, maps, pp, referee, slide, tl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spatialsig import _keys
from spatialsig.errors import InputError
from spatialsig.slide.lineage import MADE_BY
from spatialsig.slide.parts import described
from spatialsig.store.lazy_tables import names_of
from spatialsig.store.tables import parts_of

if TYPE_CHECKING:
    from spatialsig.slide.slides import Slide

# functions that make the same kind of thing, so that one may replace what another made
_ALIKE = {"pp.import_patches": "pp.make_patches", "tl.cross_validate": "tl.predict"}
# section of the attributes, or record of the table, by which results of early versions are known
_SECTIONS = {
    "pp.make_patches": "patches",
    "pp.find_tissue": "find_tissue",
    "tl.attention": "attention",
    "tl.signature_map": "signature_map",
}


def check_added(slide: Slide, key: str, *, made_by: str, name: str = "key_added") -> None:
    """Refuse a name under which something else stands than what ``made_by`` makes.

    Raises
    ------
    InputError
        Naming what stands there, who made it, and the fix.
    """
    if key in names_of(slide.sdata) and not _is_own(slide, key, made_by):
        _refuse(slide, key, key, made_by, name)


def check_added_part(
    slide: Slide, table_key: str, section: str, key: str, *, made_by: str, name: str = "key_added"
) -> None:
    """Refuse the name of an entry of a table that ``made_by`` did not make; errors as of :func:`check_added`."""
    part = f"{table_key}/{section}/{key}"
    if table_key not in slide.sdata.tables or key not in parts_of(slide.sdata.tables[table_key], section):
        return
    recorded = slide.params(table_key).get(made_by.partition(".")[2], {})
    if _maker(slide, part) != made_by and key not in (recorded.get("key"), recorded.get("layer")):
        _refuse(slide, part, key, made_by, name)


def _maker(slide: Slide, part: str) -> str:
    made_by = str(slide.lineage.entries.get(part, {}).get(MADE_BY, ""))
    return _ALIKE.get(made_by, made_by)


def _is_own(slide: Slide, key: str, made_by: str) -> bool:
    kind = _ALIKE.get(made_by, made_by)
    maker = _maker(slide, key)
    if maker:
        return maker == kind
    if key in slide.sdata.tables:
        made = (made_by.partition(".")[2], kind.partition(".")[2])
        return any(step in slide.sdata.tables[key].uns.get(_keys.NAMESPACE, {}) for step in made)
    return key in slide.attrs.get(_SECTIONS.get(kind, ""), {})


def _refuse(slide: Slide, part: str, key: str, made_by: str, name: str) -> None:
    maker = slide.lineage.entries.get(part, {}).get(MADE_BY)
    whose = f"`sp.{maker}` made" if maker else f"`sp.{made_by}` did not make"
    msg = (
        f"`{name}={key!r}`: slide {slide.name!r} has {described(slide, part)}, which {whose}, and it would be lost. Choose "
        "another name, or take it out first."
    )
    raise InputError(msg)
