"""When a run is scored and when it ends, and where its clients run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fleetseg.config.section import Section


class StopConfig(Section):
    """When to stop before the last round; 0 = never for that reason."""

    target_miou: float = Field(default=0.0, ge=0, le=1)
    patience: int = Field(default=0, ge=0)  # evaluations without a gain of min_gain
    min_gain: float = Field(default=0.001, ge=0)
    minutes: float = Field(default=0.0, ge=0)
    megabytes: float = Field(default=0.0, ge=0)  # up and down together


class AdaptedConfig(Section):
    """Of the norm statistics adapted."""

    prior_images: int = Field(default=16, ge=0)  # that the model's own statistics count as: N


class EvaluationConfig(Section):
    """When and where the global model is scored."""

    every: int = Field(
        default=1, ge=0
    )  # rounds; the last round is always scored; 0 = only the last
    on_clients: bool = False  # at the end: every client's own (held-out if any) samples
    # What scores are grouped by.
    by: Literal["domain", "dataset", "city", "condition", "vehicle", "sequence"] = "domain"
    batch_size: int = Field(default=8, ge=1)
    # Statistics of batch norms: running (the model's own), batch, domain, adapted (the test
    # images'): see evaluation.norms.
    norms: str = "running"  # on the server's sets
    norms_on_clients: str = "running"  # on clients' own frames, with what each keeps of its own
    adapted: AdaptedConfig = AdaptedConfig()


class BaselineConfig(Section):
    """What `--baseline centralised` is allowed."""

    # Written by fleetseg into the run folder of a baseline, so that it is not taken for a fleet's.
    kind: Literal["", "centralised", "local"] = ""
    images_share: float = Field(default=1.0, gt=0)  # of the images the federated run trains on


class EngineConfig(Section):
    """Where clients run."""

    kind: Literal["auto", "inprocess", "workers", "fleet"] = "auto"
    workers: int = Field(default=0, ge=0)  # 0 = one per allowed core; "fleet": sites, up to 4
    threads: int = Field(default=1, ge=1)  # per client; part of the result, so never automatic
    # Threads that read and augment batches while each client trains; no part of the result. 0 = the
    # training itself does it in between; "auto": one if a core is free, on a GPU two.
    loaders: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class FleetConfig(Section):
    """Time-outs of a fleet over a network; not part of the experiment's digest."""

    min_vehicles: int = Field(default=1, ge=1)  # fewer than these, and the run waits
    wait_s: float = Field(default=300.0, gt=0)  # for min_vehicles, then the run ends
    gather_s: float = Field(default=120.0, gt=0)  # for vehicles to open their data, per segment
    silent_s: float = Field(default=15.0, gt=2)  # without a sign of life, a vehicle is lost
    fetch_s: float = Field(default=20.0, gt=0)  # idle, and its task not fetched: lost
    segment_rounds: int = Field(default=50, ge=1)  # then the engine's job is renewed
    renew_s: float = Field(default=60.0, ge=0)  # earliest renewal for a vehicle that came back
    round_every_s: float = Field(default=0.0, ge=0)  # rounds begin no closer: vehicles rest
    max_images: int = Field(default=100_000, ge=1)  # that one vehicle may claim: its weight
    outage_s: float = Field(default=300.0, gt=0)  # without any connection, then the run ends
