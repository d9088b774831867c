"""Writes the photos of the front page from those that scikit-image ships: docs/images/*.jpg.

python -m docs.photos        # with scikit-image, of the extra `test`

Both are CC0: the cat by Stefan van der Walt, the coffee by Rachel Michetti.
"""

from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent / "images"


def main():
    from skimage import data

    for name, pixels in (("cat", data.chelsea()), ("coffee", data.coffee())):
        Image.fromarray(pixels).save(IMAGES / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main()
