"""A procedural abdominal CT phantom with two kidneys and kidney tumors, for tests and demonstrations.

Organs are signed distances (mm, negative inside) in the coordinates of a reference patient, 330 mm wide and with the
kidneys at z = 0. Coordinates are (z, y, x): z rises to the head, y to the back, x to the patient's left. Each organ is
carved by what was placed before it, so that organs touch but never overlap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import SimpleITK
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

__all__ = ["LabelMode", "simulate_case", "write_phantom_dataset"]

Array: TypeAlias = npt.NDArray[np.floating[Any]]
LabelMode: TypeAlias = Literal["labels", "regions", "ignore", "regions_ignore"]

_MIN_SIZE = (8, 32, 32)  # smaller kidneys have too few voxels
_INF = float("inf")
_TEST_SEED_OFFSET = 50_000
_BODY_RADII_MM = (112.0, 165.0)
_KIDNEY_RADII_MM = (54.0, 30.0, 26.0)


@dataclass
class _Scene:
    """A case under construction; distances and coordinates in reference mm."""

    rng: np.random.Generator
    zyx: tuple[Array, ...]
    voxel: tuple[float, ...]
    noise: tuple[Array, ...]  # two smooth fields of unit variance
    hu: Array
    occupied: Array  # distance to everything placed so far

    def ellipsoid(self, center: Sequence[float], radii: Sequence[float]) -> Array:
        scaled = [(c - np.float32(o)) / np.float32(r) for c, o, r in zip(self.zyx, center, radii, strict=True)]
        return _ellipsoid_distance(scaled, radii)

    def around(self, center: Sequence[float], radii: Sequence[float]) -> _Scene:
        """The part of the scene within ``radii`` of ``center``, as views of the same arrays."""
        box = []
        for count, voxel, middle, radius in zip(self.hu.shape, self.voxel, center, radii, strict=True):
            first, last = ((middle + sign * (radius + 12)) / voxel + (count - 1) / 2 for sign in (-1, 1))
            box.append(slice(max(int(first) - 1, 0), max(int(last) + 3, 0)))
        part = tuple(box)
        zyx, noise = tuple(c[part] for c in self.zyx), tuple(n[part] for n in self.noise)
        return replace(self, zyx=zyx, noise=noise, hu=self.hu[part], occupied=self.occupied[part])

    def carve(self, distance: Array, gap: float) -> Array:
        carved: Array = np.maximum(distance, gap - self.occupied)
        return carved

    def paint(self, distance: Array, value: float | Array) -> None:
        self.hu += np.clip(0.5 - distance / self.voxel[2], 0, 1) * (value - self.hu)

    def place(self, distance: Array, value: float | Array, gap: float = 2.0) -> Array:
        carved = self.carve(distance, gap)
        self.paint(carved, value)
        np.minimum(self.occupied, carved, out=self.occupied)
        return carved


def _ellipsoid_distance(scaled: Sequence[Array], radii: Sequence[float]) -> Array:
    squares = [s * s for s in scaled]
    level: Array = np.sqrt(squares[0] + squares[1] + squares[2] + np.float32(1e-6))
    slope = sum(s / np.float32(r * r) for s, r in zip(squares, radii, strict=True))
    distance: Array = level * (level - 1) / np.sqrt(slope + np.float32(1e-6 / min(radii) ** 2))
    return distance


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: Sequence[float]) -> Array:
    field: Array = gaussian_filter(rng.standard_normal(shape, np.float32), sigma, mode="wrap", truncate=2.5)
    field /= field.std()
    return field


def _warp(rng: np.random.Generator, coordinates: Sequence[Array]) -> tuple[Array, ...]:
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


def _new_scene(size: tuple[int, ...], spacing: Sequence[float], seed: int) -> _Scene:
    rng = np.random.default_rng(seed)
    grid_rng = np.random.default_rng(rng.integers(2**62))  # keeps the anatomy independent of the number of voxels
    fov = [n * s for n, s in zip(size, spacing, strict=True)]
    in_plane = 0.93 * min(fov[1] / (2 * _BODY_RADII_MM[0]), fov[2] / (2 * _BODY_RADII_MM[1])) * rng.uniform(0.93, 1)
    scale = (min(1.2 * in_plane, fov[0] / 165), in_plane, in_plane)
    voxel = tuple(s / k for s, k in zip(spacing, scale, strict=True))
    lines = [((np.arange(n) - (n - 1) / 2) * v).astype(np.float32) for n, v in zip(size, voxel, strict=True)]
    outer = _warp(rng, np.ix_(*lines))
    fat = rng.uniform(8, 30)
    inner = np.float32(1 - (fat - 9) / 165)
    scene = _Scene(
        rng=rng,
        zyx=(outer[0], outer[1] / inner, outer[2] / inner),  # the inner organs shrink as the body fat grows
        voxel=(voxel[0], voxel[1] / float(inner), voxel[2] / float(inner)),
        noise=(
            _smooth_noise(grid_rng, size, [7 / v for v in voxel]),
            _smooth_noise(grid_rng, size, [4 / v for v in voxel]),
        ),
        hu=np.full(size, -1000, np.float32),
        occupied=np.empty(size, np.float32),
    )
    _body_wall(scene, outer, fat)
    return scene


def _body_wall(scene: _Scene, zyx: tuple[Array, ...], fat: float) -> None:
    """Skin, fat and the muscle wall with ribs; leaves the peritoneal cavity free."""
    z, y, x = zyx
    level = (np.abs(y / _BODY_RADII_MM[0]) ** 2.4 + np.abs(x / _BODY_RADII_MM[1]) ** 2.4) ** np.float32(1 / 2.4)
    skin = np.hypot(y, x) * (1 - 1 / np.maximum(level, 1e-3))
    wall = skin + fat * (1 + y / 300)
    scene.paint(skin, scene.rng.uniform(0, 30))
    scene.paint(skin + 2.2, -105 + 4 * scene.noise[0])
    scene.paint(wall, 56 + 3 * scene.noise[0] - 45 * np.exp(-(((wall + 5.5) / 1.3) ** 2)))
    cavity = wall + 11 - 6 * np.exp(-((x / 5) ** 2)) * (y < 0) + scene.noise[0]
    scene.paint(cavity, -102 + 5 * scene.noise[1])
    arc = np.arctan2(x, y) * 110 + z * np.sign(x) * 1.5
    rib = np.hypot((np.mod(arc, 46) - 23) / 2.2, wall + 6) - 3.5
    rib = np.maximum(rib, np.maximum(np.maximum(-60 - y, 15 - z), 70 - np.abs(x)))
    scene.paint(rib, 420)
    scene.paint(rib + 2, 170)
    scene.occupied = -cavity


def _spine_and_vessels(scene: _Scene) -> None:
    rng, z = scene.rng, scene.zyx[0]
    for side in (-1, 1):
        scene.place(scene.ellipsoid((0, 80, side * 31), (_INF, 19, 28)), 52 + 3 * scene.noise[1], gap=-9)
        scene.place(scene.ellipsoid((-60, 45, side * 37), (130, 16, 15)), 58)
        scene.place(scene.ellipsoid((-30, 71, side * 68), (110, 7, 20)), 55)
    disc = np.clip(1.8 - np.abs(np.mod(z + rng.uniform(0, 34), 34) - 17) / 3, 0, 1)
    marrow = rng.uniform(140, 230) + 28 * scene.noise[1]
    body = scene.ellipsoid((0, 42, 0), (_INF, 18, 24))
    ring = np.minimum(scene.ellipsoid((0, 68, 0), (_INF, 13, 16)), scene.ellipsoid((0, 88, 0), (_INF, 12, 4)))
    ring = np.minimum(ring, scene.ellipsoid((0, 69, 0), (_INF, 5, 38)) + 8 * disc)
    for bone in (ring + 3 * disc, body):
        scene.paint(bone, 480 - 390 * disc)
        scene.paint(bone + 3, marrow + (85 - marrow) * disc)
        np.minimum(scene.occupied, bone, out=scene.occupied)
    scene.paint(scene.ellipsoid((0, 67, 0), (_INF, 8, 11)), 25)
    scene.place(scene.ellipsoid((0, 13, 9), (_INF, 9.5, 9.5)), rng.uniform(150, 260))
    scene.place(scene.ellipsoid((0, 15, -18), (_INF, 8.5, 11.5)), rng.uniform(110, 170))


def _kidney(scene: _Scene, side: int) -> tuple[Array, tuple[float, float, float], float]:
    """Place a kidney; returns its distance, center and HU."""
    rng, (z, y, x) = scene.rng, scene.zyx
    center = (rng.uniform(-8, 8) + 5 * side, rng.uniform(24, 30), side * rng.uniform(65, 71))
    angle = np.float32(rng.uniform(0.3, 0.8))
    lateral = side * (x - center[2]) + 0.2 * (z - center[0])
    u = np.cos(angle) * lateral + np.sin(angle) * (y - center[1])
    v = np.cos(angle) * (y - center[1]) - np.sin(angle) * lateral
    w = z - center[0]
    radii = [r * rng.uniform(0.9, 1.1) for r in _KIDNEY_RADII_MM]
    surface = _ellipsoid_distance([c / np.float32(r) for c, r in zip((w, v, u), radii, strict=True)], radii)
    sinus = _ellipsoid_distance([w / 29, v / 10, (u + 17) / 19], (29, 10, 19)) + 2.5 * scene.noise[1]
    cortex, contrast = rng.uniform(130, 200), rng.uniform(5, 80)
    pyramids = np.cos(5 * np.arctan2(v, u + 12)) * np.cos(w / 6) + 0.3
    medulla = np.clip(-(surface + 6) / 3, 0, 1) * np.clip(2.5 * pyramids, 0, 1)
    fat = rng.uniform(1, 9)  # perirenal, on top of the gap between organs
    parenchyma = np.maximum(scene.carve(surface, 3), -sinus)
    inside_sinus = np.maximum(sinus, surface)
    pelvis = scene.carve(_ellipsoid_distance([w / 16, v / 5, (u + 19) / 13], (16, 5, 13)) + 1.5 * scene.noise[0], 1)
    scene.paint(pelvis, rng.choice([rng.uniform(0, 25), rng.uniform(200, 350)], p=[0.8, 0.2]))
    vein = scene.carve(scene.ellipsoid((center[0] - 8, 18, side * 38), (5, 4.5, 24)), 0)
    scene.paint(vein, rng.uniform(110, 170))
    scene.paint(parenchyma, cortex - contrast * medulla + 4 * scene.noise[1])
    occupied = np.minimum(np.minimum(parenchyma, inside_sinus) - fat, vein)
    np.minimum(scene.occupied, occupied, out=scene.occupied)
    return parenchyma, center, cortex - contrast / 3


def _lesion(scene: _Scene, kidney: Array, center: Sequence[float], walls: Array, radius: float, rough: float) -> Array:
    """Distance to a lesion of at least three voxels across, on a voxel of the kidney near its surface."""
    direction = scene.rng.standard_normal(3)
    offset = scene.rng.uniform(0.55, 1) * direction / np.linalg.norm(direction)
    target = [c + o * r for c, o, r in zip(center, offset, _KIDNEY_RADII_MM, strict=True)]
    away = sum((c - np.float32(t)) ** 2 for c, t in zip(scene.zyx, target, strict=True))
    voxel = np.unravel_index(np.argmin(np.where(kidney < 0, away, np.inf)), kidney.shape)
    middle = [float(c[voxel]) for c in scene.zyx]
    radii = [max(radius * scene.rng.uniform(0.85, 1.15), 1.6 * v) for v in scene.voxel]
    lesion = scene.ellipsoid(middle, radii) + rough * scene.noise[0]
    return np.maximum(lesion, 2 - walls)


def _kidneys(scene: _Scene) -> npt.NDArray[np.uint8]:
    """Place both kidneys with cysts and tumors; returns the labels."""
    rng, walls = scene.rng, scene.occupied.copy()
    kidneys = [_kidney(scene, side) for side in (-1, 1)]
    is_kidney = np.minimum(kidneys[0][0], kidneys[1][0]) < 0
    for _ in range(rng.poisson(1.3)):
        kidney, center, _hu = kidneys[rng.integers(2)]
        cyst = _lesion(scene, kidney, center, walls, rng.uniform(4, 15), 0)
        scene.place(cyst, rng.uniform(2, 22), gap=-_INF)
        is_kidney |= cyst < 0
    is_tumor = np.zeros_like(is_kidney)
    for _ in range(1 + rng.binomial(2, 0.25)):
        kidney, center, kidney_hu = kidneys[rng.integers(2)]
        radius = float(np.exp(rng.uniform(np.log(7), np.log(36))))
        tumor = _lesion(scene, kidney, center, walls, radius, 0.06 * radius)
        isodense, necrotic = rng.random() < 0.35, rng.random() < 0.5 and radius > 14
        value = kidney_hu - rng.uniform(-5, 20) if isodense else rng.uniform(45, 120)
        texture = rng.uniform(6, 18) * scene.noise[1] + rng.uniform(0, 8) * scene.noise[0]
        scene.place(tumor, value + texture, gap=-_INF)
        if necrotic:
            scene.paint(tumor + radius * rng.uniform(0.35, 0.6) + 0.2 * radius * scene.noise[0], 25 + 0.3 * texture)
        is_tumor |= tumor < 0
    return np.where(is_tumor, 2, is_kidney).astype(np.uint8)


def _abdominal_organs(scene: _Scene) -> None:
    rng = scene.rng
    vessels = np.exp(-(scene.noise[0] ** 2 + scene.noise[1] ** 2) * 9)
    lobe = scene.ellipsoid((55, -55, -25), (45, 27, 68))
    shift = rng.uniform(-15, 15)
    fossa = scene.ellipsoid((0, 60, -50), (95, 46, 54))  # room for the right kidney
    liver = np.maximum(scene.ellipsoid((52 + shift, -12, -78), (88, 72, 64)), -fossa)
    scene.place(scene.ellipsoid((shift, -38, -45), (24, 17, 13)), rng.uniform(0, 18), gap=3)  # gallbladder
    scene.place(np.minimum(liver, lobe), rng.uniform(85, 125) + 45 * vessels + 3 * scene.noise[1])
    scene.place(scene.ellipsoid((50, 24, 106), (50, 42, 30)), rng.uniform(95, 135) + 3 * scene.noise[1])  # spleen
    scene.place(scene.ellipsoid((22, -12, 20), (13, 10, 52)) + 2 * scene.noise[1], rng.uniform(70, 105))  # pancreas
    _bowel(scene, (55, -42, 52), (42, 36, 44))  # stomach
    _bowel(scene, (-65, 8, -108), (60, 24, 24))  # ascending colon
    _bowel(scene, (-40, 18, 114), (100, 16, 17))  # descending colon
    _bowel(scene, (rng.uniform(-40, 0), -66, -45), (17, 17, 55))  # transverse colon
    _bowel(scene, (rng.uniform(-40, 0), -60, 60), (20, 19, 50))
    for _ in range(45):
        position = (rng.uniform(-95, 45), rng.uniform(-75, 0), rng.uniform(-95, 95))
        _bowel(scene, position, rng.permutation(rng.uniform((11, 12, 18), (16, 18, 40))).tolist())
    twigs = scene.carve(np.hypot(scene.noise[0], scene.noise[1]) * 9 - 2.2, 1.5)
    scene.paint(twigs, 110)


def _bowel(scene: _Scene, center: Sequence[float], radii: Sequence[float]) -> None:
    """Place a loop of bowel: wall, contents and often gas above an air-fluid level."""
    rng, scene = scene.rng, scene.around(center, radii)
    wall = scene.place(scene.ellipsoid(center, radii) + 1.2 * scene.noise[1], rng.uniform(60, 95))
    lumen = wall + rng.uniform(2, 3.5)
    contents = rng.choice([rng.uniform(5, 35), rng.uniform(35, 60), rng.uniform(150, 230)], p=[0.55, 0.35, 0.1])
    scene.paint(lumen, contents + 8 * scene.noise[1])
    level = center[1] + radii[1] * rng.uniform(-2, 0.5)
    scene.paint(np.maximum(lumen, scene.zyx[1] - level), -900)


def _check_case(size: Sequence[int], spacing: Sequence[float], seed: int) -> tuple[int, ...]:
    if len(size) != 3 or any(int(n) != n or n < least for n, least in zip(size, _MIN_SIZE, strict=True)):
        raise ValueError(f"size must be three integers (z, y, x) of at least {_MIN_SIZE} voxels, got {tuple(size)}")
    if len(spacing) != 3 or not all(0 < s < _INF for s in spacing):
        raise ValueError(f"spacing must be three positive numbers (z, y, x) in mm, got {tuple(spacing)}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    return tuple(int(n) for n in size)


def simulate_case(
    size: Sequence[int], spacing: Sequence[float], seed: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Simulate one abdominal CT with both kidneys, at least one kidney tumor and its labels.

    The body is scaled to the in-plane field of view; along z the anatomy is compressed where the field of view is too
    short for whole kidneys. Cysts are labeled kidney, the fat of the renal sinus is background.

    Args:
        size: Voxels along (z, y, x), at least (8, 32, 32).
        spacing: Voxel spacing along (z, y, x) in mm.
        seed: Non-negative seed; the same seed, size and spacing give the same case.

    Returns:
        The volume in HU and the labels (0 background, 1 kidney, 2 tumor), both of shape ``size``.

    Raises:
        ValueError: If size, spacing or seed is out of range.
    """
    shape = _check_case(size, spacing, seed)
    scene = _new_scene(shape, spacing, seed)
    _spine_and_vessels(scene)
    labels = _kidneys(scene)
    _abdominal_organs(scene)
    hu = gaussian_filter(scene.hu, (0.4, 0.5, 0.5), truncate=3)
    noise = _smooth_noise(scene.rng, shape, (0.4, 0.7, 0.7)) * scene.rng.uniform(9, 20)
    hu += noise * np.where(hu < -800, 0.6, 1)
    return np.clip(hu, -1024, 1500).round().astype(np.int16), labels


