"""What every service shares: settings, JSON logs, metrics, health, lifecycle, patience."""

from frond.runtime.crashpoints import crash_point, maybe_crash_point
from frond.runtime.egress import Egress
from frond.runtime.health import Health
from frond.runtime.logs import configure_logs, get_logger
from frond.runtime.patience import count_wait, count_wait_of, pass_waits_on, wait_out
from frond.runtime.scratch import clear_folders, folder_on_disk
from frond.runtime.service import Service, serve, settle
from frond.runtime.settings import ServiceSettings

__all__ = [
    "Egress",
    "Health",
    "Service",
    "ServiceSettings",
    "clear_folders",
    "configure_logs",
    "count_wait",
    "count_wait_of",
    "crash_point",
    "folder_on_disk",
    "get_logger",
    "maybe_crash_point",
    "pass_waits_on",
    "serve",
    "settle",
    "wait_out",
]
