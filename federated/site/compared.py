"""With which counts a site compares its own and tells how far they are: with one vector, for ever.

What was counted of all sites the coordinator tells, and no site sees the sum itself. One that lies
tells what it likes, and a distance to counts of its choice, or that some of them are fewer than the
site's own, says something of these; from many they follow. So of the same records a site tells of
one comparison alone, in whatever run, and writes down with what before it does. As the ledger this
belongs to who holds the data.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from federated.errors import unreadable
from federated.files import PRIVATE, locked, read_json, write_json
from federated.secrets.home import private_folder
from federated.site.home import SiteHome


def compares_first(home: SiteHome, records: Sequence[str], counts: bytes) -> bool:
    """Whether a site may tell how far it is from some counts; it is written down that it does.

    Args:
        home: the site's home.
        records: the digests of the records that are compared.
        counts: what they are compared with.

    Returns:
        False where it has told of other counts before.

    Raises:
        ConsiliumError: what is written down cannot be read.
    """
    own = sha256("|".join(sorted(records)).encode()).hexdigest()
    told, path = sha256(counts).hexdigest(), home.compared_path
    with locked(private_folder(path.parent) / f"{home.name}.lock"):
        try:
            known: dict[str, Any] = dict(read_json(path)) if path.is_file() else {}
        except (OSError, ValueError, TypeError) as error:
            raise unreadable(path, error) from error
        if own not in known:
            write_json(path, known | {own: told}, PRIVATE)
        return bool(known.get(own, told) == told)
