"""Paint one frame: lay the ground, draw all things far to near, add colour, light and weather."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fleetseg.data.labels import IGNORE
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.data.synthetic import furniture, ground, houses, people, surfaces, vehicles, weather
from fleetseg.data.synthetic import materials as m
from fleetseg.data.synthetic.canvas import Canvas, Floats, Style, View
from fleetseg.data.synthetic.cities import CITIES, City
from fleetseg.data.synthetic.street import BLOCK_M, Drive, Thing, crossing_m
from fleetseg.data.synthetic.surfaces_ground import ground_colour
from fleetseg.data.synthetic.traffic import scene
from fleetseg.data.weather.noise import smooth
from fleetseg.data.weather.physics import veil

STEP_M = 4.5
"""Metres that the ego car moves between two frames."""
STEP_S = 0.8
"""Seconds between two frames."""

Draw = Callable[[Canvas, Thing, City, bool], None]
DRAW: dict[str, Draw] = {
    "house": houses.house,
    "round": furniture.leafy,
    "birch": furniture.leafy,
    "poplar": furniture.leafy,
    "palm": furniture.palm,
    "bush": furniture.bush,
    "fence": furniture.fence,
    "hedge": furniture.fence,
    "lamp": furniture.lamp,
    "sign": furniture.sign,
    "light": furniture.light,
    "bin": furniture.litter_bin,
    "car": vehicles.car,
    "pedestrian": people.pedestrian,
    "bicyclist": people.bicyclist,
}


@dataclass(frozen=True)
class Painting:
    """One frame with what it was made from; ids give the surface of each pixel."""

    image_HWC: Image_HWC
    label_HW: Label_HW
    depth_HW: Floats  # metres; 1000 for the sky
    ids_HW: npt.NDArray[np.int32]


def paint_frame(
    drive: Drive, frame: int, size_hw: tuple[int, int], *, flat: bool = False
) -> Painting:
    """Paint a frame of a drive; `flat` leaves out light, weather and lens (for tests)."""
    city, air = CITIES[drive.city], weather.CONDITIONS[drive.condition]
    view = _view(drive, city, frame, size_hw)
    first = math.floor(view.z_m / BLOCK_M) - 1
    crossings = tuple(crossing_m(drive, first + i) for i in range(5))
    floor = ground.lay(view, city, crossings)
    canvas, things = _draw(drive, city, view, floor, frame, air)
    objects = surfaces.paint_objects(canvas, air.night)
    height, width = size_hw
    label_HW = np.array(ground.GROUND_LABELS, dtype=np.uint8)[np.minimum(canvas.ids_HW, 3)]
    label_HW.reshape(-1)[objects.index_P] = objects.labels_P
    inverse_HW = np.full(size_hw, 1e-3, dtype=np.float32)
    inverse_HW[floor.top :] = 1.0 / floor.depth_GW
    inverse_HW.reshape(-1)[objects.index_P] = objects.inverse_P
    picture = np.empty((height, width, 3), dtype=np.float32)
    picture[: floor.top] = weather.sky(view, air, floor.top, 3.0 * frame)
    picture[floor.top :] = ground_colour(canvas, floor, city, crossings, air, things)
    picture.reshape(-1, 3)[objects.index_P] = objects.colour_P3
    glow_HW = np.zeros(size_hw, dtype=np.float32)
    glow_HW.reshape(-1)[objects.index_P] = objects.glow_P
    if not flat:
        rng = drive.generator(f"lens {height}x{width}", frame)
        picture = _expose(canvas, picture, glow_HW, inverse_HW, floor, air, things, rng)
        picture = weather.lens(picture, air, city.tint, rng)
    else:
        picture = picture * np.float32(255)
    image_HWC = np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)
    return Painting(image_HWC, label_HW, 1.0 / inverse_HW, canvas.ids_HW)


def _view(drive: Drive, city: City, frame: int, size_hw: tuple[int, int]) -> View:
    """Return the ego car's view: its camera mount is fixed per drive and sways with each frame."""
    height, width = size_hw
    fixed = drive.generator("camera")
    amplitude, wavelength, phase = (float(fixed.random()) for _ in range(3))
    start, zoom, tilt, aim = (float(fixed.random()) for _ in range(4))
    sway = drive.generator("sway", frame)
    side_m, nod, turn = (2.0 * float(sway.random()) - 1.0 for _ in range(3))
    lane = city.side * (city.lanes - 0.5) * city.lane_m
    return View(
        size_hw=size_hw,
        focal_px=width * (0.78 + 0.16 * zoom),
        centre_px=width / 2 - 0.5,
        horizon_px=height * (0.44 + 0.09 * tilt + 0.008 * nod),
        mount_m=city.mount_m,
        s_m=lane + 0.25 * side_m,
        z_m=1000.0 * start + STEP_M * frame,
        yaw=0.10 * (aim - 0.5) + 0.03 * turn,
        bend=(1.0 + 3.5 * amplitude, 160.0 + 160.0 * wavelength, 6.28 * phase),
    )


