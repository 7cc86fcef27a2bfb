"""On the PYTHONPATH of all that the tests start: Python looks for garbage less often, and not at the end.

A process that imports Prefect makes a million objects that stay, and is ended seconds later: half of its processor time
was looking through them. Garbage is still looked for, once in 200,000 new objects.
"""

import atexit
import gc

gc.set_threshold(200_000, 10, 10)
atexit.register(gc.freeze)
