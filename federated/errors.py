"""The errors that tell a person why their input cannot be used."""


class ConsiliumError(Exception):
    """One paragraph for a person that says what is wrong, where, and what to do."""


class RefusalError(ConsiliumError):
    """A site's refusal, in words that tell nothing of its cases, because everyone may read them.

    Any other error at a site of a private run is shown to the site alone: it may, say, name by its
    path a file that cannot be read.
    """
