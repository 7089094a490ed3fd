"""Where tables go is looked at before the work that fills them."""

from pathlib import Path

import pandas as pd
import pytest

from spatialsig.cli.project_commands import _place_beside
from spatialsig.errors import InputError, StoreError
from spatialsig.evaluation.schema import FINDING_COLUMNS


def test_findings_take_the_place_of_findings_only(tmp_path: Path) -> None:
    beside = tmp_path / "findings.csv"
    assert _place_beside(tmp_path / "e.csv") == beside
    pd.DataFrame(columns=list(FINDING_COLUMNS)).to_csv(beside, index=False)
    assert _place_beside(tmp_path / "e.csv") == beside
    beside.write_text("my notes\n")
    with pytest.raises(StoreError, match=r"findings.csv is not a table of findings.*move it"):
        _place_beside(tmp_path / "e.csv")
    assert beside.read_text() == "my notes\n"


def test_a_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder; wanted the CSV file .*evaluation.csv"):
        _place_beside(tmp_path)
