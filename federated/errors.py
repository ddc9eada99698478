"""What is said to a person when their input cannot be used."""


class ConsiliumError(Exception):
    """One paragraph for a person: what is wrong, where, and what to do."""


class RefusalError(ConsiliumError):
    """What a site refuses to do, in words that tell nothing of its cases: all may read them.

    Of other errors at a site of a private run only the site itself is told: a file that cannot be
    read, say, is named by its path.
    """
