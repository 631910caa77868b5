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


class AdaptationConfig(Section):
    """What learning from test images has in common, whichever method it is."""

    optimiser: Literal["adam", "sgd"] = "adam"  # sgd with momentum 0.9; no weight decay
    lr: float = Field(default=1e-3, ge=0)


class TentConfig(AdaptationConfig):
    """Of the norm statistics tent; defaults are those of the authors' example."""

    # Starts from the model for each domain (online), for each batch (episodic), or once, going
    # through the domains by name (continual).
    mode: Literal["online", "episodic", "continual"] = "online"
    steps: int = Field(default=1, ge=1)  # on each batch, before it is predicted


class CottaLikeConfig(AdaptationConfig):
    """Of the norm statistics cotta-like; defaults are CoTTA's for road scenes."""

    mode: Literal["online", "continual"] = "online"  # as tent's
    lr: float = Field(default=7.5e-6, ge=0)
    teacher_momentum: float = Field(default=0.999, ge=0, le=1)
    # Mean of the model's highest probabilities; views are averaged where an image has less.
    confidence: float = Field(default=0.69, ge=0, le=1)
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = (0.75, 1.0, 1.25)  # each flipped, too
    restore: float = Field(default=0.01, ge=0, le=1)  # probability of a value to go back, each step
    seed: int = 0  # of those draws


class EvaluationConfig(Section):
    """When and where the global model is scored."""

    every: int = Field(
        default=1, ge=0
    )  # rounds; the last round is always scored; 0 = only the last
    on_clients: bool = False  # at the end: every client's own (held-out if any) samples
    # What scores are grouped by.
    by: Literal["domain", "dataset", "city", "condition", "vehicle", "sequence"] = "domain"
    batch_size: int = Field(default=8, ge=1)
    # Frames of the server's sets whose predictions are kept at every scoring, for the report; 0 =
    # none. No part of the result, nor of the experiment's digest.
    pictures: int = Field(default=6, ge=0, le=24)
    # Statistics of batch norms: running (the model's own), batch, domain, adapted (the test
    # images'), and tent, cotta-like, which learn from these: see evaluation.norms.
    norms: str = "running"  # on the server's sets
    norms_on_clients: str = "running"  # on clients' own frames, with what each keeps of its own
    adapted: AdaptedConfig = AdaptedConfig()
    tent: TentConfig = TentConfig()
    cotta_like: CottaLikeConfig = CottaLikeConfig()


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
    """Time-outs and bounds of a fleet over a network; not part of the experiment's digest."""

    # Fewer than these, and the run waits; 0 = a quorum of the cohort that the whole fleet would be.
    min_vehicles: int = Field(default=0, ge=0)
    wait_s: float = Field(default=300.0, gt=0)  # for min_vehicles, then the run ends
    gather_s: float = Field(default=120.0, gt=0)  # for vehicles to open their data, per segment
    silent_s: float = Field(default=15.0, gt=2)  # without a sign of life, a vehicle is lost
    # Without a step or a sample, a trainer is started again by its vehicle; it may take longer to
    # open its data.
    stalled_s: float = Field(default=300.0, gt=2)
    fetch_s: float = Field(default=20.0, gt=0)  # idle, and its task not fetched: lost
    # Most that a vehicle may take for a task where federation.deadline_s is 0: this for its first
    # turn, from then on five times what turns have taken.
    first_turn_s: float = Field(default=21_600.0, gt=0)
    segment_rounds: int = Field(default=50, ge=1)  # then the engine's job is renewed
    renew_s: float = Field(default=60.0, ge=0)  # earliest renewal for a vehicle that came back
    round_every_s: float = Field(default=0.0, ge=0)  # rounds begin no closer: vehicles rest
    max_images: int = Field(default=100_000, ge=1)  # that one vehicle may claim: its weight
    # More than so many times the fleet's median counts for no more; 0 = all is believed.
    max_times_median: float = Field(default=5.0, ge=0)
    # A change so many times as long, by the step, as the fleet's lately is refused; 0 = none is.
    max_times_norm: float = Field(default=10.0, ge=0)
    # Of kits by name, what all vehicles of one together may claim, and count for.
    max_images_of: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    max_vehicles: int = Field(default=10, ge=1)  # that one kit may stand for
    max_vehicles_of: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    outage_s: float = Field(default=300.0, gt=0)  # without any connection, then the run ends
