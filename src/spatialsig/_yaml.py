"""YAML as people write it: numbers are those of YAML 1.2, and a name given twice is an error.

Ground floor. Used by cli/options, pipeline/run_config, signatures/_read.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from spatialsig._text import distinct

_MERGE = "tag:yaml.org,2002:merge"


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, for which a name given twice is an error and not the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        """Mapping of a node whose own keys are distinct; those that it merges in may stand in it again."""
        distinct((self.construct_object(key, deep=True), None) for key, _ in node.value if key.tag != _MERGE)
        return super().construct_mapping(node, deep)


# numbers as YAML 1.2 and everybody else writes them: 010 is no octal 8, and 1:30 no 90
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if not tag.endswith((":int", ":float"))]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|0b[01_]+)$"),
    list("-+0123456789"),
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


class _SettingsLoader(_StrictLoader):
    """Reads ``1e-3`` as a number, as YAML 1.2 and Python do."""


_SettingsLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+"), list("-+.0123456789")
)


def read_yaml(text: str, *, settings: bool = False) -> Any:
    """Value of a YAML text: of settings, where ``1e-3`` is a number, or of names, which may look like that.

    :class:`ValueError` where a name is given twice, :class:`yaml.YAMLError` where it is no YAML.
    """
    return yaml.load(text, _SettingsLoader if settings else _StrictLoader)
