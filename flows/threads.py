"""The threads of a flow, which only wait for the pool of workers that does the work."""

import os
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

THREADS = max(32, 4 * (os.cpu_count() or 1))
RUNNER: Any = ThreadPoolTaskRunner(max_workers=THREADS)
