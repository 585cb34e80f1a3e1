"""Put an outfit on a wearer, layer by layer, and choose what it is made of."""

from __future__ import annotations

import numpy as np

from dsr_fit.synthetic import extras, garments, paint, regions
from dsr_fit.synthetic.garments import Piece
from dsr_fit.synthetic.render import Look
from dsr_fit.synthetic.wardrobe import Outfit, Top
from dsr_fit.synthetic.wearer import Wearer

BURIED = 0.03  # metres inside a garment's outline, beyond which the skin below can't be seen


def pieces_of(wearer: Wearer, outfit: Outfit, rng: np.random.Generator) -> list[Piece]:
    """The surfaces of a dressed person, skin first."""
    bare = wearer.vertices
    worn: list[Piece] = []
    if outfit.socks is not None and (outfit.trousers is None or outfit.trousers.hem > outfit.socks):
        worn.append(extras.socks(wearer, outfit.socks, outfit.shoe_height))
    boots = outfit.shoe_height > -0.8
    if not boots:
        worn.append(extras.shoes(wearer, outfit))
    if outfit.tucked:
        worn.append(garments.top(wearer, outfit.top, rng))
    if outfit.trousers is not None:
        worn.append(garments.trousers(wearer, outfit.trousers, rng))
    if not outfit.tucked:
        worn.append(garments.top(wearer, outfit.top, rng))
    if boots:
        worn.append(extras.shoes(wearer, outfit))
    if outfit.top_tails is not None:
        worn.append(garments.skirt(wearer, outfit.top_tails, rng, name="top_tails"))
    if outfit.skirt is not None:
        worn.append(garments.skirt(wearer, outfit.skirt, rng))
    if outfit.coat is not None and outfit.coat_tails is not None:
        worn.append(garments.top(wearer, outfit.coat, rng, name="coat"))
        worn.append(garments.skirt(wearer, outfit.coat_tails, rng, name="tails"))
    worn += extras.hair(wearer, outfit.hair, outfit.hat, rng)
    if outfit.hat is not None:
        over_hair = min(outfit.hair.thickness, 0.02)
        worn += extras.hat(wearer, outfit.hat, over_hair, rng)

    surface = wearer.surface
    faces = surface.faces[~_buried(surface.rest, outfit)[surface.faces].all(1)]
    skin = Piece("skin", "skin", None, bare, faces, surface.rest, np.zeros((len(bare), 2)))
    return [skin, *worn]


def _buried(rest: np.ndarray, outfit: Outfit) -> np.ndarray:
    """(V,) bool: skin so far under a closed garment that nothing of it is seen."""

    def under(spec: Top) -> np.ndarray:
        return regions.top(rest, spec.sleeve_end, spec.hem, spec.neck)

    depth = under(outfit.top)
    if outfit.trousers is not None:
        depth = np.maximum(depth, regions.trousers(rest, outfit.trousers.waist, outfit.trousers.hem))
    depth = np.maximum(depth, regions.shoes(rest, outfit.shoe_height) + BURIED - 0.02)
    return depth > BURIED


def look_of(rng: np.random.Generator) -> Look:
    """Materials and skin of one person."""
    skin, hair_tone = paint.random_skin(rng)
    patterns = {
        "top": rng.choice(paint.PATTERNS, p=[0.36, 0.18, 0.12, 0.14, 0.12, 0.08]),
        "lower": rng.choice(paint.PATTERNS, p=[0.45, 0.06, 0.08, 0.31, 0.06, 0.04]),
        "coat": rng.choice(paint.PATTERNS, p=[0.5, 0.0, 0.15, 0.35, 0.0, 0.0]),
        "hat": rng.choice(paint.PATTERNS, p=[0.6, 0.1, 0.1, 0.2, 0.0, 0.0]),
        "socks": rng.choice(paint.PATTERNS, p=[0.6, 0.3, 0.0, 0.1, 0.0, 0.0]),
    }
    materials = {name: paint.cloth(rng, str(pattern)) for name, pattern in patterns.items()}
    materials["shoes"] = paint.plain(paint.garment_colour(rng), float(rng.uniform(0.05, 0.35)), rng)
    materials["hair"] = paint.strands(rng, hair_tone)
    return Look(materials, skin)


def occluder_look(rng: np.random.Generator) -> Look:
    pattern = str(rng.choice(paint.PATTERNS, p=[0.4, 0.15, 0.1, 0.25, 0.05, 0.05]))
    green = np.array([58.0, 104.0, 46.0]) + rng.normal(0, 14, 3)
    return Look({"occluder": paint.cloth(rng, pattern), "leaves": paint.plain(green, 0.15, rng, 9.0)}, None)
