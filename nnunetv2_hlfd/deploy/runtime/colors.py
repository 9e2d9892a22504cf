"""A color for every label."""

import colorsys

# Okabe and Ito, Color Universal Design (2008): told apart by color-blind people as well
_FIRST = ("E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7")
_GOLDEN = 0.618034


def label_color(index: int) -> str:
    """Return the color of the label with this index from 0, as #RRGGBB; the same in every export.

    >>> label_color(0), label_color(7)
    ('#E69F00', '#89E085')
    """
    if index < len(_FIRST):
        return f"#{_FIRST[index]}"
    rgb = colorsys.hls_to_rgb(index * _GOLDEN % 1, 0.7, 0.6)
    return "#" + "".join(f"{round(255 * part):02X}" for part in rgb)
