"""Takes the picture of the demo's page that README and docs show, in seconds.

It needs the demo's run (`./taskw demo`), playwright, and Chromium at /usr/bin/chromium.

    python scripts/page_picture.py runs/digits docs/report.png
"""

import io
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

SIZE = (1280, 1560)
"""Pixels of the picture, which ends within the table of all methods."""


def picture(page: Path) -> Image.Image:
    """Return the top of a page as one sees it on opening."""
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        seen = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light")
        seen.goto(page.absolute().as_uri())
        pixels = seen.screenshot()
        browser.close()
    return Image.open(io.BytesIO(pixels)).convert("RGB")


if __name__ == "__main__":
    run, target = map(Path, sys.argv[1:])
    picture(run / "report" / "report.html").save(target, optimize=True)
    sys.stdout.write(f"{target}\n")
