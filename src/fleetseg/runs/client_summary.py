"""Summary figures of each client's data."""

from __future__ import annotations

from dataclasses import dataclass

from fleetseg.clients import FleetData


@dataclass(frozen=True)
class ClientSummary:
    """One client's data in figures."""

    client: str
    images: int
    unusable: int  # bad or without a label
    held_out: int
    domains: tuple[str, ...]
    pixels: int  # labelled
    histogram_C: tuple[int, ...]
    abstains: str  # why, or empty


def summarise_clients(fleet_data: FleetData) -> tuple[ClientSummary, ...]:
    """Return a summary of each client, by name, for a fleet whose data are on disk."""
    manifest = fleet_data.manifest
    assert manifest is not None
    return tuple(
        ClientSummary(
            client=name,
            images=client.enrolment.num_images,
            unusable=len(manifest.clients[name]) - client.enrolment.num_images,
            held_out=len(manifest.held_out.get(name, ())),
            domains=tuple(sorted(client.train_domains or ())),
            pixels=client.enrolment.num_pixels,
            histogram_C=client.enrolment.histogram_C,
            abstains=client.enrolment.abstains,
        )
        for name, client in sorted(fleet_data.clients.items())
    )
