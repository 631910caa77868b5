"""Error texts: what, where, got, expected, cure."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from fleetseg import errors
from fleetseg.errors import ConfigError, FleetSegError, MissingExtra, UpdateRejected, unknown_name

CLASSES = {
    name: cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, Exception)
}


def test_the_text_says_what_where_got_expected_and_cure() -> None:
    error = FleetSegError(
        "wrong size", where=Path("a") / "b.png", got="3x4", expected="5x6", cure="Resize it"
    )
    assert str(error) == "a/b.png: wrong size; got 3x4, expected 5x6. Resize it"
    assert (error.what, error.where) == ("wrong size", "a/b.png")


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "bad"),
        ({"where": "x"}, "x: bad"),
        ({"got": 0}, "bad; got 0"),
        ({"expected": "1"}, "bad; expected 1"),
        ({"cure": "Mend it"}, "bad. Mend it"),
        ({"got": False, "cure": "Mend it"}, "bad; got False. Mend it"),
    ],
)
def test_parts_may_be_left_out(parts: dict[str, object], text: str) -> None:
    error = FleetSegError("bad", **parts)  # type: ignore[arg-type]
    assert str(error) == text


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    depths = {"*": 0, "x": 1, "-": 2}
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        mark, _, rest = line.strip().partition(" ")
        if mark in depths:
            name = rest.split()[0]
            path[depths[mark] :] = [name]
            drawn[name] = path[-2] if len(path) > 1 else "Exception"
    assert drawn == {name: cls.__base__.__name__ for name, cls in CLASSES.items()}


def test_all_errors_are_fleetseg_errors() -> None:
    assert all(issubclass(cls, FleetSegError) for cls in CLASSES.values())


def test_update_rejected_has_a_reason_code() -> None:
    error = UpdateRejected("shape", "wrong shape", where="conv", got=(1,), expected=(4,))
    assert error.reason == "shape"
    assert str(error) == "conv: wrong shape; got (1,), expected (4,)"


def test_missing_extra_names_the_command() -> None:
    error = MissingExtra("timm", "zoo", "zoo:unet/x")
    assert "zoo:unet/x needs the package 'timm'" in str(error)
    assert "pip install 'fleetseg[zoo]'" in str(error)


def test_unknown_name_lists_the_right_ones_and_the_nearest() -> None:
    error = unknown_name("loss", "focall", {"ohem": 1, "focal": 2, "ce": 3}, where="a.toml")
    assert isinstance(error, ConfigError)
    assert str(error) == (
        "a.toml: unknown loss 'focall'; expected one of: ce, focal, ohem. Did you mean 'focal'?"
    )
    assert str(unknown_name("loss", "zzz", ["ce"])) == "unknown loss 'zzz'; expected one of: ce"
