"""Nothing that pydicom says of a value reaches a log: the value may be a patient's name."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom import config

SILENT = logging.CRITICAL + 1


@contextmanager
def quiet() -> Iterator[None]:
    """Let pydicom and highdicom neither warn nor log, and check no value against its type.

    What pydicom says of a value that breaks the standard quotes it. It says so when a value is
    first looked at, so that everything which looks at one is to run in here.
    """
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(SILENT)
    try:
        with config.disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
