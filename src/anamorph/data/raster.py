"""Greyscale pictures (PNG, JPEG, TIFF) as 2-D images, by Pillow.

A picture has no place in the world: it is given pixels of 1 mm, with a warning. Axis i runs along the columns to the
right, axis j along the rows downwards; to the right is L and down is P, as ITK has it, so both world coordinates fall.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anamorph.data.guard import check_budget
from anamorph.data.image import ReadPolicy
from anamorph.data.volume import Volume, place
from anamorph.errors import AnamorphError, InputError, ResourceError, warn

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

GREY_MODES = ("1", "L", "I;16", "I;16B", "I;16L", "I", "F")
"""Of Pillow."""
ORIENTATION = 0x0112
"""EXIF tag."""


def read_raster(path: Path, policy: ReadPolicy) -> Volume:
    """A greyscale picture; a coloured one is refused, one whose channels are equal is grey.

    Raises:
        InputError: colour, several pages, a damaged file.
        ResourceError: more pixels than the budget holds.
    """
    import PIL.Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path, formats=("PNG", "JPEG", "TIFF")) as picture:
                check_budget(picture.size, np.dtype("f4"), policy.max_bytes, path)
                pages = getattr(picture, "n_frames", 1)
                if pages > 1:
                    raise InputError("E-GEO-017", f"{pages} pages", file=path, expected="one", do="save one page")
                pixels = _grey(np.asarray(_decoded(picture, path)), path)
                if picture.getexif().get(ORIENTATION, 1) != 1:
                    warn("W-FMT-011", "its EXIF orientation is not applied", file=path)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise ResourceError("E-MEM-016", "too many pixels for a picture", file=path, do="resample it") from error
    except AnamorphError:
        raise
    except (
        Exception
    ) as error:  # Pillow lets every kind through: OSError, SyntaxError, TypeError, KeyError, struct.error
        raise InputError("E-FMT-006", "a damaged or truncated picture", file=path, do="copy the file again") from error
    warn("W-FMT-010", "a picture has no pixel size: 1 mm assumed", file=path)
    return place(np.asfortranarray(pixels.T), np.diag([-1.0, -1.0, 1.0]), policy, path)


def _decoded(picture: Picture, path: Path) -> Picture:
    """Palette and alpha resolved, so that what is left is grey or RGB."""
    if picture.mode in GREY_MODES:
        return picture
    if picture.has_transparency_data:
        warn("W-FMT-011", "its transparency is ignored", file=path)
    return picture.convert("RGB")


def _grey(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8)
    if pixels.ndim == 2:
        return pixels
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    raise InputError("E-VAL-007", "a colour picture", file=path, expected="greyscale", do="convert it to grey")
