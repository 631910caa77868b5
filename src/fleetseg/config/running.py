"""When a run is scored, when it ends, and where its clients run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fleetseg.config.section import Section


class StopConfig(Section):
    """Early stopping; 0 turns a criterion off."""

    target_miou: float = Field(default=0.0, ge=0, le=1)
    patience: int = Field(default=0, ge=0)  # evaluations without a gain of min_gain
    min_gain: float = Field(default=0.001, ge=0)
    minutes: float = Field(default=0.0, ge=0)
    megabytes: float = Field(default=0.0, ge=0)  # up and down together


class AdaptedConfig(Section):
    """Settings of the norm statistics adapted."""

    prior_images: int = Field(default=16, ge=0)  # N: what the model's own statistics count as


class AdaptationConfig(Section):
    """Settings shared by all methods that learn from test images."""

    optimiser: Literal["adam", "sgd"] = "adam"  # sgd with momentum 0.9; no weight decay
    lr: float = Field(default=1e-3, ge=0)


class TentConfig(AdaptationConfig):
    """Settings of the norm statistics tent; defaults are those of the authors' example."""

    # Adaptation starts from the model again for each domain (online) or batch (episodic), or only
    # once, with the domains in order of their names (continual).
    mode: Literal["online", "episodic", "continual"] = "online"
    steps: int = Field(default=1, ge=1)  # on each batch, before it is predicted


class CottaLikeConfig(AdaptationConfig):
    """Settings of the norm statistics cotta-like; defaults are CoTTA's for road scenes."""

    mode: Literal["online", "continual"] = "online"  # as tent's
    lr: float = Field(default=7.5e-6, ge=0)
    teacher_momentum: float = Field(default=0.999, ge=0, le=1)
    # Views are averaged for images whose mean highest probability is below this.
    confidence: float = Field(default=0.69, ge=0, le=1)
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = (0.75, 1.0, 1.25)  # each flipped, too
    restore: float = Field(default=0.01, ge=0, le=1)  # probability per step that a value is reset
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
    # none. Affects neither the result nor the experiment's digest.
    pictures: int = Field(default=6, ge=0, le=24)
    # Statistics of batch norms: running (the model's own); batch, domain, adapted (the test
    # images'); tent, cotta-like (which learn from the test images): see evaluation.norms.
    norms: str = "running"  # on the server's sets
    norms_on_clients: str = "running"  # on clients' own frames, with each one's own tensors
    adapted: AdaptedConfig = AdaptedConfig()
    tent: TentConfig = TentConfig()
    cotta_like: CottaLikeConfig = CottaLikeConfig()


class BaselineConfig(Section):
    """The budget of `--baseline centralised`."""

    # Set by fleetseg in the run folder of a baseline, so that it is not mistaken for a fleet's.
    kind: Literal["", "centralised", "local"] = ""
    images_share: float = Field(default=1.0, gt=0)  # of the images the federated run trains on


class EngineConfig(Section):
    """Where clients run."""

    kind: Literal["auto", "inprocess", "workers", "fleet"] = "auto"
    workers: int = Field(default=0, ge=0)  # 0 = one per allowed core; "fleet": sites, up to 4
    threads: int = Field(default=1, ge=1)  # per client; affects the result, so never automatic
    # Threads that read and augment batches while each client trains; does not affect the result.
    # 0 = the training thread does it; "auto": one if a core is free, two on a GPU.
    loaders: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class FleetConfig(Section):
    """Time-outs and bounds of a fleet over a network; not part of the experiment's digest."""

    # With fewer, the run waits; 0 = a quorum of the cohort that the whole fleet would give.
    min_vehicles: int = Field(default=0, ge=0)
    wait_s: float = Field(default=300.0, gt=0)  # longest wait for min_vehicles; then the run ends
    gather_s: float = Field(default=120.0, gt=0)  # for vehicles to open their data, per segment
    silent_s: float = Field(default=15.0, gt=2)  # without a heartbeat, a vehicle is lost
    # After this long without a step or a sample, a vehicle restarts its trainer; opening data may
    # take longer.
    stalled_s: float = Field(default=300.0, gt=2)
    fetch_s: float = Field(default=20.0, gt=0)  # idle, but has not fetched its task: lost
    # Longest a vehicle may take for a task where federation.deadline_s is 0: this for its first
    # turn, from then on five times what turns have taken.
    first_turn_s: float = Field(default=21_600.0, gt=0)
    segment_rounds: int = Field(default=50, ge=1)  # then the engine's job is renewed
    renew_s: float = Field(default=60.0, ge=0)  # earliest renewal for a vehicle that came back
    round_every_s: float = Field(default=0.0, ge=0)  # least time between round starts
    max_images: int = Field(default=100_000, ge=1)  # most that one vehicle may claim: its weight
    # Claims count for at most this multiple of the fleet's median; 0 = no limit.
    max_times_median: float = Field(default=5.0, ge=0)
    # A change is refused if its norm per step is over this multiple of the fleet's recent norms; 0
    # = no limit.
    max_times_norm: float = Field(default=10.0, ge=0)
    # By name of a kit: the most images that all its vehicles together may claim, and count for.
    max_images_of: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    max_vehicles: int = Field(default=10, ge=1)  # most vehicles of one kit
    max_vehicles_of: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    outage_s: float = Field(default=300.0, gt=0)  # without any connection; then the run ends
