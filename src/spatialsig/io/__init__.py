"""Slides read from files of any origin, written into stores, and scores exported from them."""

from typing import TYPE_CHECKING

import lazy_loader

from spatialsig.signatures import read_signatures

if TYPE_CHECKING:
    from ._anndata import from_anndata
    from ._export import export_geojson
    from ._he import read_he
    from ._heatmap import export_heatmap
    from ._mpp import mpp
    from ._optimize import optimize
    from ._read import read
    from ._repair import repair
    from ._seed_layout import export_seed_layout
    from ._verify import verify
    from ._write import write
    from ._xenium import read_xenium

__all__ = [
    "export_geojson",
    "export_heatmap",
    "export_seed_layout",
    "from_anndata",
    "mpp",
    "optimize",
    "read",
    "read_he",
    "read_signatures",
    "read_xenium",
    "repair",
    "verify",
    "write",
]

# readers pull in spatialdata, zarr and tifffile: each with its first use
__getattr__, _, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_anndata": ["from_anndata"],
        "_export": ["export_geojson"],
        "_he": ["read_he"],
        "_heatmap": ["export_heatmap"],
        "_mpp": ["mpp"],
        "_optimize": ["optimize"],
        "_read": ["read"],
        "_repair": ["repair"],
        "_seed_layout": ["export_seed_layout"],
        "_verify": ["verify"],
        "_write": ["write"],
        "_xenium": ["read_xenium"],
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
