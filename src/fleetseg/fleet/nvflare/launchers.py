"""Launchers of NVFlare's job processes that quote paths, as NVFlare splits commands at blanks.

NVFlare 2.9 puts the paths of the server and the kits into the command unquoted: in a folder called
"my run", every job would end at once with "unrecognized arguments".
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobProcessArgs
from nvflare.app_common.job_launcher.process_launcher import ProcessJobLauncher
from nvflare.utils.job_launcher_utils import get_client_job_args, get_server_job_args


class ServerLauncher(ProcessJobLauncher):  # type: ignore[misc]
    """Starts the server's part of a job."""

    def get_command(self, job_meta: Any, fl_ctx: FLContext) -> str:
        """Return the command as a string that splits into the right words."""
        return command_text(fl_ctx.get_prop(FLContextKey.JOB_PROCESS_ARGS), get_server_job_args())


class VehicleLauncher(ProcessJobLauncher):  # type: ignore[misc]
    """Starts a vehicle's part of a job."""

    def get_command(self, job_meta: Any, fl_ctx: FLContext) -> str:
        """Return the command as a string that splits into the right words."""
        return command_text(fl_ctx.get_prop(FLContextKey.JOB_PROCESS_ARGS), get_client_job_args())


def command_text(arguments: dict[str, tuple[str, Any]], names: Sequence[str]) -> str:
    """Build a command of this Python; the options after `--set` are several words already."""
    words = [shlex.quote(sys.executable)]
    for name in names:
        if given := arguments.get(name):
            option, value = given
            several = name == JobProcessArgs.OPTIONS
            words += [option, str(value) if several else shlex.quote(str(value))]
    return " ".join(words)
