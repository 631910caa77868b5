"""Published classes and colours of data sets that do not use Cityscapes' 19. Data only."""

from __future__ import annotations

Colour = tuple[int, int, int]

# Chen et al.: No more discrimination: cross city adaptation of road scene segmenters, ICCV 2017.
# Ids in the order of LADD's table (src/dataset/target/crosscity.py).
CROSSCITY_CLASSES = (
    "road", "sidewalk", "building", "traffic light", "traffic sign", "vegetation", "sky",
    "person", "rider", "car", "bus", "motorcycle", "bicycle",
)  # fmt: skip

# FedDrive's 16 classes of IDDA (src/dataset/idda.py). Like Cityscapes up to car; trucks, buses
# and trains are not in it.
IDDA_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "motorcycle", "bicycle",
)  # fmt: skip

# Level-3 classes of IDD by id, from AutoNUE's helpers/anue_labels.py; each has the name and the
# colour of its first member or, if only one member is evaluated, of that one.
IDD_LEVEL_3: dict[str, Colour] = {
    "road": (128, 64, 128),
    "drivable fallback": (81, 0, 81),  # parking too
    "sidewalk": (244, 35, 232),
    "non-drivable fallback": (152, 251, 152),  # rail tracks too
    "person": (220, 20, 60),  # animals too
    "rider": (255, 0, 0),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
    "autorickshaw": (255, 204, 54),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "vehicle fallback": (136, 143, 153),  # caravans, trailers and trains too
    "curb": (220, 190, 40),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "guard rail": (180, 165, 180),
    "billboard": (174, 64, 67),
    "traffic sign": (220, 220, 0),
    "traffic light": (250, 170, 30),
    "pole": (153, 153, 153),  # groups of poles too
    "obs-str-bar-fallback": (169, 187, 214),
    "building": (70, 70, 70),
    "bridge": (150, 100, 100),  # tunnels too
    "vegetation": (107, 142, 35),
    "sky": (70, 130, 180),  # fallback background too
}

# The 38 classes of A2D2 and the 55 colours of its class_list.json: touching instances have
# different colours, "Car 1" to "Car 4".
A2D2_COLOURS: dict[str, tuple[Colour, ...]] = {
    "Car": ((255, 0, 0), (200, 0, 0), (150, 0, 0), (128, 0, 0)),
    "Bicycle": ((182, 89, 6), (150, 50, 4), (90, 30, 1), (90, 30, 30)),
    "Pedestrian": ((204, 153, 255), (189, 73, 155), (239, 89, 191)),
    "Truck": ((255, 128, 0), (200, 128, 0), (150, 128, 0)),
    "Small vehicles": ((0, 255, 0), (0, 200, 0), (0, 150, 0)),
    "Traffic signal": ((0, 128, 255), (30, 28, 158), (60, 28, 100)),
    "Traffic sign": ((0, 255, 255), (30, 220, 220), (60, 157, 199)),
    "Utility vehicle": ((255, 255, 0), (255, 255, 200)),
    "Sidebars": ((233, 100, 0),),
    "Speed bumper": ((110, 110, 0),),
    "Curbstone": ((128, 128, 0),),
    "Solid line": ((255, 193, 37),),
    "Irrelevant signs": ((64, 0, 64),),
    "Road blocks": ((185, 122, 87),),
    "Tractor": ((0, 0, 100),),
    "Non-drivable street": ((139, 99, 108),),
    "Zebra crossing": ((210, 50, 115),),
    "Obstacles / trash": ((255, 0, 128),),
    "Poles": ((255, 246, 143),),
    "RD restricted area": ((150, 0, 150),),
    "Animals": ((204, 255, 153),),
    "Grid structure": ((238, 162, 173),),
    "Signal corpus": ((33, 44, 177),),
    "Drivable cobblestone": ((180, 50, 180),),
    "Electronic traffic": ((255, 70, 185),),
    "Slow drive area": ((238, 233, 191),),
    "Nature object": ((147, 253, 194),),
    "Parking area": ((150, 150, 200),),
    "Sidewalk": ((180, 150, 200),),
    "Ego car": ((72, 209, 204),),
    "Painted driv. instr.": ((200, 125, 210),),
    "Traffic guide obj.": ((159, 121, 238),),
    "Dashed line": ((128, 0, 255),),
    "RD normal street": ((255, 0, 255),),
    "Sky": ((135, 206, 255),),
    "Buildings": ((241, 230, 255),),
    "Blurred area": ((96, 69, 143),),
    "Rain dirt": ((53, 46, 82),),
}
