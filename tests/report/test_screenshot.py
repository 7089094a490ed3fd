"""The report as a browser shows it: light, dark, and nothing wider than the screen."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to show a page")
SCHEME = {"light": [], "dark": ["--blink-settings=preferredColorScheme=0"]}
WIDTH = 1400


def show(page: Path, picture: Path, *flags: str) -> np.ndarray:
    """Pixels ``(h, w, 3)`` of the top of a page."""
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={picture.parent}/profile",
    ]
    command += [f"--screenshot={picture}", f"--window-size={WIDTH},1200", *flags, page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return np.asarray(Image.open(picture).convert("RGB"))


@pytest.mark.parametrize("scheme", SCHEME)
def test_the_page_follows_the_theme_and_fits_the_screen(report_path: Path, scheme: str, tmp_path: Path) -> None:
    pixels = show(report_path, tmp_path / "shot.png", *SCHEME[scheme])
    grey = pixels.mean(axis=2)
    ground = np.median(grey)
    assert ground > 240 if scheme == "light" else ground < 60
    text = np.abs(grey - ground) > 120
    assert text.mean() > 0.003
    assert text[:, 60 : WIDTH - 60].mean() > 0.003
    # in a page wider than the screen the cards reach its right edge
    assert not text[200:, WIDTH - 20 :].any()
