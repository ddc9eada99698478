"""Simulated sites: homes that are made for a run on one machine, instead of by hospitals.

A simulated site trusts the coordinator of its run and takes part in everything; its policy says so.
"""

from pathlib import Path

from federated.data.dataset import LocatedFile
from federated.exchange.identity import PublicIdentity
from federated.exchange.policy import PERMISSIVE
from federated.secrets.home import private_folder
from federated.site.home import Parts, SiteHome


def make_home(
    root: Path, run_id: str, coordinator: PublicIdentity, data: LocatedFile, parts: Parts
) -> PublicIdentity:
    """Make the home of a simulated site, or bring it up to date; return who the site is.

    Args:
        root: the home's folder, which has the site's name.
        run_id: the run that the home is made for.
        coordinator: whom the site trusts.
        data: the site's data.
        parts: which cases of the data are the site's.

    Raises:
        ConsiliumError: others can open the home, or it cannot be written to.
    """
    home = SiteHome(private_folder(root, root))
    home.know(coordinator)
    if not home.policy_path.is_file():
        home.write_policy(PERMISSIVE)
    home.run(run_id).write_data(data, parts)
    return home.identity().public
