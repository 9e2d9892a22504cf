"""The organs of the phantom, placed one after the other into a `Scene`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nnunetv2_hlfd.datasets.scene import Array, Scene, ellipsoid_distance, smooth_noise, warp

_INF = float("inf")
_BODY_RADII_MM = (112.0, 165.0)
_KIDNEY_RADII_MM = (54.0, 30.0, 26.0)


def new_scene(size: tuple[int, ...], spacing: Sequence[float], seed: int) -> Scene:
    """Scale the reference patient to the field of view and place the body wall."""
    rng = np.random.default_rng(seed)
    grid_rng = np.random.default_rng(rng.integers(2**62))  # keeps the anatomy independent of the number of voxels
    fov = [n * s for n, s in zip(size, spacing, strict=True)]
    in_plane = 0.93 * min(fov[1] / (2 * _BODY_RADII_MM[0]), fov[2] / (2 * _BODY_RADII_MM[1])) * rng.uniform(0.93, 1)
    scale = (min(1.2 * in_plane, fov[0] / 165), in_plane, in_plane)
    voxel = tuple(s / k for s, k in zip(spacing, scale, strict=True))
    lines = [((np.arange(n) - (n - 1) / 2) * v).astype(np.float32) for n, v in zip(size, voxel, strict=True)]
    outer = warp(rng, np.ix_(*lines))
    fat = rng.uniform(8, 30)
    inner = np.float32(1 - (fat - 9) / 165)
    scene = Scene(
        rng=rng,
        zyx=(outer[0], outer[1] / inner, outer[2] / inner),  # the inner organs shrink as the body fat grows
        voxel=(voxel[0], voxel[1] / float(inner), voxel[2] / float(inner)),
        noise=(
            smooth_noise(grid_rng, size, [7 / v for v in voxel]),
            smooth_noise(grid_rng, size, [4 / v for v in voxel]),
        ),
        hu=np.full(size, -1000, np.float32),
        occupied=np.empty(size, np.float32),
    )
    _body_wall(scene, outer, fat)
    return scene


def _body_wall(scene: Scene, zyx: tuple[Array, ...], fat: float) -> None:
    """Place skin, fat and the muscle wall with ribs; the peritoneal cavity stays free."""
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


def place_spine_and_vessels(scene: Scene) -> None:
    """Place back muscles, spine, aorta and vena cava."""
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


def _kidney(scene: Scene, side: int) -> tuple[Array, tuple[float, float, float], float]:
    """Place a kidney; returns its distance, center and HU."""
    rng, (z, y, x) = scene.rng, scene.zyx
    center = (rng.uniform(-8, 8) + 5 * side, rng.uniform(24, 30), side * rng.uniform(65, 71))
    angle = np.float32(rng.uniform(0.3, 0.8))
    lateral = side * (x - center[2]) + 0.2 * (z - center[0])
    u = np.cos(angle) * lateral + np.sin(angle) * (y - center[1])
    v = np.cos(angle) * (y - center[1]) - np.sin(angle) * lateral
    w = z - center[0]
    radii = [r * rng.uniform(0.9, 1.1) for r in _KIDNEY_RADII_MM]
    surface = ellipsoid_distance([c / np.float32(r) for c, r in zip((w, v, u), radii, strict=True)], radii)
    sinus = ellipsoid_distance([w / 29, v / 10, (u + 17) / 19], (29, 10, 19)) + 2.5 * scene.noise[1]
    cortex, contrast = rng.uniform(130, 200), rng.uniform(5, 80)
    pyramids = np.cos(5 * np.arctan2(v, u + 12)) * np.cos(w / 6) + 0.3
    medulla = np.clip(-(surface + 6) / 3, 0, 1) * np.clip(2.5 * pyramids, 0, 1)
    fat = rng.uniform(1, 9)  # perirenal, on top of the gap between organs
    parenchyma = np.maximum(scene.carve(surface, 3), -sinus)
    inside_sinus = np.maximum(sinus, surface)
    pelvis = scene.carve(ellipsoid_distance([w / 16, v / 5, (u + 19) / 13], (16, 5, 13)) + 1.5 * scene.noise[0], 1)
    scene.paint(pelvis, rng.choice([rng.uniform(0, 25), rng.uniform(200, 350)], p=[0.8, 0.2]))
    vein = scene.carve(scene.ellipsoid((center[0] - 8, 18, side * 38), (5, 4.5, 24)), 0)
    scene.paint(vein, rng.uniform(110, 170))
    scene.paint(parenchyma, cortex - contrast * medulla + 4 * scene.noise[1])
    occupied = np.minimum(np.minimum(parenchyma, inside_sinus) - fat, vein)
    np.minimum(scene.occupied, occupied, out=scene.occupied)
    return parenchyma, center, cortex - contrast / 3


def _lesion(scene: Scene, kidney: Array, center: Sequence[float], walls: Array, radius: float, rough: float) -> Array:
    """Return the distance to a lesion of at least three voxels across, on a voxel of the kidney near its surface."""
    direction = scene.rng.standard_normal(3)
    offset = scene.rng.uniform(0.55, 1) * direction / np.linalg.norm(direction)
    target = [c + o * r for c, o, r in zip(center, offset, _KIDNEY_RADII_MM, strict=True)]
    away = sum((c - np.float32(t)) ** 2 for c, t in zip(scene.zyx, target, strict=True))
    voxel = np.unravel_index(np.argmin(np.where(kidney < 0, away, np.inf)), kidney.shape)
    middle = [float(c[voxel]) for c in scene.zyx]
    radii = [max(radius * scene.rng.uniform(0.85, 1.15), 1.6 * v) for v in scene.voxel]
    lesion = scene.ellipsoid(middle, radii) + rough * scene.noise[0]
    return np.maximum(lesion, 2 - walls)


def place_kidneys(scene: Scene) -> npt.NDArray[np.uint8]:
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


def place_abdominal_organs(scene: Scene) -> None:
    """Place gallbladder, liver, spleen, pancreas, stomach, colon, small bowel and mesenteric vessels."""
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


def _bowel(scene: Scene, center: Sequence[float], radii: Sequence[float]) -> None:
    """Place a loop of bowel: wall, contents and often gas above an air-fluid level."""
    rng, scene = scene.rng, scene.around(center, radii)
    wall = scene.place(scene.ellipsoid(center, radii) + 1.2 * scene.noise[1], rng.uniform(60, 95))
    lumen = wall + rng.uniform(2, 3.5)
    contents = rng.choice([rng.uniform(5, 35), rng.uniform(35, 60), rng.uniform(150, 230)], p=[0.55, 0.35, 0.1])
    scene.paint(lumen, contents + 8 * scene.noise[1])
    level = center[1] + radii[1] * rng.uniform(-2, 0.5)
    scene.paint(np.maximum(lumen, scene.zyx[1] - level), -900)