def _draw(
    drive: Drive, city: City, view: View, floor: ground.Ground, frame: int, air: weather.Weather
) -> tuple[Canvas, list[Thing]]:
    sun = 1.0 if drive.generator("sun").random() < 0.5 else -1.0
    canvas = Canvas(view, floor.ids_HW, (0.85 * sun, -0.53), air.sun)
    furniture.skyline(canvas, city, drive.generator("skyline"))
    things = scene(drive, view.z_m, STEP_S * frame)
    # Houses stand behind everything on the street beside them, so sort them by their far end.
    things.sort(key=lambda t: (-(t.z_m + t.length_m if t.kind == "house" else t.z_m), t.s_m))
    for thing in things:
        DRAW[thing.kind](
            canvas, thing, city, air.night > 0.4 or (air.night > 0 and thing.kind == "car")
        )
    if city.bonnet:
        _bonnet(canvas)
    return canvas, things


def _bonnet(canvas: Canvas) -> None:
    """Draw the ego car's bonnet along the lower edge, as void."""
    height, width = canvas.view.size_hw
    low, high = height + 2.0, height * 0.93
    points = [(width * 0.06, low), (width * 0.16, height * 0.965), (width * 0.34, high + 1)]
    points += [(width * 0.5, high), (width * 0.66, high + 1), (width * 0.84, height * 0.965)]
    points.append((width * 0.94, low))
    colour = (0.13, 0.14, 0.16)
    canvas.fill(points, (0.0, 0.7, 0.004, 0.0), Style(IGNORE, m.BODY, colour), 1.0)


def _expose(
    canvas: Canvas, picture: Floats, glow_HW: Floats, inverse_HW: Floats, floor: ground.Ground,
    air: weather.Weather, things: list[Thing], rng: np.random.Generator,
) -> Floats:  # fmt: skip
    """Add light, wetness, fog, halos and rain to the coloured picture."""
    is_sky = canvas.ids_HW == ground.SKY
    glow_HW[is_sky] = 1.0  # the sky is self-luminous
    light = weather.light(canvas.view, air, inverse_HW, _lamp_places(canvas, air, things))
    picture *= light + (1.0 - light) * glow_HW[:, :, None]
    if air.wet:
        wet, standing = _wetness(canvas, floor, air)
        picture = weather.reflections(picture, wet, standing, floor.top)
    clear = weather.clearness(air, inverse_HW)
    clear[is_sky] = 1.0
    fog = np.array(air.fog, dtype=np.float32)
    veil(picture, clear[:, :, None], fog)
    weather.halos(canvas, picture, inverse_HW, air)
    weather.streaks(picture, air, rng)
    return picture


def _lamp_places(
    canvas: Canvas, air: weather.Weather, things: list[Thing]
) -> list[tuple[float, float, float]]:
    """Return positions of lit street lamps near the camera: (x, y, z) in camera coordinates."""
    places: list[tuple[float, float, float]] = []
    for thing in reversed(things if air.night >= 0.4 else []):  # near ones first
        if thing.kind == "lamp" and len(places) < 8 and thing.z_m < canvas.view.z_m + 75:
            x, z = canvas.place(thing.s_m, thing.z_m)
            inward = -1.3 if thing.s_m > 0 else 1.3
            places.append((x + inward, thing.height_m, z))
    return places


def _wetness(
    canvas: Canvas, floor: ground.Ground, air: weather.Weather
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return each pixel's reflection strength, and which pixels stand above the wet ground."""
    share = np.array([0.0, air.wet, 0.55 * air.wet, 0.0, 0.0], dtype=np.float32)
    ids = np.minimum(canvas.ids_HW, canvas.first_id)
    wet: Floats = share[ids]
    puddles = smooth(floor.s_GW * 6 + 512, floor.z_GW * 3 + 512)
    wet[floor.top :] *= 0.75 + 0.5 * puddles
    return wet, share[ids] == 0
