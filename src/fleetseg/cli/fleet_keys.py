"""The commands for a fleet's keys, registered by `cli.fleet`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fleetseg.cli import key_options as k
from fleetseg.cli import options as o
from fleetseg.console import reports_errors


@reports_errors
def fleet_list(
    fleet: o.FleetFolder = Path("fleet"), as_json: o.Json = False, debug: o.Debug = False
) -> None:
    """List a fleet's vehicles, when their certificates expire, and where private keys are.

    \b
    Examples:
      fleetseg fleet list --fleet fleet
      fleetseg fleet list --fleet fleet --json
    """  # noqa: D301
    from fleetseg.console.fleet_keys import list_and_show

    list_and_show(fleet, as_json=as_json)


@reports_errors
def fleet_request(
    vehicle: o.VehicleName, kit: k.NewKit = Path("kit"), debug: o.Debug = False
) -> None:
    """On a vehicle: create its private key, and a request for the fleet's operator to sign.

    \b
    Example:
      fleetseg fleet request car-7 --kit kit
    """  # noqa: D301
    from fleetseg.console.fleet_keys import request_and_show

    request_and_show(vehicle, kit)


@reports_errors
def fleet_sign(
    request: k.SigningRequest, fleet: o.FleetFolder = Path("fleet"), debug: o.Debug = False
) -> None:
    """Admit a vehicle that has created its own key; its kit has no private key.

    \b
    Example:
      fleetseg fleet sign car-7.csr --fleet fleet
    """  # noqa: D301
    from fleetseg.console.fleet_keys import sign_and_show

    sign_and_show(fleet, request)


@reports_errors
def fleet_handed(
    vehicle: o.VehicleName, fleet: o.FleetFolder = Path("fleet"), debug: o.Debug = False
) -> None:
    """Remove a vehicle's private key from this machine, once the vehicle has its kit.

    \b
    Example:
      fleetseg fleet handed car-5 --fleet fleet
    """  # noqa: D301
    from fleetseg.console.fleet_keys import hand_over_and_show

    hand_over_and_show(fleet, vehicle)


@reports_errors
def fleet_unrevoke(
    vehicle: o.VehicleName, fleet: o.FleetFolder = Path("fleet"), debug: o.Debug = False
) -> None:
    """Let a revoked vehicle take part again; a running server admits it within seconds.

    \b
    Example:
      fleetseg fleet unrevoke car-5 --fleet fleet
    """  # noqa: D301
    from fleetseg.console.fleet_keys import unrevoke_and_show

    unrevoke_and_show(fleet, vehicle)


@reports_errors
def fleet_rotate(
    vehicle: k.OptionalVehicle = "",
    fleet: o.FleetFolder = Path("fleet"),
    request: k.RotationRequest = None,
    all_vehicles: k.AllVehicles = False,
    server: k.RotateServer = False,
    debug: o.Debug = False,
) -> None:
    """Issue new certificates; old and new ones are accepted side by side.

    \b
    Examples:
      fleetseg fleet rotate car-5 --fleet fleet
      fleetseg fleet rotate car-7 --fleet fleet --request car-7.csr
      fleetseg fleet rotate --fleet fleet --all
      fleetseg fleet rotate --fleet fleet --server
    """  # noqa: D301
    from fleetseg.console.fleet_keys import rotate_and_show

    rotate_and_show(fleet, vehicle, request, all_vehicles=all_vehicles, server=server)


KEY_COMMANDS: dict[str, Callable[..., None]] = {
    "list": fleet_list,
    "request": fleet_request,
    "sign": fleet_sign,
    "handed": fleet_handed,
    "unrevoke": fleet_unrevoke,
    "rotate": fleet_rotate,
}
