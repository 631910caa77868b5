"""The settings of the experiment; those that differ from the defaults, or between runs, first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from fleetseg.config import Experiment
from fleetseg.report.figures import SettingFigures

_ABSENT = "–"


def setting_figures(
    experiments: Sequence[Experiment],
) -> tuple[tuple[SettingFigures, ...], tuple[SettingFigures, ...]]:
    """Split all settings: for one run by whether they differ from the default, else between runs.

    The first part is what differs, the second the rest.
    """
    defaults = _flat(Experiment().model_dump(mode="json"))
    for experiment in experiments:
        defaults = {**dict(_item_defaults(experiment)), **defaults}
    flat = [_flat(experiment.model_dump(mode="json")) for experiment in experiments]
    names = list(dict.fromkeys(name for each in flat for name in each))
    changed: list[SettingFigures] = []
    unchanged: list[SettingFigures] = []
    for name in names:
        values = tuple(each.get(name, _ABSENT) for each in flat)
        row = SettingFigures(name, values, defaults.get(name, _ABSENT))
        one = len(experiments) == 1
        differs = values[0] != row.default if one else len(set(values)) > 1
        (changed if differs else unchanged).append(row)
    return tuple(changed), tuple(unchanged)


def _item_defaults(model: BaseModel, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the defaults of what stands in lists, such as each of `data.sources`."""
    for key, value in model:
        path = f"{name}.{key}" if name else key
        if isinstance(value, BaseModel):
            yield from _item_defaults(value, path)
        elif isinstance(value, tuple | list) and value and isinstance(value[0], BaseModel):
            for at, each in enumerate(value):
                default = {
                    field: to_jsonable_python(info.get_default(call_default_factory=True))
                    for field, info in type(each).model_fields.items()
                    if not info.is_required()
                }
                yield from _flat(default, f"{path}[{at}]" if len(value) > 1 else path).items()


def _flat(value: Any, name: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        inside: dict[str, str] = {}
        for key, each in value.items():
            inside |= _flat(each, f"{name}.{key}" if name else key)
        return inside
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        inside = {}
        for at, each in enumerate(value):
            inside |= _flat(each, f"{name}[{at}]" if len(value) > 1 else name)
        return inside
    return {name: _text(value)}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or _ABSENT
    return _ABSENT if value in (None, "") else str(value)
