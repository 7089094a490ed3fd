"""Slides read from files of any origin, written into stores, and scores exported from them.

Floor 7: may import the ground floor and geometry, nn, signatures, stats, store, data, models, train, slide, expression,
inference, labels, evaluation.
"""

from typing import TYPE_CHECKING

import lazy_loader

from spatialsig.signatures import read_signatures

if TYPE_CHECKING:
    from ._anndata import from_anndata
    from ._explorer import export_explorer_groups
    from ._geojson import export_geojson
    from ._he import mpp, read_he
    from ._heatmap import export_heatmap
    from ._read_seed_layout import read_seed_layout
    from ._seed_layout import export_seed_layout
    from ._store import optimize, read, write
    from ._verify import repair, status, verify
    from ._xenium import read_atera, read_xenium

__all__ = [
    "export_explorer_groups", "export_geojson", "export_heatmap", "export_seed_layout", "from_anndata", "mpp", "optimize",
    "read", "read_atera", "read_he", "read_seed_layout", "read_signatures", "read_xenium", "repair", "status", "verify", "write",
]  # fmt: skip

# readers pull in spatialdata, zarr and tifffile: each with its first use
__getattr__, _, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_anndata": ["from_anndata"],
        "_explorer": ["export_explorer_groups"],
        "_geojson": ["export_geojson"],
        "_he": ["mpp", "read_he"],
        "_heatmap": ["export_heatmap"],
        "_read_seed_layout": ["read_seed_layout"],
        "_seed_layout": ["export_seed_layout"],
        "_store": ["optimize", "read", "write"],
        "_verify": ["repair", "status", "verify"],
        "_xenium": ["read_atera", "read_xenium"],
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
