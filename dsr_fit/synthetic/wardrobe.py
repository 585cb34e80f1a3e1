"""Random outfits: garments, their lengths, looseness and materials."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from dsr_fit.synthetic import regions
from dsr_fit.synthetic.regions import ANKLE, ELBOW, WRIST

KINDS: tuple[str, ...] = (
    "tight_top", "loose_top", "tight_trousers", "loose_trousers", "shorts", "skirt", "dress", "coat",
    "sleeveless", "short_sleeves", "long_sleeves", "short_hair", "big_hair", "long_hair", "hat", "shoes",
    "boots",
)  # fmt: skip


@dataclass(frozen=True)
class Top:
    """A top, or the upper part of a dress or coat."""

    label: str
    material: str
    sleeve_end: float  # |x| on the T-pose, metres
    hem: float  # height on the T-pose
    neck: tuple[float, float]  # depth in metres, V-ness 0..1
    looseness: float  # metres off the torso
    sleeve_looseness: float
    open_front: float = 0.0  # width of the gap in metres
    gathered: bool = False  # at the hem, under a waistband

    def inside(self, rest: np.ndarray) -> np.ndarray:
        """(N,) signed distance inside the outline, see `regions`."""
        return regions.top(rest, self.sleeve_end, self.hem, self.neck)


@dataclass(frozen=True)
class Trousers:
    material: str
    waist: float
    hem: float
    looseness: float  # at the thigh
    flare: float  # additional looseness at the hem

    def inside(self, rest: np.ndarray) -> np.ndarray:
        """(N,) signed distance inside the outline, see `regions`."""
        return regions.trousers(rest, self.waist, self.hem)


@dataclass(frozen=True)
class Skirt:
    """A skirt, or the lower part of a dress or coat."""

    label: str
    material: str
    waist: float
    hem: float
    looseness: float
    flare: float  # metres of radius per metre of length below the hips
    folds: int
    fold_depth: float  # metres at the hem
    open_front: float = 0.0


@dataclass(frozen=True)
class Hair:
    style: str  # bald, short, afro, bob, long, ponytail
    thickness: float
    length: float  # metres below the ears, of bob and long
    recede: float
    curl: float  # metres of locks


@dataclass(frozen=True)
class Outfit:
    top: Top
    top_tails: Skirt | None  # of a tunic or a long loose shirt
    trousers: Trousers | None
    skirt: Skirt | None
    coat: Top | None
    coat_tails: Skirt | None
    tucked: bool
    hair: Hair
    hat: str | None  # beanie, cap, brim
    shoe_height: float  # height on the T-pose
    socks: float | None  # height on the T-pose
    kinds: tuple[str, ...] = field(default=())


def random_outfit(rng: np.random.Generator, roomy: bool) -> Outfit:
    """A random outfit; without `roomy` (thighs lifted high) nothing that spans both legs."""
    kinds: set[str] = {"shoes"}
    lower = rng.choice(
        ["tight_trousers", "loose_trousers", "shorts", "skirt", "dress"],
        p=[0.23, 0.29, 0.12, 0.17, 0.19] if roomy else [0.35, 0.43, 0.22, 0.0, 0.0],
    )
    kinds.add(str(lower))
    loose = rng.uniform() < 0.6
    top_looseness = float(rng.uniform(0.025, 0.06) if loose else rng.uniform(0.005, 0.014))
    sleeves = rng.choice(["sleeveless", "short_sleeves", "long_sleeves"], p=[0.17, 0.43, 0.40])
    sleeve_end = {
        "sleeveless": rng.uniform(0.14, 0.165),
        "short_sleeves": rng.uniform(0.28, ELBOW - 0.01),
        "long_sleeves": rng.uniform(0.52, WRIST + 0.01) if rng.uniform() < 0.3 else WRIST + rng.uniform(-0.02, 0.02),
    }[str(sleeves)]
    neck = (float(rng.uniform(0.0, 0.12)), float(rng.uniform() < 0.35) * float(rng.uniform(0.5, 1.0)))
    if sleeves == "long_sleeves" and rng.uniform() < 0.25:
        neck = (-0.04, 0.0)  # a turtleneck
    top = Top(
        "upperclothes", "top", float(sleeve_end), float(rng.uniform(-0.055, 0.0)), neck, top_looseness,
        top_looseness * float(rng.uniform(0.5, 0.8)) if loose else top_looseness,
    )  # fmt: skip
    kinds |= {str(sleeves), "loose_top" if loose else "tight_top"}
    trousers = skirt = None
    if lower == "dress":
        top = Top("dress", "top", top.sleeve_end, 0.02, neck, min(top_looseness, 0.022), top.sleeve_looseness)
        kinds -= {"loose_top", "tight_top"}
        skirt = Skirt(
            "dress", "top", 0.075, float(rng.uniform(-0.75, -0.22)), top.looseness + 0.004,
            float(rng.uniform(0.02, 0.24)), int(rng.integers(5, 13)), float(rng.uniform(0.005, 0.03)),
        )  # fmt: skip
    elif lower == "skirt":
        skirt = Skirt(
            "skirt", "lower", float(rng.uniform(0.03, 0.08)), float(rng.uniform(-0.75, -0.2)), 0.012,
            float(rng.uniform(0.0, 0.25)), int(rng.integers(5, 14)), float(rng.uniform(0.004, 0.03)),
        )  # fmt: skip
    else:
        hem, looseness, flare = {
            "tight_trousers": (rng.uniform(ANKLE, -0.72), rng.uniform(0.004, 0.011), 0.004),
            "loose_trousers": (rng.uniform(ANKLE - 0.025, -0.78), rng.uniform(0.02, 0.05), rng.uniform(-0.005, 0.035)),
            "shorts": (rng.uniform(-0.42, -0.2), rng.uniform(0.008, 0.045), rng.uniform(0, 0.015)),
        }[str(lower)]
        trousers = Trousers("lower", float(rng.uniform(0.02, 0.075)), float(hem), float(looseness), float(flare))
    coat, tails = _coat(rng, top) if roomy and rng.uniform() < 0.2 else (None, None)
    if coat is not None:
        kinds.add("coat")
    hair = _hair(rng)
    kinds |= {"short": {"short_hair"}, "afro": {"big_hair"}, "bald": set()}.get(hair.style, {"long_hair"})
    hat = str(rng.choice(["beanie", "cap", "brim"])) if rng.uniform() < 0.2 else None
    if hat:
        kinds.add("hat")
    boots = rng.uniform() < 0.15 and (lower in ("skirt", "dress", "tight_trousers"))
    if boots:
        kinds.add("boots")
    tucked = bool(lower == "skirt" or (lower != "dress" and rng.uniform() < 0.25))
    if tucked:
        waist = skirt.waist if skirt else trousers.waist if trousers else 0.0
        top = replace(top, hem=waist - 0.025, gathered=True)
    elif trousers is not None:
        top = replace(top, hem=min(top.hem, trousers.waist - 0.045))
    tunic = trousers is not None and loose and roomy and not tucked and coat is None and rng.uniform() < 0.5
    top_tails = _tunic(rng, top) if tunic else None
    with_socks = not boots and lower != "dress" and rng.uniform() < 0.3
    socks = float(rng.uniform(-0.78, -0.5)) if with_socks else None
    return Outfit(
        top, top_tails, trousers, skirt, coat, tails,
        tucked=tucked,
        hair=hair,
        hat=hat,
        shoe_height=float(rng.uniform(-0.72, -0.52)) if boots else float(rng.uniform(-0.85, -0.81)),
        socks=socks,
        kinds=tuple(kind for kind in KINDS if kind in kinds),
    )  # fmt: skip


def _tunic(rng: np.random.Generator, top: Top) -> Skirt:
    return Skirt(
        top.label, top.material, top.hem + 0.05, float(rng.uniform(-0.26, -0.1)), top.looseness,
        float(rng.uniform(0.0, 0.12)), int(rng.integers(4, 9)), float(rng.uniform(0.002, 0.012)),
    )  # fmt: skip


def _coat(rng: np.random.Generator, under: Top) -> tuple[Top, Skirt]:
    looseness = max(under.looseness, under.sleeve_looseness) + float(rng.uniform(0.012, 0.03))
    gap = float(rng.choice([0.0, 0.05, 0.10, 0.15]))
    neck = (float(rng.uniform(0.06, 0.16)), 1.0)
    sleeve_end = WRIST + float(rng.uniform(-0.02, 0.015))
    coat = Top("coat", "coat", sleeve_end, -0.02, neck, looseness, looseness * 0.8, gap)
    tails = Skirt(
        "coat", "coat", 0.05, float(rng.uniform(-0.62, -0.2)), looseness + 0.004,
        float(rng.uniform(0.02, 0.14)), int(rng.integers(4, 8)), float(rng.uniform(0.004, 0.018)), gap,
    )  # fmt: skip
    return coat, tails


def _hair(rng: np.random.Generator) -> Hair:
    style = str(rng.choice(["bald", "short", "afro", "bob", "long", "ponytail"], p=[0.06, 0.4, 0.1, 0.14, 0.2, 0.1]))
    thickness = {
        "bald": 0.0,
        "short": rng.uniform(0.006, 0.03),
        "afro": rng.uniform(0.04, 0.075),
        "ponytail": rng.uniform(0.008, 0.016),
    }.get(style, rng.uniform(0.015, 0.035))
    return Hair(
        style,
        float(thickness),
        float(rng.uniform(0.0, 0.08) if style == "bob" else rng.uniform(0.12, 0.35)),
        float(rng.uniform(-0.012, 0.02)),
        float(rng.uniform(0.001, 0.006)),
    )
