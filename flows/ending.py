"""How a process ends that was told to, while its threads are in the middle of something."""

import logging
import os
import sys
from typing import NoReturn


def be_quiet() -> None:
    """Log nothing from now on: what threads lack while a process ends under them is no fault."""
    logging.disable(logging.CRITICAL)


def end_now(code: int = 0) -> NoReturn:
    """End this process without waiting for what its threads do.

    Python would wait until a worker has done its stage, for hours perhaps, and let threads go on
    meanwhile in a process whose parts are gone one after the other. What was to be written is
    written by then, and workers end with their parent.

    Args:
        code: of the exit.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
