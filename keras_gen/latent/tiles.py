"""Large images in tiles that overlap and blend, of which a network need not see all at a time."""

import itertools
from collections.abc import Callable

import numpy as np


def in_tiles(
    function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, side: int, unit: int, new_unit: int
) -> np.ndarray:
    """Computes `function(x)`, a function that changes height and width by the factor `new_unit / unit`, in tiles.

    Tiles of `side` units overlap by a quarter or more, where their results fade into each other. A function of single
    pixels has the same result in tiles; any other differs as far as it depends on pixels outside of a tile.

    Args:
        function: takes and returns arrays `(n, height, width, channels)`. It is called once, with all tiles.
        x: `(n, height, width, channels)`.
        side: int >= 1. Height and width of a tile, in units.
        unit: int >= 1. Pixels of `x` per unit. Divides height and width.
        new_unit: int >= 1. Pixels of the result per unit.
    """
    height, width = (size // unit for size in x.shape[1:3])
    tile = min(side, height), min(side, width)
    corners = list(itertools.product(_starts(height, side), _starts(width, side)))
    if len(corners) == 1:
        return function(x)
    parts = function(np.concatenate([x[_pixels(corner, tile, unit)] for corner in corners]))
    weight = np.multiply.outer(*(_fading(size * new_unit, side // 4 * new_unit) for size in tile))[..., None]
    total = np.zeros((len(x), height * new_unit, width * new_unit, parts.shape[-1]), "float32")
    weights = np.zeros((*total.shape[1:3], 1), "float32")
    for corner, part in zip(corners, np.split(parts, len(corners)), strict=True):
        pixels = _pixels(corner, tile, new_unit)
        total[pixels] += weight * part
        weights[pixels[1:]] += weight
    return total / weights


def _starts(size: int, side: int) -> list[int]:
    """Returns where tiles begin that cover `size` units, evenly, each overlapping the next by a quarter or more."""
    rest = max(size - side, 0)
    gaps = -(-rest // (side - side // 4))
    return [i * rest // max(gaps, 1) for i in range(gaps + 1)]


def _pixels(corner: tuple[int, int], tile: tuple[int, int], unit: int) -> tuple[slice, slice, slice]:
    rows, columns = (slice(start * unit, (start + size) * unit) for start, size in zip(corner, tile, strict=True))
    return slice(None), rows, columns


def _fading(size: int, overlap: int) -> np.ndarray:
    """Returns weights that rise over the overlap at one end and fall at the other; they are nowhere zero."""
    rise = (np.arange(size) + 0.5) / max(overlap, 1)
    return np.minimum(np.minimum(rise, rise[::-1]), 1).astype("float32")
