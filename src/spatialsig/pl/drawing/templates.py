"""Templates of pages, each in the room that shows it.

Floor 7, above evaluation. Used by atlas/page, report/document, whole_slides/page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jinja2 import Template

TEMPLATE = "template.html.j2"


def template_of(room: str, filters: Mapping[str, Callable[..., Any]] | None = None) -> Template:
    """The template of a room, such as ``"spatialsig.report"``; what is put in is escaped, and what is missing an error."""
    environment = Environment(
        loader=PackageLoader(room, package_path=""), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= dict(filters or {})
    return environment.get_template(TEMPLATE)
