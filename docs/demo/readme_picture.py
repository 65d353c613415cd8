# SPDX-License-Identifier: MIT
"""Makes docs/demo.png, the picture of the README: the upper half of what `make demo` writes.

Usage, in the project's folder: python3 docs/demo/readme_picture.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ROWS = 968    # two scenes, two garments each
LEVELS = 31   # of each colour, so that the file stays small


def main():
    """Cuts and rounds."""
    sheet = np.asarray(Image.open(ROOT / "build" / "demo" / "scenes.png").convert("RGB"))[:ROWS]
    rounded = np.rint(np.rint(sheet / 255 * LEVELS) / LEVELS * 255).astype(np.uint8)
    Image.fromarray(rounded).save(ROOT / "docs" / "demo.png", optimize=True)


if __name__ == "__main__":
    main()
