"""What Prefect's log says of a run, as people read it on its page or by `--watch`.

By itself Prefect logs an error that a flow ends with twice, each time with where in the program it
came up. Where a person can do something about that error, the program is not what they have to
read. And `--watch` takes what stands in square brackets for marks of its own: a name would be gone,
and a site could write a line that ends whoever watches. To import this module is enough; `consilium
--debug` keeps all that Prefect logs of an error.
"""

import logging
import os
import re

from federated.errors import LONGEST_ERROR, ConsiliumError, printable

# Of flow runs and of task runs, as Prefect names them.
LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
# How Prefect begins to say an error a second time, when its engine ends by it.
AGAIN = "Engine execution"
# What begins a mark for the library that `--watch` prints with (Rich).
MARK = re.compile(r"\[(?=[a-z#/@][^\[]*\])")


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


class WithoutMarks(logging.Filter):
    """Shows what would command a terminal, and puts a space after each bracket of a mark."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is kept, as each is."""
        record.msg, record.args = _shown(record.getMessage()), ()
        if record.exc_info and record.exc_info[0]:
            # A formatter takes what is there already.
            told = logging.Formatter().formatException(record.exc_info)
            record.exc_text = _shown(told)
        return True


def _shown(text: str) -> str:
    return without_marks(printable(text, LONGEST_ERROR, keep="\n\t"))


def without_marks(text: str) -> str:
    """A text in which no bracket begins a mark of Rich's."""
    return MARK.sub("[ ", text)


for _name in LOGGERS:
    for _filter in (InOneParagraph(), WithoutMarks()):
        logging.getLogger(_name).addFilter(_filter)
