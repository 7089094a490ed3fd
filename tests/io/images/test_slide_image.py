from __future__ import annotations

import pytest

from spatialsig.errors import InputError
from spatialsig.io.images.slide_image import pick_slide

SLIDE = ("S1", 4000, 6000)


@pytest.mark.parametrize("beside", ["Label", "macro image", "thumbnail", "Overview", "barcode", "slide preview"])
def test_what_lies_beside_the_slide_is_never_taken_however_large(beside) -> None:
    assert pick_slide([(beside, 9000, 9000), SLIDE], name="a.tif") == 1


def test_the_largest_is_taken_over_its_own_pyramid_and_over_what_is_much_smaller() -> None:
    assert pick_slide([("", 1000, 1000), ("", 1001, 1501), ("", 2001, 3001), SLIDE], name="a.tif") == 3
    assert pick_slide([SLIDE, ("", 2000, 2999)], name="a.tif") == 0


def test_two_that_could_be_the_slide_are_refused() -> None:
    with pytest.raises(InputError, match=r"'a.tif' holds 2 images of 4000 x 6000, 3000 x 6000 px .* not clear which"):
        pick_slide([("", 3000, 6000), SLIDE], name="a.tif")
    with pytest.raises(InputError, match=r"holds only \['label', 'macro'\]; wanted the scan of a slide"):
        pick_slide([("label", 5, 5), ("macro", 9, 9)], name="a.tif")
