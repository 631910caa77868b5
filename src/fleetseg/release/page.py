"""The page of a decision: one file, for the person who is accountable for it.

It loads nothing from a network, needs no script, and is printable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fleetseg.data.labels import LabelSpace
from fleetseg.release.judge import signed
from fleetseg.release.page_style import STYLE
from fleetseg.release.pictures import Panels

_MARKS = {"held": "✓", "unsure": "?", "fallen": "✕", "not judged": "–"}
_KINDS = {
    "least": "What must be reached",
    "overall": "Overall",
    "class": "Safety-critical classes",
    "domain": "Domains",
    "robustness": "Weather, noise and blur",
    "calibration": "Calibration",
    "latency": "Latency",
}
_CHART = 240  # width of an interval's drawing


def page(record: Mapping[str, Any], space: LabelSpace, panels: Sequence[Panels]) -> str:
    """Render the page of a `release.json`, with the frames that decided."""
    promoted = record["decision"] == "promoted"
    title = f"{'Promoted' if promoted else 'Refused'}: {record['candidate']['network']}"
    return f"""<!doctype html>
<html lang=en><head><meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta http-equiv=Content-Security-Policy
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)} · fleetseg release</title><style>{STYLE}</style></head><body><main>
{_head(record, promoted)}
{_checks(record)}
{_pictures(panels, space)}
{_classes(record, space)}
{_provenance(record)}
</main></body></html>
"""


def _head(record: Mapping[str, Any], promoted: bool) -> str:
    """Render the decision with its reasons."""
    reasons = record["reasons"]
    failed = "is not good enough in one way" if len(reasons) == 1 else (
        f"is not good enough in {len(reasons)} ways")  # fmt: skip
    headline = "may go into the vehicles" if promoted else failed
    against = f"against {record['against']}" if record["against"] else "without a predecessor"
    items = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
    notes = "".join(f"<li>{escape(note)}</li>" for note in record["notes"])
    known = f"<h2>Notes</h2><ul class=notes>{notes}</ul>" if notes else ""
    return f"""<header><p class=eyebrow>fleetseg release · {escape(record["decided"])}</p>
<p class="stamp {record["decision"]}">{record["decision"]}</p>
<h1>The candidate {headline}</h1><ul class=reasons>{items}</ul>
<p class=protocol>{escape(record["candidate"]["model"])}, judged {escape(against)}.
{escape(_protocol(record))}</p></header>{known}"""


def _protocol(record: Mapping[str, Any]) -> str:
    sets = _judges(record)
    height, width = record["candidate"]["size_hw"]
    bootstrap = record["policy"]["bootstrap"]
    return (
        f"Scored on {sets}; classes of {record['label_space']}, at label resolution, images of "
        f"{height} x {width} pixels. Means are over the classes that occur in the truth. Intervals "
        f"({100 * bootstrap['confidence']:g}%) are of a paired bootstrap with "
        f"{bootstrap['resamples']:,} resamples."
    )


def _judges(record: Mapping[str, Any]) -> str:
    """Name the sets, or say how many vehicles judged on how many frames, and which did not."""
    scored_on, vehicles = record["scored_on"], record.get("vehicles")
    if not vehicles:
        return "; ".join(f"{name}, {frames:,} frames" for name, frames, _ in scored_on)
    judged, silent = len(vehicles["judged"]), len(vehicles["silent"])
    over = "over a network" if vehicles["over"] == "a network" else "simulated in one process"
    words = (
        f"{sum(frames for _, frames, _ in scored_on):,} frames held out by {judged} "
        f"vehicle{'s' * (judged != 1)}, {over}: the fleet is the judge, and only the sums of each "
        "vehicle are known"
    )
    return f"{words}; {silent} did not judge" if silent else words


def _checks(record: Mapping[str, Any]) -> str:
    """Render all checks in a table, grouped by kind."""
    checks = record["checks"]
    widest = max([0.02, *(abs(c[k]) for c in checks for k in ("low", "high") if c[k] is not None),
                  *(c["allowed"] for c in checks if c["low"] is not None)])  # fmt: skip
    rows, last = [], ""
    for check in checks:
        if check["kind"] != last:
            last = check["kind"]
            rows.append(f"<tr class=kind><th colspan=6 scope=colgroup>{_KINDS[last]}</th></tr>")
        rows.append(_row(check, widest))
    if not rows:
        return ""
    return f"""<section><h2>Checks</h2>
