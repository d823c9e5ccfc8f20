"""Draw the page's icons as PNG files from ui/public/icon.svg; needs Chromium and Playwright.

    python3 tools/icons.py

`icon-full-512.png` has no round corners: the system cuts it to its own form.
"""

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).resolve().parents[1] / "ui" / "public"
ICONS = {"icon-192.png": (192, False), "icon-512.png": (512, False), "icon-full-512.png": (512, True)}


def main() -> None:
    """Draw all of them."""
    drawing = (FOLDER / "icon.svg").read_text()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, (size, is_full) in ICONS.items():
            svg = drawing.replace('rx="14"', 'rx="0"') if is_full else drawing
            page = browser.new_page(viewport={"width": size, "height": size})
            page.set_content(f"<style>* {{ margin: 0; display: block }}</style>{svg}")
            page.screenshot(path=FOLDER / name, omit_background=True)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
