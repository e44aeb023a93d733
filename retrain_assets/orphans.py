"""Processes that end with the one that started them, however that one went."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Let this process, started by multiprocessing, end at once when its parent is gone.

    Nobody would hear what comes of its work, and it would hold a core for hours. To end like this
    is no worse than a power cut: what is stored is whole, and the next run goes on from the last
    checkpoint.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()  # waits on a pipe that closes with the parent: nothing is polled
        os._exit(1)

    threading.Thread(target=watch, name="end_with_parent", daemon=True).start()
