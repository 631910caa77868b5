"""A fleet's folder with a root key of its own, made without NVFlare's provisioning."""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fleetseg.fleet.nvflare.certificates import Authority, key_pem, new_key
from fleetseg.fleet.nvflare.provision import Fleet


@functools.cache
def one_key() -> Any:
    """A key; the same at each call, as making one takes a while."""
    return new_key()


def authority(days: float = 360, began_days_ago: float = 0) -> Authority:
    """A root as NVFlare makes it."""
    from nvflare.lighter.utils import Identity, generate_cert

    name, key = Identity("fleetseg"), one_key()
    began = datetime.now(UTC) - timedelta(days=began_days_ago)
    root = generate_cert(
        *(name, name, key, key.public_key()), days, ca=True, not_valid_before=began
    )
    return Authority(key, root)


def paper_fleet(
    folder: Path, *vehicles: str, days: float = 360, began_days_ago: float = 0
) -> Fleet:
    """What `create_fleet` leaves, with empty kits."""
    root = authority(days, began_days_ago)
    state = {"root_cert": root.pem.decode(), "root_pri_key": key_pem(root.key).decode()}
    fleet = Fleet(folder.resolve(), "localhost", 8102, vehicles)
    for path in ("pki/ws/fleetseg/state", "server/local", "server/startup", "operator/startup"):
        (folder / path).mkdir(parents=True)
    (folder / "pki/ws/fleetseg/state/cert.json").write_text(json.dumps(state))
    for name in ("authorization.json.default", "log_config.json.default"):
        (folder / "server" / "local" / name).write_text("{}")
    fleet.save()
    return fleet
