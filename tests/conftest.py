"""What every test keeps to: nothing is asked of the world outside."""

from __future__ import annotations

import gc
import os
import signal

# Azure's price list is open to everybody: planning without an account asks for it. Nobody listens here.
os.environ.setdefault("CLOUDRUN_AZURE_PRICES_URL", "http://127.0.0.1:9/prices")

# A shell in the background leaves Ctrl-C ignored for all that it starts, nohup a hangup; tests need both.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


def pytest_collection_finish() -> None:
    """Look for garbage less often, and not among what stays: a quarter of all work was that."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
