"""When a process of ours looks for cycles of objects that nobody uses any more.

Python does so after every 700 new objects, and once more through all that it has imported before it
ends. Torch, Prefect and MLflow are a million objects that stay: looking through them took a fifth
of the processor time of importing them, and two to three seconds at the end, when the system takes
all memory back anyhow. Importing this module has a process look rarely, and not at the end.
"""

import atexit
import gc

NEW_OBJECTS = 50_000

gc.set_threshold(NEW_OBJECTS, 20, 20)
# Registered early, and so run late: what is to be written or told at the end is done by then.
atexit.register(gc.freeze)
