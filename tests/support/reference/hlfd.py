"""The four terms of HLFD (Eq. 1-4)."""

from dataclasses import dataclass

from reference.attention import attention_distance, attention_map, concatenated_energy, energy, mean_attention
from reference.divergence import kl_divergence, probabilities
from reference.grids import resize, valid_cells


@dataclass
class Teacher:
    """Encoder maps and logits, highest resolution first, and which stages and outputs teach."""

    features: list
    logits: list
    mids: tuple
    late: int
    heads: tuple


def feature_terms(features, early, mids, teachers, exponent):
    """UFD (Eq. 1) and IFD (Eq. 2) of a student whose roles are `early` and `mids`."""
    mid_energies = [concatenated_energy([each.features[i] for i in each.mids], exponent) for each in teachers]
    late_energies = [
        energy(each.features[each.late], each.features[each.late].shape[2:], exponent) for each in teachers
    ]
    teacher_mid = mean_attention([attention_map(each) for each in mid_energies])
    teacher_late = mean_attention([attention_map(each) for each in late_energies])
    early_map = attention_map(energy(features[early], mid_energies[0].shape[1:], exponent))
    ufd = attention_distance(early_map, teacher_mid)
    ifd = 0.0
    for stage in mids:
        stage_map = attention_map(energy(features[stage], late_energies[0].shape[1:], exponent))
        ifd += attention_distance(stage_map, teacher_late)
    return {"ufd": ufd, "ifd": ifd}


def pixel_terms(maps, teachers, temperature, regions, pixel_grid, ignored=None):
    """UPD (Eq. 3) and IPD (Eq. 4) of the student's pixel logits `maps`, deepest (early) first, then the mids.

    `ignored`: (B, 1, *image) where the divergence leaves voxels out.
    """
    middle = []
    for each in teachers:
        heads = [probabilities(each.logits[i], temperature, regions) for i in (each.heads if each.heads else [0])]
        smallest = [min(extents) for extents in zip(*(head.shape[2:] for head in heads), strict=True)]
        middle.append(sum(resize(head, smallest) for head in heads) / len(heads))
    p_mid = sum(middle) / len(teachers)
    p_late = sum(probabilities(each.logits[0], temperature, regions) for each in teachers) / len(teachers)

    def divergence(logits, p):
        valid = None if ignored is None else valid_cells(ignored, p.shape[2:])
        return kl_divergence(logits, p, temperature, regions, valid)

    upd = divergence(resize(maps[0], p_mid.shape[2:]), p_mid)
    if pixel_grid == "image":
        single = [divergence(resize(each, p_late.shape[2:]), p_late) for each in maps[1:]]
    else:
        single = [divergence(each, resize(p_late, each.shape[2:])) for each in maps[1:]]
    return {"upd": upd, "ipd": sum(single) / len(single)}
