"""The canvas of the phantom: signed distances to organs are carved, painted and kept apart.

Distances are in mm, negative inside, in the coordinates of a reference patient, 330 mm wide and with the kidneys at
z = 0. Coordinates are (z, y, x): z rises to the head, y to the back, x to the patient's left. Each organ is carved by
what was placed before it, so that organs touch but never overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Array: TypeAlias = npt.NDArray[np.floating[Any]]


@dataclass
class Scene:
    """A case under construction; distances and coordinates in reference mm."""

    rng: np.random.Generator
    zyx: tuple[Array, ...]
    voxel: tuple[float, ...]
    noise: tuple[Array, ...]  # two smooth fields of unit variance
    hu: Array
    occupied: Array  # distance to everything placed so far

    def ellipsoid(self, center: Sequence[float], radii: Sequence[float]) -> Array:
        """Return the distance to an ellipsoid."""
        scaled = [(c - np.float32(o)) / np.float32(r) for c, o, r in zip(self.zyx, center, radii, strict=True)]
        return ellipsoid_distance(scaled, radii)

    def around(self, center: Sequence[float], radii: Sequence[float]) -> Scene:
        """Return the part of the scene within ``radii`` of ``center``, as views of the same arrays."""
        box = []
        for count, voxel, middle, radius in zip(self.hu.shape, self.voxel, center, radii, strict=True):
            first, last = ((middle + sign * (radius + 12)) / voxel + (count - 1) / 2 for sign in (-1, 1))
            box.append(slice(max(int(first) - 1, 0), max(int(last) + 3, 0)))
        part = tuple(box)
        zyx, noise = tuple(c[part] for c in self.zyx), tuple(n[part] for n in self.noise)
        return replace(self, zyx=zyx, noise=noise, hu=self.hu[part], occupied=self.occupied[part])

    def carve(self, distance: Array, gap: float) -> Array:
        """Cut away what is closer than ``gap`` to anything placed so far."""
        carved: Array = np.maximum(distance, gap - self.occupied)
        return carved

    def paint(self, distance: Array, value: float | Array) -> None:
        """Set HU inside, blended over one voxel at the border."""
        self.hu += np.clip(0.5 - distance / self.voxel[2], 0, 1) * (value - self.hu)

    def place(self, distance: Array, value: float | Array, gap: float = 2.0) -> Array:
        """Carve, paint and occupy; returns the carved distance."""
        carved = self.carve(distance, gap)
        self.paint(carved, value)
        np.minimum(self.occupied, carved, out=self.occupied)
        return carved


def ellipsoid_distance(scaled: Sequence[Array], radii: Sequence[float]) -> Array:
    """Approximate the distance to an ellipsoid from coordinates divided by its radii."""
    squares = [s * s for s in scaled]
    level: Array = np.sqrt(squares[0] + squares[1] + squares[2] + np.float32(1e-6))
    slope = sum(s / np.float32(r * r) for s, r in zip(squares, radii, strict=True))
    distance: Array = level * (level - 1) / np.sqrt(slope + np.float32(1e-6 / min(radii) ** 2))
    return distance


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: Sequence[float]) -> Array:
    """Return Gaussian-filtered noise of unit variance; sigma is in voxels."""
    field: Array = gaussian_filter(rng.standard_normal(shape, np.float32), sigma, mode="wrap", truncate=2.5)
    field /= field.std()
    return field


def warp(rng: np.random.Generator, coordinates: Sequence[Array]) -> tuple[Array, ...]:
    """Bend the coordinates by a few millimeters with long waves, so that no organ is an exact ellipsoid."""
    warped = []
    for coordinate in coordinates:
        for amplitude, length in ((4.0, 170.0), (1.8, 70.0)):
            waves = [
                np.sin(c * np.float32(2 * np.pi / length / rng.uniform(0.8, 1.3)) + np.float32(rng.uniform(0, 6.3)))
                for c in coordinates
            ]
            coordinate = coordinate + np.float32(amplitude) * (waves[0] * waves[1] * waves[2])
        warped.append(coordinate)
    return tuple(warped)
