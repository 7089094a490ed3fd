"""What files, folders, patterns and manifests name, and what slides are called."""

from pathlib import Path

import pandas as pd
import pytest

from spatialsig.errors import FileMissingError, InputError
from spatialsig.whole_slides import list_images


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * (1 + len(name)))


def names(*places: object, **options: object) -> list[str]:
    return [image.sample for image in list_images(list(places), **options)]


def test_folders_hold_images_by_their_endings(tmp_path: Path) -> None:
    make(tmp_path, "a.svs", "b.NDPI", "c.mrxs", "c/Data0001.dat", "d.ome.tif", "e.jpeg", ".hidden.svs", "list.xlsx")
    make(tmp_path, "f.zarr/zarr.json", "no.zarr/x", "deep/g.svs")
    assert names(tmp_path) == ["a", "b", "c", "d", "e", "f"]
    assert names(str(tmp_path / "**" / "*.svs")) == ["a", "g"]
    assert names(tmp_path / "deep", str(tmp_path / "*.svs"), tmp_path / "a.svs") == ["g", "a"]  # each once
    with pytest.raises(FileMissingError, match=r"holds no image of a slide: 1 x \.dat; wanted one of"):
        names(tmp_path / "c")
    with pytest.raises(FileMissingError, match="holds no image"):
        names(str(tmp_path / "*.czi"))
    with pytest.raises(FileMissingError, match=r"missing \['.*gone\.svs'\].*patterns such as"):
        names(tmp_path / "gone.svs")
    with pytest.raises(InputError, match="`slides` is empty"):
        names()


def test_a_folder_of_dicom_files_is_one_slide(tmp_path: Path) -> None:
    make(tmp_path, "P1/1.dcm", "P1/10000.dcm", "P2/label.dcm")
    found = list_images(str(tmp_path / "*" / "*.dcm"))
    assert [(image.sample, image.path.name) for image in found] == [("P1", "10000.dcm"), ("P2", "label.dcm")]


@pytest.mark.parametrize(
    ("files", "called"),
    [
        (("a.svs", "b.svs"), ["a", "b"]),
        (("a.svs", "a.tif"), ["a.svs", "a.tif"]),
        (("A.svs", "a.tif"), ["A.svs", "a.tif"]),
        (("x/a.svs", "y/a.svs", "y/b.svs"), ["x_a.svs", "y_a.svs", "b"]),
        (("x/1/a.svs", "y/1/a.svs"), ["x_1_a.svs", "y_1_a.svs"]),
        (("Fall 7 é.svs",), ["Fall 7 é"]),
    ],
)
def test_names_are_as_short_as_they_can_be(files: tuple[str, ...], called: list[str], tmp_path: Path) -> None:
    make(tmp_path, *files)
    assert names(*(tmp_path / name for name in files)) == called


def test_manifests_say_names_sizes_and_patients(tmp_path: Path) -> None:
    make(tmp_path, "scans/a.svs", "b.png")
    (tmp_path / "list.csv").write_text("image;um_per_px;patient;sample\nscans/a.svs;;P1;one\nb.png;0,5;;\n")
    a, b = list_images(tmp_path / "list.csv", um_per_px=0.25)
    assert (a.sample, a.path, a.um_per_px, a.patient) == ("one", tmp_path / "scans" / "a.svs", None, "P1")
    assert {a.otherwise_um_per_px, b.otherwise_um_per_px} == {0.25}
    assert (b.sample, b.um_per_px, b.patient) == ("b", 0.5, None)
    frame = pd.DataFrame({"he_image": [tmp_path / "b.png"], "patient": [7.0]})
    assert [(x.sample, x.patient) for x in list_images(frame)] == [("b", "7")]
    for text, said in (
        ("sample\nS1\n", r"no column\(s\) \['image'\]"),
        ("image,sample\na.svs,S1\nb.svs,s1\n", r"\['s1'\] occur more than once"),
        ("image,um_per_px\na.svs,0\n", "line 2: `um_per_px` is '0'"),
        ("image,sample\na.svs,../x\n", "cannot name a folder"),
        ("image,sample\n,x\n", "column 'image' .* is empty in line 2"),
        ("image,sampel\na.svs,x\n", "did you mean 'sample'"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(InputError, match=said):
            list_images(tmp_path / "bad.csv")


def test_a_name_of_the_manifest_is_left_to_its_slide(tmp_path: Path) -> None:
    make(tmp_path, "a.svs", "b.svs")
    frame = pd.DataFrame({"image": [tmp_path / "a.svs", tmp_path / "b.svs"], "sample": [None, "a"]})
    assert [image.sample for image in list_images(frame)] == ["a.svs", "a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "image,sample\na.svs,one\nb.svs,\na.svs,two\n",
            r"a\.svs' is listed as several.*line 2 \(sample 'one'\).*line 4 \(sample 'two'\)",
        ),
        ("image,um_per_px\na.svs,0.5\na.svs,0.25\n", r"line 2 \(um_per_px 0\.5\).*line 3 \(um_per_px 0\.25\)"),
        ("image,patient\na.svs,P1\n./a.svs,P2\n", r"line 2 \(patient 'P1'\).*line 3 \(patient 'P2'\)"),
        ("image,sample\na.svs,\na.svs,two\n", r"line 2 \(\).*line 3 \(sample 'two'\)"),
        ("image,he_image\na.svs,b.svs\n", r"columns 'image' and 'he_image', of which one"),
        ("image,um_per_px\na.svs,1_0\n", r"line 2: `um_per_px` is '1_0'"),
        ("", r"it is empty.*header with \['sample', 'image'"),
        ("image,sample\na.svs,Slides.csv\n", r"'Slides\.csv' is that of a file which the results"),
        ("image,sample\na.svs,index.html\n", r"'index\.html' is that of a file"),
    ],
)
def test_manifests_that_contradict_themselves(text: str, said: str, tmp_path: Path) -> None:
    make(tmp_path, "a.svs", "b.svs")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        list_images(tmp_path / "list.csv")


def test_what_a_manifest_says_of_an_image_goes_before_its_file(tmp_path: Path) -> None:
    make(tmp_path, "a.svs")
    (tmp_path / "list.csv").write_text("image,sample,um_per_px\na.svs,one,0.5\na.svs,one,0.50\n")
    for places in ([tmp_path / "a.svs", tmp_path / "list.csv"], [tmp_path / "list.csv", str(tmp_path / "*.svs")]):
        (found,) = list_images(places)
        assert (found.sample, found.um_per_px) == ("one", 0.5)
