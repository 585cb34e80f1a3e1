"""Random cluttered backgrounds: a wall and a floor behind the person, with a shadow."""

from __future__ import annotations

import cv2
import numpy as np

from dsr_fit.synthetic.paint import garment_colour
from dsr_fit.synthetic.shading import ShadowMap, lit
from dsr_fit.synthetic.staging import Camera

CANVAS = (640, 1280)  # rows, columns of a painted wall


def cloud(rng: np.random.Generator, shape: tuple[int, int], slope: float = 1.6) -> np.ndarray:
    """Smooth noise (H, W) float32 with a 1/f spectrum, zero mean and unit standard deviation."""
    height, width = shape
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    power = 1 / np.maximum(np.hypot(fy * height / 64, fx * width / 64), 0.02) ** slope
    power[0, 0] = 0
    noise = np.fft.irfft2(power * np.exp(2j * np.pi * rng.uniform(size=power.shape)), shape)
    return (noise / noise.std()).astype(np.float32)


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    r, g, b = (garment_colour(rng) * rng.uniform(0.6, 1.0)).clip(0, 255).tolist()
    return r, g, b


def _rectangle(canvas: np.ndarray, left: float, top: float, width: float, height: float, colour, thick=-1) -> None:
    corners = (int(left), int(top)), (int(left + width), int(top + height))
    cv2.rectangle(canvas, *corners, colour, thick, cv2.LINE_AA)