def _ignore_slices(labels: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Set about half of the axial slices to 3 in place, keeping a slice with tumor."""
    kept = rng.choice(np.flatnonzero((labels == 2).any(axis=(1, 2))))
    others = np.delete(np.arange(len(labels)), kept)
    labels[rng.permutation(others)[: len(labels) // 2]] = 3


def _write_image(array: npt.NDArray[Any], spacing: Sequence[float], file: Path) -> None:
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in reversed(spacing)])
    file.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(file), useCompression=True)


def _dataset_description(num_training: int, label_mode: LabelMode) -> dict[str, Any]:
    regions = label_mode.startswith("regions")
    labels: dict[str, int | list[int]] = {"background": 0, "kidney": [1, 2] if regions else 1, "tumor": 2}
    if label_mode.endswith("ignore"):
        labels["ignore"] = 3
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": num_training}
    regions_order = {"regions_class_order": [1, 2]} if regions else {}
    return description | regions_order | {"file_ending": ".nii.gz"}


def write_phantom_dataset(
    folder: Path,
    *,
    num_training: int,
    num_test: int = 0,
    size: Sequence[int] = (48, 128, 128),
    spacing: Sequence[float] = (4.0, 2.8, 2.8),
    seed: int = 0,
    label_mode: LabelMode = "labels",
) -> Path:
    """Write an nnU-Net raw data set of simulated cases: imagesTr, labelsTr, imagesTs, labelsTs and dataset.json.

    Args:
        folder: Target named ``DatasetXXX_Name``; created, must be new or empty.
        num_training: Number of training cases, at least 1.
        num_test: Number of test cases, numbered after the training cases.
        size: Voxels along (z, y, x), at least (8, 32, 32).
        spacing: Voxel spacing along (z, y, x) in mm.
        seed: Non-negative seed of the data set; other seeds give other cases.
        label_mode: ``labels`` for plain labels, ``regions`` for kidney including tumor as a region, ``ignore`` for the
            ignore label 3 on about half of the slices of each training case, ``regions_ignore`` for both.

    Returns:
        ``folder``.

    Raises:
        FileExistsError: If the folder has contents.
        ValueError: If the folder name or another argument is not as described.
    """
    folder = Path(folder)
    if not re.fullmatch(r"Dataset\d{3}_.+", folder.name):
        raise ValueError(f"folder must be named DatasetXXX_Name, for example Dataset019_Phantom, got {folder.name!r}")
    if num_training < 1 or num_test < 0:
        raise ValueError(f"need num_training >= 1 and num_test >= 0, got {num_training} and {num_test}")
    if label_mode not in get_args(LabelMode):
        raise ValueError(f"label_mode must be one of {', '.join(get_args(LabelMode))}, got {label_mode!r}")
    _check_case(size, spacing, seed)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"folder must be new or empty, got {folder}; delete it or choose another name")
    for index in tqdm(range(num_training + num_test), desc=f"Simulating {folder.name}", unit="case", disable=None):
        is_test = index >= num_training
        case_seed = seed * 100_003 + (index - num_training + _TEST_SEED_OFFSET if is_test else index)
        image, labels = simulate_case(size, spacing, case_seed)
        if label_mode.endswith("ignore") and not is_test:
            _ignore_slices(labels, np.random.default_rng((case_seed, 1)))
        split = "Ts" if is_test else "Tr"
        _write_image(image, spacing, folder / f"images{split}" / f"case_{index:03d}_0000.nii.gz")
        _write_image(labels, spacing, folder / f"labels{split}" / f"case_{index:03d}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(_dataset_description(num_training, label_mode), indent=2) + "\n")
    return folder
