r"""Pictures beside the tables of docs/results.md: predictions of the models of finished rows.

    python benchmarks/result_pictures.py weather runs/unseen/painted fedavg silobn \
        --frame 3 --domains amber-night,coral-fog,ember-night --out weather.png
    python benchmarks/result_pictures.py unlabelled runs/unlabelled/painted weak-to-strong \
        --out unlabelled.png

`weather`: streets at night and in fog, which no vehicle had seen, with the predictions of rows of
the fold "painted" of benchmarks/unseen_tables.py. `unlabelled`: predictions on a road that no
vehicle drove on, before and after a fleet without labels, from benchmarks/unlabelled_tables.py.
That road's photographs are not ours to show, so the predictions stand alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import fleetseg
from fleetseg.clients import EvaluationSet, open_evaluation
from fleetseg.data.labels import LabelSpace, label_space
from fleetseg.data.sample import Image_HWC, Label_HW
from fleetseg.evaluation.pictures import (
    BACKGROUND,
    Row,
    colourise,
    contact_sheet,
    entries_of,
    legend,
)

MARGIN, HEAD, GAP, WIDTH = 28, 32, 14, 400


def scored_of(run: Path) -> tuple[LabelSpace, Sequence[EvaluationSet]]:
    """Open the sets that a run was scored on; the unseen one comes last."""
    experiment = fleetseg.read_run(run).experiment
    space = label_space(experiment.data.label_space)
    return space, open_evaluation(experiment, space, None)[0]


def seen(run: Path, images: Sequence[Image_HWC], frame: int) -> Label_HW:
    """Return the prediction of a run's model for one of the images of a domain.

    The model uses the statistics that it was scored with, which may be those of all these images.
    """
    scored_with = fleetseg.read_run(run).experiment.evaluation.norms
    model = fleetseg.load_model(run)
    if scored_with == "running":
        return model.predict([images[frame]], precision="fp32")[0]
    batch = list(images)  # one batch, so that its statistics are those of the domain
    return model.predict(batch, precision="fp32", norms="batch", batch_size=len(batch))[frame]


def weather(
    folder: Path, names: Sequence[str], frame: int, wanted: Sequence[str] = ()
) -> Image.Image:
    """Draw a frame of each domain, or of some, with the ground truth and the rows' predictions."""
    space, (*_, scored) = scored_of(folder / f"{names[0]}_seed0")
    domains = scored.scored.domains
    drawn = wanted or sorted(set(domains))
    rows: list[Row] = []
    for domain in drawn:
        of_it = [i for i, other in enumerate(domains) if other == domain]
        images = [scored.scored.pairs[i][0] for i in of_it]
        maps = {name: seen(folder / f"{name}_seed0", images, frame) for name in names}
        rows.append((images[frame], scored.scored.pairs[of_it[frame]][1], maps))
    return contact_sheet(rows, drawn, space)


def unlabelled(folder: Path, row: str, frame: int) -> Image.Image:
    """Draw predictions on the road that no vehicle drove on, before and after the fleet."""
    space, (*_, road) = scored_of(folder / f"{row}_seed0")
    image_HWC, _ = road.scored.pairs[frame]
    runs = {
        "taught by the server alone": folder / f"{row}_seed0" / "pretrain",
        "after the fleet, without labels": folder / f"{row}_seed0",
        "the same fleet with labels": folder / "oracle_seed0",
    }
    return in_a_line({name: seen(run, [image_HWC], 0) for name, run in runs.items()}, space)


def in_a_line(maps: Mapping[str, Label_HW], space: LabelSpace) -> Image.Image:
    """Draw label maps side by side, above a legend of their classes."""
    first_HW = next(iter(maps.values()))
    height = round(WIDTH * first_HW.shape[0] / first_HW.shape[1])
    inner = len(maps) * (WIDTH + GAP) - GAP
    key = legend(entries_of(list(maps.values()), space), inner)
    size = (inner + 2 * MARGIN, 3 * MARGIN + HEAD + height + key.height)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for index, (name, label_HW) in enumerate(maps.items()):
        left = MARGIN + index * (WIDTH + GAP)
        draw.text((left, MARGIN), name, (36, 38, 43), ImageFont.load_default(size=18))
        panel = Image.fromarray(colourise(label_HW, space))
        panel = panel.resize((WIDTH, height), Image.Resampling.NEAREST)
        sheet.paste(panel, (left, MARGIN + HEAD))
    sheet.paste(key, (MARGIN, size[1] - MARGIN - key.height))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("weather", "unlabelled"))
    parser.add_argument("folder", type=Path, help="folder with the runs of one fold or source")
    parser.add_argument("rows", nargs="+", help="names of rows; one for `unlabelled`")
    parser.add_argument("--frame", type=int, default=0, help="its number in each domain or road")
    parser.add_argument("--domains", default="", help="for `weather`: only these, comma-separated")
    parser.add_argument("--out", type=Path, required=True, help="PNG file")
    args = parser.parse_args()
    if args.kind == "weather":
        wanted = [name for name in args.domains.split(",") if name]
        picture = weather(args.folder, args.rows, args.frame, wanted)
    else:
        picture = unlabelled(args.folder, args.rows[0], args.frame)
    picture.save(args.out, optimize=True)
    print(args.out)


if __name__ == "__main__":
    main()
