"""The arguments and options of the commands, each described once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fleetseg.cli.paths import as_path as _path


class EngineKind(StrEnum):
    """Where clients train."""

    inprocess = "inprocess"
    workers = "workers"
    fleet = "fleet"


class BaselineKind(StrEnum):
    """What a federated run is compared with."""

    centralised = "centralised"
    local = "local"


ExperimentFile = Annotated[
    Path, typer.Argument(metavar="EXPERIMENT.toml", help="The experiment file.", parser=_path)
]
OptionalExperiment = Annotated[
    Path | None,
    typer.Argument(
        metavar="EXPERIMENT.toml", help="The experiment file.", show_default=False, parser=_path
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, e.g. federation.rounds=20; repeatable.",
        show_default=False,
    ),
]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="The run folder; default runs/<time>_<name>.",
        show_default=False, parser=_path,
    ),
]  # fmt: skip
Resume = Annotated[
    bool, typer.Option("--resume", help="Resume the run in --out from its last round.")
]
Engine = Annotated[
    EngineKind | None,
    typer.Option(
        "--engine",
        help="Train in this process, in several, or in a fleet on this machine.",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=0, metavar="N", help="Worker processes or sites; 0 = one per usable core.",
        show_default=False,
    ),
]  # fmt: skip
Baseline = Annotated[
    BaselineKind | None,
    typer.Option(
        "--baseline",
        help="Instead of the federation: all data in one place, or every vehicle alone.",
        show_default=False,
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="PATTERN",
        help="Only vehicles with matching names take part, e.g. 'car-*'; repeatable.",
        show_default=False,
    ),
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude",
        metavar="PATTERN",
        help="Vehicles with matching names do not take part; repeatable.",
        show_default=False,
    ),
]
Rehearse = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Do everything that precedes round 1, then stop: check, read data, take a step.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
JsonLines = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line: the rounds, then the end.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the final line.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

ModelOrRun = Annotated[
    Path,
    typer.Argument(metavar="MODEL_OR_RUN", help="A model folder or a run folder.", parser=_path),
]
Dataset = Annotated[
    str,
    typer.Option(
        "--dataset",
        metavar="KIND",
        help="synthetic, camvid, idd_lite, cityscapes or folder.",
        show_default=False,
    ),
]
TestFrames = Annotated[
    Path | None,
    typer.Option(
        "--experiment",
        metavar="EXPERIMENT.toml",
        help="Instead of a data set: this experiment's evaluation sets or held-out frames.",
        show_default=False,
        parser=_path,
    ),
]
Root = Annotated[
    str, typer.Option("--root", metavar="PATH", help="Folder of the data set; none for synthetic.")
]
Split = Annotated[str, typer.Option("--split", metavar="S", help="Split of the data set.")]
NormsOption = Annotated[
    str | None,
    typer.Option(
        "--norms", metavar="S", show_default=False,
        help="Statistics of batch norms: running, batch, domain, adapted, tent, cotta-like "
        "or banks; default: the experiment's, else running.",
    ),
]  # fmt: skip
BanksDataset = Annotated[
    str,
    typer.Option(
        "--dataset", metavar="KIND", help="Data set: synthetic, camvid, idd_lite, ... or folder."
    ),
]
BanksBy = Annotated[
    str,
    typer.Option(
        "--by", metavar="WHAT",
        help="condition, city, sequence or domain, from the data set; or weather, from the pixels.",
    ),
]  # fmt: skip
EvaluationOverrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", show_default=False,
        help="A setting of the norms, e.g. evaluation.tent.lr=1e-4, or an override of "
        "EXPERIMENT.toml; repeatable.",
    ),
]  # fmt: skip
ClusterOption = Annotated[
    int | None,
    typer.Option(
        "--cluster", metavar="K", min=0, show_default=False,
        help="The model of a cluster of vehicles, from 0; default: the fleet's.",
    ),
]  # fmt: skip
PredictNorms = Annotated[
    str,
    typer.Option(
        "--norms", metavar="S", help="Batch-norm statistics: running, batch, adapted or banks."
    ),
]
Pictures = Annotated[
    Path | None,
    typer.Option(
        "--pictures", metavar="DIR", help="Write image, truth and prediction side by side.",
        show_default=False, parser=_path,
    ),
]  # fmt: skip

Images = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="INPUT...", help="Images, videos, folders of them, or quoted patterns.",
        show_default=False, parser=_path,
    ),
]  # fmt: skip
PredictionsOut = Annotated[
    Path,
    typer.Option(
        "--out",
        metavar="DIR",
        help="The folder for all output.",
        show_default=False,
        parser=_path,
    ),
]
Overlay = Annotated[
    bool,
    typer.Option("--overlay", help="Also write each image with its classes' colours and names."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing files.")]

FleetFolder = Annotated[
    Path, typer.Option("--fleet", metavar="DIR", help="The fleet's folder.", parser=_path)
]  # fmt: skip
NewFleet = Annotated[
    Path, typer.Argument(metavar="DIR", help="A new folder for the fleet.", parser=_path)
]
Vehicles = Annotated[
    str, typer.Option("--vehicles", metavar="N|A,B", help="How many vehicles, or their names.")
]  # fmt: skip
Host = Annotated[
    str,
    typer.Option(
        "--host", metavar="NAME", help="The server's name, as vehicles resolve it; a DNS name.",
        show_default=False,
    ),
]  # fmt: skip
Port = Annotated[
    int, typer.Option("--port", min=1, max=65535, help="The only port that the server opens.")
]
VehicleName = Annotated[str, typer.Argument(metavar="NAME", help="The vehicle.")]
KitFolder = Annotated[
    Path,
    typer.Option(
        "--kit", metavar="DIR", help="This vehicle's start-up kit.", show_default=False,
        parser=_path,
    ),
]  # fmt: skip
ClientDataset = Annotated[
    str,
    typer.Option(
        "--dataset", metavar="KIND", help="camvid, idd_lite, cityscapes, folder or synthetic.",
        show_default=False,
    ),
]  # fmt: skip
ClientSplit = Annotated[
    str, typer.Option("--split", metavar="S", help="Split of the data set; default: train.")
]
Sequences = Annotated[
    str, typer.Option("--sequences", metavar="A,B", help="Only these drives of the data set.")
]
SplitFile = Annotated[
    Path | None,
    typer.Option(
        "--split-file",
        metavar="FILE",
        help="The partition: a manifest (fleetseg partition --out) or a published split.",
        show_default=False,
        parser=_path,
    ),
]
InSplit = Annotated[
    list[str] | None,
    typer.Option(
        "--vehicle",
        metavar="NAME",
        help="Vehicle in the split file; default: the kit's name; repeatable.",
        show_default=False,
    ),
]

DataPath = Annotated[
    Path, typer.Argument(metavar="PATH", help="A data set, or a folder of data sets.", parser=_path)
]
OptionalKind = Annotated[
    str, typer.Option("--kind", metavar="KIND", help="Layout of the data set; default: detected.")
]
OptionalSplit = Annotated[
    str, typer.Option("--split", metavar="S", help="Split of the data set; default: all.")
]
SynthOut = Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.", parser=_path)]
Cities = Annotated[str, typer.Option("--cities", metavar="A,B", help="Cities; default: all.")]
Conditions = Annotated[
    str, typer.Option("--conditions", metavar="A,B", help="Conditions; default: all.")
]
Frames = Annotated[
    int, typer.Option("--frames", min=1, metavar="N", help="Frames per city and condition.")
]
SynthSplit = Annotated[str, typer.Option("--split", metavar="S", help="train, val or test.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the generator.")]
Size = Annotated[
    str, typer.Option("--size", metavar="HxW", help="Height x width of the pictures in pixels.")
]
OlderThan = Annotated[
    float | None,
    typer.Option(
        "--older-than", min=0, metavar="DAYS", help="Also remove stores unused for this long.",
        show_default=False,
    ),
]  # fmt: skip
KeepGb = Annotated[
    float | None,
    typer.Option(
        "--keep-gb", min=0, metavar="N", help="Also remove the longest unused until N GB remain.",
        show_default=False,
    ),
]  # fmt: skip
Everything = Annotated[bool, typer.Option("--all", help="Remove everything not in use.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")]
ManifestOut = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", help="Write the manifest: client -> samples with SHA-256.",
        show_default=False, parser=_path,
    ),
]  # fmt: skip
DemoOut = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="Folder for runs and pictures; default runs/<time>_demo.",
        show_default=False, parser=_path,
    ),
]  # fmt: skip
ScenarioName = Annotated[str, typer.Argument(metavar="NAME", help="The scenario.")]
ScenarioOut = Annotated[
    Path,
    typer.Option(
        "--out", metavar="FILE", help="FILE.json: the partition; FILE.toml: an experiment too.",
        show_default=False, parser=_path,
    ),
]  # fmt: skip
PublishedSplit = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="PATH", help="A published split: its JSON file, or its folder.",
        show_default=False, parser=_path,
    ),
]  # fmt: skip
ScenarioClients = Annotated[
    int,
    typer.Option("--clients", min=0, metavar="N", help="Number of clients; 0 = the scenario's."),
]
ScenarioSeed = Annotated[
    int, typer.Option("--seed", metavar="N", help="Seed of the rule and of the experiment.")
]

Runs = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...", help="Run folders, or folders of them.", show_default=False, parser=_path
    ),
]
ReportPage = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE.html", help="The page; default: report.html in the first RUN.",
        show_default=False, parser=_path,
    ),
]  # fmt: skip
Last = Annotated[
    int,
    typer.Option(
        "--last", min=0, metavar="N",
        help="Means over the last N scored rounds; 0 = the final model.",
    ),
]  # fmt: skip
Csv = Annotated[
    Path | None,
    typer.Option(
        "--csv", metavar="FILE", help="Also write every figure to this file.", show_default=False,
        parser=_path,
    ),
]  # fmt: skip
Markdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown to paste.")]
Latex = Annotated[bool, typer.Option("--latex", help="Print LaTeX (booktabs) to paste.")]
Despite = Annotated[
    list[str] | None,
    typer.Option(
        "--despite", metavar="FIELD",
        help="Compare although this differs: size_hw, norms, seen or unseen; repeatable.",
        show_default=False,
    ),
]  # fmt: skip
OptionalSweep = Annotated[
    Path | None,
    typer.Argument(metavar="SWEEP.toml", help="The sweep.", show_default=False, parser=_path),
]
SweepFolder = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="DIR", help="The sweep's folder; default runs/<time>_<name>.",
        show_default=False, parser=_path,
    ),
]  # fmt: skip
Jobs = Annotated[
    int, typer.Option("--jobs", "-j", min=1, metavar="N", help="Runs at the same time.")
]
ResumeSweep = Annotated[bool, typer.Option("--resume", help="Resume the sweep in --out.")]
PlanOnly = Annotated[bool, typer.Option("--dry-run", help="Check and list the runs; start none.")]