def _room(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Pictures, a window, furniture against a papered wall."""
    rows, columns = canvas.shape[:2]
    canvas[:] = np.array(_colour(rng)) * 0.4 + rng.uniform(90, 140)
    if rng.uniform() < 0.4:
        stripe = int(rng.integers(12, 50))
        canvas[:, (np.arange(columns) // stripe) % 2 == 0] *= rng.uniform(0.85, 0.95)
    for _ in range(int(rng.integers(3, 9))):
        w, h = rng.uniform(50, 190), rng.uniform(60, 190)
        x, y = rng.uniform(0, columns - w), rng.uniform(30, rows * 0.55)
        if rng.uniform() < 0.3:
            _rectangle(canvas, x, y, w, h * 1.4, (215.0, 228.0, 240.0))
            _rectangle(canvas, x + 0.5 * w - 3, y, 6, h * 1.4, (240.0, 240.0, 238.0))
            _rectangle(canvas, x, y, w, h * 1.4, (240.0, 240.0, 236.0), 7)
        else:
            _rectangle(canvas, x, y, w, h, _colour(rng))
            for _ in range(4):
                centre = int(x + rng.uniform(0.2, 0.8) * w), int(y + rng.uniform(0.2, 0.8) * h)
                cv2.circle(canvas, centre, int(rng.uniform(0.05, 0.2) * min(w, h)), _colour(rng), -1, cv2.LINE_AA)
            _rectangle(canvas, x, y, w, h, _colour(rng), int(rng.integers(3, 9)))
    for _ in range(int(rng.integers(1, 5))):
        w, h = rng.uniform(80, 320), rng.uniform(70, 330)
        x = rng.uniform(-40, columns - 40)
        colour = np.array(_colour(rng))
        _rectangle(canvas, x, rows - h, w, h, colour.tolist())
        for k in range(int(rng.integers(1, 5))):
            _rectangle(canvas, x + 6, rows - h + 8 + k * 60, w - 12, 50, (colour * 0.8).tolist(), 3)
    _rectangle(canvas, 0, rows - 12, columns, 12, (226.0, 224.0, 218.0))


def _shelves(rng: np.random.Generator, canvas: np.ndarray) -> None:
    rows, columns = canvas.shape[:2]
    wood = np.array(_colour(rng)) * 0.5 + 50
    canvas[:] = wood * 0.5
    step = int(rng.integers(60, 110))
    for y in range(0, rows, step):
        x = 0.0
        while x < columns:
            w, h = rng.uniform(7, 40), rng.uniform(0.5, 0.9) * step
            if rng.uniform() < 0.85:
                _rectangle(canvas, x, y + step - h - 8, w, h, _colour(rng))
            x += w + rng.uniform(0, 5)
        _rectangle(canvas, 0, y + step - 8, columns, 8, wood.tolist())


def _street(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """House fronts under a sky, parked cars in front."""
    rows, columns = canvas.shape[:2]
    shade = np.linspace(1, 0, rows)[:, None, None]
    canvas[:] = shade * np.array([140.0, 175.0, 220.0]) + (1 - shade) * np.array([222.0, 226.0, 230.0])
    x = -50.0
    while x < columns:
        w, h = rng.uniform(120, 340), rng.uniform(0.55, 1.2) * rows
        wall = np.array(_colour(rng)) * 0.6 + 60
        _rectangle(canvas, x, rows - h, w, h, wall.tolist())
        dx, dy = rng.uniform(34, 70), rng.uniform(50, 90)
        pane = _colour(rng) if rng.uniform() < 0.3 else (70.0, 84.0, 100.0)
        for wy in np.arange(rows - h + 18, rows - 70, dy):
            for wx in np.arange(x + 12, x + w - dx * 0.6, dx):
                _rectangle(canvas, wx, wy, dx * 0.55, dy * 0.6, pane)
                _rectangle(canvas, wx, wy, dx * 0.55, dy * 0.6, (wall * 1.15).clip(0, 255).tolist(), 2)
        _rectangle(canvas, x, rows - 58, w, 58, _colour(rng))
        x += w
    for _ in range(int(rng.integers(1, 5))):
        cx, w = rng.uniform(0, columns), rng.uniform(110, 190)
        colour = _colour(rng)
        roof = (int(cx), rows - 40), (int(w * 0.32), 34)
        cv2.ellipse(canvas, *roof, 0, 180, 360, (50.0, 60.0, 70.0), -1, cv2.LINE_AA)
        _rectangle(canvas, cx - w / 2, rows - 44, w, 32, colour)
        for side in (-0.3, 0.3):
            cv2.circle(canvas, (int(cx + side * w), rows - 12), 13, (25.0, 25.0, 28.0), -1, cv2.LINE_AA)


def _park(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Foliage of leaf-sized dabs, trunks, a strip of sky."""
    rows, columns = canvas.shape[:2]
    shade = np.linspace(1, 0, rows)[:, None, None]
    canvas[:] = shade * np.array([150.0, 185.0, 222.0]) + (1 - shade) * np.array([205.0, 215.0, 205.0])
    leaves = cloud(rng, (rows, columns), 1.0)
    mass = cloud(rng, (rows, columns), 2.2)
    green = np.array([62.0, 96.0, 44.0]) + rng.normal(0, 16, 3)
    height = np.linspace(1, 0, rows)[:, None]
    where = (mass * 0.45 + 0.35 - 0.9 * (height - 0.45) + 0.2 * leaves) > 0
    canvas[where] = (green * (1 + 0.38 * leaves[..., None]).clip(0.25, 2.2))[where]
    for _ in range(int(rng.integers(2, 8))):
        x, w = rng.uniform(0, columns), rng.uniform(6, 34)
        bark = np.array([74.0, 60.0, 48.0]) * rng.uniform(0.6, 1.3)
        points = np.array([[x, rows], [x + w, rows], [x + w * 0.8 + rng.uniform(-20, 20), 0], [x + w * 0.3, 0]])
        cv2.fillPoly(canvas, [points.astype(np.int32)], bark.tolist(), cv2.LINE_AA)


def _studio(rng: np.random.Generator, canvas: np.ndarray) -> None:
    canvas[:] = np.array(_colour(rng)) * 0.3 + rng.uniform(110, 170)
    canvas += 6 * cloud(rng, CANVAS, 2.4)[..., None]


def _clutter(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Overlapping shapes of all sizes, like a shop window or a crowded desk."""
    rows, columns = canvas.shape[:2]
    canvas[:] = _colour(rng)
    for k in range(150):
        size = 190 * 0.975**k + 8
        x, y = rng.uniform(0, columns), rng.uniform(0, rows)
        w, h = size * rng.uniform(0.3, 1.2, 2)
        kind = rng.integers(0, 3)
        if kind == 0:
            place = (int(x), int(y)), (int(w / 2), int(h / 2)), rng.uniform(0, 180)
            cv2.ellipse(canvas, *place, 0, 360, _colour(rng), -1, cv2.LINE_AA)
        else:
            box = cv2.boxPoints(((x, y), (w, h), rng.normal(0, 8) if kind == 1 else rng.uniform(0, 90)))
            cv2.fillPoly(canvas, [box.astype(np.int32)], _colour(rng), cv2.LINE_AA)


_PAINTERS = {
    "room": (_room, 0.22), "shelves": (_shelves, 0.14), "street": (_street, 0.2), "park": (_park, 0.16),
    "studio": (_studio, 0.12), "clutter": (_clutter, 0.16),
}  # fmt: skip
"""Kind -> its painter and its probability."""


def _floor_tile(rng: np.random.Generator, kind: str) -> np.ndarray:
    """(512, 512, 3) float32, four metres of floor."""
    base = np.array(_colour(rng)) * 0.35 + rng.uniform(60, 130)
    if kind == "park":
        base = np.array([92.0, 118.0, 62.0]) + rng.normal(0, 12, 3)
    elif kind == "street":
        base = np.full(3, rng.uniform(90, 160))
    grain = cloud(rng, (512, 512), 0.9)
    tile = base * (1 + rng.uniform(0.04, 0.16) * grain[..., None])
    style = rng.integers(0, 3)
    if kind != "park" and style == 0:
        step = int(rng.choice([32, 64, 128]))
        tile[::step] *= 0.72
        tile[:, ::step] *= 0.72
    elif kind != "park" and style == 1:
        board = (np.arange(512) // 24)[:, None]
        tile *= (0.86 + 0.28 * np.random.default_rng(int(board[-1, 0])).uniform(size=(22, 1)))[board]
        tile[::24] *= 0.7
    return tile.clip(0, 255).astype(np.float32)


def paint_backdrop(
    camera: Camera, rng: np.random.Generator, shadow: ShadowMap, key_share: float, tall: float = 0.0
) -> tuple[np.ndarray, str]:
    """Background (H, W, 3) float32, 0..255, and its kind. `key_share` 0..1 is the strength of the floor's shadow; the
    wall is at least `tall`, metres."""
    kind = str(rng.choice(list(_PAINTERS), p=[share for _, share in _PAINTERS.values()]))
    canvas = np.zeros((*CANVAS, 3), np.float32)
    _PAINTERS[kind][0](rng, canvas)
    canvas += 2.5 * cloud(rng, (CANVAS[0] // 2, CANVAS[1] // 2), 0.8).repeat(2, 0).repeat(2, 1)[..., None]
    far = float(rng.uniform(4, 14) if kind in ("street", "park") else rng.uniform(1.0, 3.5))
    tall = max(tall, float(rng.uniform(5, 10) if kind in ("street", "park") else rng.uniform(2.6, 4.5)))

    step = 2
    rays = camera.rays(step)
    up, ahead = camera.rotation[:, 1], -camera.rotation[:, 2]
    right = camera.rotation[:, 0]
    turn = rng.normal(0, 0.3)
    normal = np.cos(turn) * ahead + np.sin(turn) * right
    across = np.cos(turn) * right - np.sin(turn) * ahead
    wall_distance = float(camera.floor @ normal) + far
    towards = rays @ normal
    t_wall = np.where(towards > 1e-3, wall_distance / np.maximum(towards, 1e-3), 1e3)
    sinking = -(rays @ up)
    t_floor = np.where(sinking > 1e-4, -(camera.floor @ up) / np.maximum(sinking, 1e-4), 1e3)
    on_floor = t_floor < t_wall

    wall = rays * t_wall[..., None] - camera.floor
    scale = CANVAS[0] / tall
    column = ((wall @ across) * scale + CANVAS[1] * rng.uniform(0.3, 0.7)).astype(np.float32)
    row = (CANVAS[0] - (wall @ up) * scale).astype(np.float32)
    picture = cv2.remap(canvas, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    floor = rays * np.minimum(t_floor, 60)[..., None] - camera.floor
    tile = _floor_tile(rng, kind)
    fx, fz = (floor @ across) * 128, (floor @ normal) * 128
    ground = tile[fz.astype(int) % 512, fx.astype(int) % 512]
    light = 1 - key_share * (1 - lit((floor + camera.floor).reshape(-1, 3), shadow, 5, 0.02).reshape(t_floor.shape))
    contact = np.exp(-np.maximum((floor**2).sum(-1), 0) / 0.25)
    ground = ground * (light * (1 - 0.25 * contact))[..., None]
    picture[on_floor] = ground[on_floor]
    picture *= np.float32(rng.uniform(0.75, 1.1))

    blur = float(rng.choice([0.0, 0.7, 1.6, 3.0], p=[0.3, 0.3, 0.25, 0.15]))
    picture = cv2.resize(picture, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
    if blur:
        picture = cv2.GaussianBlur(picture, (0, 0), blur)
    return picture, kind
