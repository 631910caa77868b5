"""Which classes an experiment learns: a built-in label space, or one of the user's own."""

from __future__ import annotations

from pathlib import Path

from fleetseg.config import DataConfig, SourceConfig
from fleetseg.data.labels import IGNORE, LABEL_SPACES, Colour, LabelSpace, label_space
from fleetseg.data.sources import folder
from fleetseg.errors import ConfigError, unknown_name
from fleetseg.experiment_file import toml_value

OWN = "own"
"""Value of data.label_space for the classes named in the sources' own classes.toml."""


def open_space(data: DataConfig) -> LabelSpace:
    """Return the label space that data.label_space names.

    The option is the name of a built-in space, "own", or the path of a classes.toml (any name that
    ends in .toml).

    Raises:
        ConfigError: an unknown name, or "own" when the sources have no or different classes.
        DataError: a classes.toml is missing or invalid.
    """
    name = data.label_space
    if name == OWN:
        return _of_sources([*data.sources, *data.evaluation])
    if name.endswith(".toml"):
        return folder.read_space(Path(name))
    if name not in LABEL_SPACES:
        choices = [*LABEL_SPACES, OWN, "<path of a classes.toml>"]
        raise unknown_name("label space", name, choices, where="data.label_space")
    return label_space(name)


def space_toml(space: LabelSpace) -> str:
    """Return a label space as the text of a classes.toml."""
    lines = {
        "name": space.name,
        "classes": list(space.classes),
        "colours": [list(colour) for colour in space.colours],
        "critical": list(space.critical),
    }
    return "".join(f"{key} = {toml_value(value)}\n" for key, value in lines.items())


def is_built_in(space: LabelSpace) -> bool:
    """Return whether a label space is built in, so that every installation knows its name."""
    return LABEL_SPACES.get(space.name) == space


def checked_space(space: LabelSpace) -> LabelSpace:
    """Return a user's label space with its lists converted to tuples.

    Raises:
        ConfigError: the space is invalid or inconsistent.
    """
    if not isinstance(space, LabelSpace):
        raise ConfigError("space= takes a LabelSpace", got=type(space).__name__)
    where = f"label space '{space.name}'"
    if isinstance(space.classes, str) or isinstance(space.critical, str):
        cure, got = "Write a single name as a tuple: ('road',)", space.classes
        raise ConfigError("a string instead of a list of names", where=where, got=got, cure=cure)
    classes, critical = tuple(space.classes), tuple(space.critical)
    if odd := [c for c in classes if not (isinstance(c, str) and c.strip())]:
        wanted = "text that is not blank"
        raise ConfigError(
            "unusable name of a class", where=where, got=repr(odd[0]), expected=wanted
        )
    colours = _colours(space, where)
    if not 0 < len(classes) <= IGNORE or len(set(classes)) != len(classes):
        wanted = f"1 to {IGNORE} distinct names"
        raise ConfigError("unusable classes", where=where, got=classes[:8], expected=wanted)
    if len(colours) != len(classes):
        got, wanted = f"{len(colours)} colours", f"one for each of {len(classes)} classes"
        raise ConfigError(
            "colours and classes differ in number", where=where, got=got, expected=wanted
        )
    if unknown := sorted(set(critical) - set(classes)):
        raise ConfigError("`critical` lists names that are not classes", where=where, got=unknown)
    return LabelSpace(space.name, classes, colours, critical)


def _colours(space: LabelSpace, where: str) -> tuple[Colour, ...]:
    try:
        colours = tuple((int(r), int(g), int(b)) for r, g, b in space.colours)
    except (TypeError, ValueError):
        colours = ((-1, -1, -1),)
    if not all(0 <= value <= IGNORE for colour in colours for value in colour):
        raise ConfigError(
            "unusable colours",
            where=where,
            got=list(space.colours)[:4],
            expected="(red, green, blue) for each class, each 0-255",
        )
    return colours


def _of_sources(configs: list[SourceConfig]) -> LabelSpace:
    """Return the label space that all sources of kind "folder" share."""
    spaces = {c.root: folder.space_of(c) for c in configs if c.kind == "folder"}
    if not spaces:
        raise ConfigError(
            f"data.label_space = '{OWN}', but no source has classes of its own",
            expected="a source of kind = 'folder' with classes.toml",
            cure="Or name a classes.toml: data.label_space = 'my/classes.toml'",
        )
    (first, chosen), *others = spaces.items()
    for root, space in others:
        if (space.classes, set(space.critical)) != (chosen.classes, set(chosen.critical)):
            raise ConfigError(
                f"data.label_space = '{OWN}', but the sources' classes differ",
                where=root,
                got=_words(space),
                expected=f"{_words(chosen)} as {first}",
                cure="Give them the same classes in the same order, and the same critical ones",
            )
    return chosen


def _words(space: LabelSpace) -> str:
    listed = ", ".join(space.classes[:12]) + (" ..." if len(space.classes) > 12 else "")
    return f"{listed} (critical: {', '.join(space.critical) or 'none'})"