<p class=how>The bar is the interval of candidate minus current, the dot the figure itself, the
dashed line the allowed fall. Held: the whole bar is right of the dashed line. Fallen: the
dot is left of it, and the whole bar left of zero. Unsure: neither. The scale goes from
{-widest:.3f} to {widest:+.3f}.</p>
<div class=wide><table class=checks><thead><tr><th scope=col>check<th scope=col>verdict
<th scope=col class=num>current<th scope=col class=num>candidate<th scope=col class=num>change
<th scope=col class=interval>interval</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div></section>"""


def _row(check: Mapping[str, Any], widest: float) -> str:
    now, new, verdict = check["current"], check["candidate"], check["verdict"]
    digits = 1 if check["kind"] == "latency" else 3
    change = "–" if now is None or new is None else signed(new - now, digits)
    return (
        f'<tr class="{verdict.replace(" ", "-")}"><th scope=row>{escape(check["name"])}'
        f"<td class=verdict><span aria-hidden=true>{_MARKS[verdict]}</span> {verdict}"
        f"<td class=num>{_figure(now, digits)}<td class=num>{_figure(new, digits)}"
        f"<td class=num>{change}<td class=interval>{_interval(check, widest)}</tr>"
    )


def _figure(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(check: Mapping[str, Any], widest: float) -> str:
    """Draw an interval on a line from -widest to +widest, with zero and the allowed fall."""
    low, high = check["low"], check["high"]
    if low is None or high is None:
        return ""

    def at(value: float) -> str:
        return f"{(value / widest + 1) / 2 * (_CHART - 16) + 8:.1f}"

    change = check["candidate"] - check["current"]
    words = f"{signed(change)}, from {signed(low)} to {signed(high)}; {check['drawn']}"
    return (
        f'<svg viewBox="0 0 {_CHART} 20" width={_CHART} role=img aria-label="{escape(words)}">'
        f"<title>{escape(words)}</title>"
        f'<line class=zero x1={at(0)} x2={at(0)} y1=0 y2=20 /><line class=allowed '
        f'x1={at(-check["allowed"])} x2={at(-check["allowed"])} y1=0 y2=20 />'
        f'<line class=bar x1={at(low)} x2={at(high)} y1=10 y2=10 />'
        f"<circle cx={at(change)} cy=10 r=4 /></svg>"
    )  # fmt: skip


def _pictures(panels: Sequence[Panels], space: LabelSpace) -> str:
    """Render the frames on which the candidate falls furthest behind."""
    if not panels:
        return ""
    decided = any(one.chosen.decided for one in panels)
    heading = "The frames that decided" if decided else "Where the candidate is furthest behind"
    figures = []
    for one in panels:
        shown = "".join(
            f'<div><span>{title}</span><img alt="{title} of {escape(one.chosen.name)}" '
            f'src="{uri}"></div>'
            for title, uri in one.pictures.items()
        )
        caption = f"<b>{escape(one.chosen.name)}</b>: {escape(one.chosen.why)}"
        figures.append(f"<figure><figcaption>{caption}</figcaption><div class=row>{shown}</div>"
                       "</figure>")  # fmt: skip
    legend = "".join(
        f'<li><i style="background:rgb({r},{g},{b})"></i>{escape(name)}</li>'
        for name, (r, g, b) in zip(space.classes, space.colours, strict=True)
    )
    return f"""<section><h2>{heading}</h2><p class=how>Newly wrong, in red: pixels that the
current model gets right and the candidate wrong. Black in the truth is not scored.</p>
<ul class=legend>{legend}</ul>
{"".join(figures)}</section>"""


def _classes(record: Mapping[str, Any], space: LabelSpace) -> str:
    """Render the IoU of every class, computed like every other IoU of fleetseg."""
    new, now = record["candidate"], record["current"]
    rows = []
    for name in space.classes:
        mine = new["iou"].get(name)
        theirs = now["iou"].get(name) if now else None
        mark = " class=crit" if name in space.critical else ""
        change = "–" if mine is None or theirs is None else signed(mine - theirs)
        rows.append(f"<tr><th scope=row{mark}>{escape(name)}<td class=num>{_figure(theirs)}"
                    f"<td class=num>{_figure(mine)}<td class=num>{change}</tr>")  # fmt: skip
    total = (f"<tr class=total><th scope=row>mIoU<td class=num>"
             f"{_figure(now['miou'] if now else None)}<td class=num>{_figure(new['miou'])}"
             "<td></tr>")  # fmt: skip
    return f"""<section><h2>All classes</h2><p class=how>IoU over all frames together, as
fleetseg evaluate gives it; a diamond marks the safety-critical classes.</p>
<div class=wide><table class=narrow><thead><tr><th scope=col>class<th scope=col class=num>current
<th scope=col class=num>candidate<th scope=col class=num>change</tr></thead>
<tbody>{"".join(rows)}{total}</tbody></table></div></section>"""


def _provenance(record: Mapping[str, Any]) -> str:
    """Render digests, the policy and the machine: all that is needed to repeat the judgement."""
    facts = {
        "candidate": f"{record['candidate']['model']}, SHA-256 {record['candidate']['sha256']}"
    }
    if record["current"]:
        facts["current"] = f"{record['current']['model']}, SHA-256 {record['current']['sha256']}"
    for name, frames, digest in record["scored_on"]:
        facts[name] = f"{frames:,} frames" + (f", files {digest}" if digest else "")
    machine = record["environment"]
    facts["policy"] = f"SHA-256 {record['policy_sha256']}"
    facts["machine"] = ", ".join(f"{key} {value}" for key, value in machine.items())
    rows = "".join(f"<dt>{escape(k)}<dd>{escape(v)}" for k, v in facts.items())
    policy = escape(json.dumps(record["policy"], indent=1))
    return f"""<section><h2>To reproduce this decision</h2><dl>{rows}</dl>
<details><summary>The policy</summary><pre>{policy}</pre></details></section>"""
