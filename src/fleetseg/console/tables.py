"""Tables at the end of a command: scores, vehicles, comparisons."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from fleetseg.console import ratio
from fleetseg.data.labels import LabelSpace

if TYPE_CHECKING:  # they need torch, which a vehicle's console does without
    from fleetseg.runs.client_summary import ClientSummary
    from fleetseg.runs.compare import ComparedRun

_BAR_CELLS = 24
_EIGHTHS = " ▏▎▍▌▋▊▉"
_LEVELS = "▁▂▃▄▅▆▇█"
CRITICAL_MARK = "!"


def plain_table(*heads: str, left: Collection[str] = (), caption: str = "") -> Table:
    """Start a table in the common style; columns are right-aligned except those in `left`."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        caption=Text(caption, "dim") if caption else None,
        caption_justify="left",
    )
    for head in heads:
        # Columns that may wrap shrink first: numbers are never cut.
        is_left = head in left
        table.add_column(head, justify="left" if is_left else "right", no_wrap=not is_left)
    return table


def name_cell(name: str, style: str = "") -> Text:
    """Format a name that is truncated where the table would not fit."""
    return Text(name, style, no_wrap=True, overflow="ellipsis")


def iou_table(scores: Mapping[str, Any], critical: Collection[str]) -> Table:
    """List the IoU of every class; safety-critical classes are marked."""
    table = plain_table("class", "", "IoU", " ", left=("class", "", " "))
    for name, iou in scores.get("iou", {}).items():
        is_critical = name in critical
        table.add_row(
            name_cell(name, "bold" if is_critical else ""),
            Text(CRITICAL_MARK if is_critical else "", "bold yellow"),
            ratio(iou),
            Text(_bar(iou or 0.0), "yellow" if is_critical else "cyan"),
        )
    return table


def score_lines(scores: Mapping[str, Any], critical: Sequence[str]) -> list[str]:
    """Summarise a scored model, each figure with its definition; nothing for None."""
    if "miou" not in scores:
        return []
    _, _, how = scores.get("convention", "").partition(" ")
    named = f"{CRITICAL_MARK} {', '.join(critical)}" if critical else "no class is marked so"
    lines = [
        f"mIoU            {ratio(scores['miou'])}  {how}".rstrip(),
        f"critical mIoU   {ratio(scores.get('critical_miou'))}  {named}",
        f"pixel accuracy  {ratio(scores.get('pixel_accuracy'))}",
    ]
    if (norms := scores.get("norms", "running")) != "running":
        lines.append(f"batch norms     with statistics: {norms}")
    sides = [f"{side} {ratio(scores[side])}" for side in ("seen", "unseen") if side in scores]
    if len(sides) == 2:
        lines.append(f"mIoU on domains {', '.join(sides)}  in training")
    return lines + _cluster_lines(scores.get("clusters", {}))


def _cluster_lines(clusters: Mapping[str, Any]) -> list[str]:
    """Name the scored models where clusters of vehicles have their own, with the score of each."""
    if not clusters:
        return []
    of = [*clusters["of"].values()]
    sizes = [of.count(k) for k in range(len(clusters["by_cluster"]) or max(of, default=0) + 1)]
    vehicles = ", ".join(map(str, sizes))
    lines = [
        f"clusters        {len(sizes)}, of {vehicles} vehicles; scored is {clusters['headline']}"
    ]
    if clusters["by_cluster"]:
        each = ", ".join(ratio(scores["miou"]) for scores in clusters["by_cluster"])
        lines.append(f"mIoU of each    {each}  on all of these frames")
    return lines


def domains_table(by_domain: Mapping[str, Mapping[str, Any]], head: str = "domain") -> Table:
    """List the scores of every domain (or client)."""
    table = plain_table(head, "mIoU", "critical", "accuracy", "pixels", left=(head,))
    for name, scores in by_domain.items():
        table.add_row(
            name_cell(name or "(all)"),
            ratio(scores.get("miou")),
            ratio(scores.get("critical_miou")),
            ratio(scores.get("pixel_accuracy")),
            f"{scores.get('pixels', 0):,}",
        )
    return table


def personal_table(
    by_client: Mapping[str, Mapping[str, Any]], own: Mapping[str, Mapping[str, Any]], head: str
) -> Table:
    """Show the scores of the global model and of each client's own model side by side."""
    heads = ("mIoU", "own mIoU", "critical", "own critical", "pixels")
    table = plain_table(head, *heads, left=(head,))
    for name in sorted({*by_client, *own}):
        common, personal = by_client.get(name, {}), own.get(name, {})
        table.add_row(
            name_cell(name),
            *(ratio(s.get(key)) for key in ("miou", "critical_miou") for s in (common, personal)),
            f"{(common or personal).get('pixels', 0):,}",
        )
    return table


def clients_table(clients: Sequence[ClientSummary], space: LabelSpace) -> Table:
    """List the vehicles' data; the bars compare each class with the vehicle that has most of it."""
    heads = ["vehicle", "images", "bad", "held out", "Mpx", "classes", "domains"]
    if not any(h.held_out for h in clients):
        heads.remove("held out")
    table = plain_table(*heads, left=("vehicle", "classes", "domains"))
    shares_NC = [class_shares(h.histogram_C) for h in clients]
    most_C = [max(column) for column in zip(*shares_NC, strict=True)]
    for client, share_C in zip(clients, shares_NC, strict=True):
        cells: list[str | Text] = [
            name_cell(client.client, "dim" if client.abstains else ""),
            f"{client.images:,}",
            Text(str(client.unusable), "yellow" if client.unusable else "dim"),
            f"{client.pixels / 1e6:.2f}",
            class_bars(share_C, most_C, space),
            name_cell(_few(client.domains)),
        ]
        if "held out" in heads:
            cells.insert(3, str(client.held_out))
        table.add_row(*cells)
    return table


def class_bars(share_C: Sequence[float], most_C: Sequence[float], space: LabelSpace) -> Text:
    """Draw one bar per class: the share here over the largest share anywhere; "·" for none."""
    text = Text(no_wrap=True)
    for share, most, (red, green, blue) in zip(share_C, most_C, space.colours, strict=True):
        level = _LEVELS[min(7, int(8 * share / most))] if share > 0 else "·"
        text.append(level, f"rgb({red},{green},{blue})" if share > 0 else "dim")
    return text


def comparison_table(rows: Sequence[ComparedRun]) -> Table:
    """Show runs side by side; the best mIoU and the best critical mIoU, as printed, are bold."""
    best_miou = _best(row.miou for row in rows)
    best_critical = _best(row.critical_miou for row in rows)
    heads = ("", "mIoU", "critical", "images seen", "steps", "in a row")
    table = plain_table(*heads, left=("",))
    for row in rows:
        table.add_row(
            name_cell(row.name),
            _figure(row.miou, best_miou),
            _figure(row.critical_miou, best_critical),
            _number(row.images_seen),
            _number(row.steps),
            _number(row.critical_path_steps),
        )
    return table


def _best(figures: Iterable[float | None]) -> str | None:
    known = [figure for figure in figures if figure is not None]
    return ratio(max(known)) if known else None


def _figure(figure: float | None, best: str | None) -> Text:
    text = ratio(figure)
    return Text(text, "bold" if text == best else "")


def class_shares(histogram_C: Sequence[int]) -> list[float]:
    """Return each class's share of the pixels."""
    total = max(1, sum(histogram_C))
    return [n / total for n in histogram_C]


def _few(names: Sequence[str], limit: int = 3) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" +{rest}" if rest > 0 else "")


def _bar(share: float) -> str:
    eighths = round(share * _BAR_CELLS * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
