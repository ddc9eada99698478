"""What Prefect's log says of a run that has failed: why, in the words that are for a person.

By itself Prefect logs an error that a flow ends with twice, each time with where in the program it
came up. Where a person can do something about that error, the program is not what they have to
read. To import this module is enough; `consilium --debug` keeps all that Prefect logs.
"""

import logging
import os

from federated.errors import ConsiliumError

# Of flow runs, as Prefect names it: their pages and `--watch` show what it is told.
LOGGER = "prefect.flow_runs"
# How Prefect begins to say an error a second time, when its engine ends by it.
AGAIN = "Engine execution"


class InOneParagraph(logging.Filter):
    """Makes one paragraph of what is logged of a :class:`ConsiliumError`; the rest stays."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is kept."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, ConsiliumError) or os.environ.get("CONSILIUM_DEBUG"):
            return True
        if str(record.msg).startswith(AGAIN):
            return False
        record.msg, record.args, record.exc_info = str(error), (), None
        return True


logging.getLogger(LOGGER).addFilter(InOneParagraph())
