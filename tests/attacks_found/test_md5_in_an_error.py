"""What a private run says of data that has changed goes to Prefect: the MD5 is not told there."""

import pytest

from federated.configuration.load import load_experiment
from federated.data.dataset import LocatedFile
from federated.errors import ConsiliumError
from flows.prepare import _refuse_other_data
from tests.federated.federation import begin

pytestmark = pytest.mark.usefixtures("project")
SITE_LEVEL = ("privacy.name=site_level", "privacy.noise_multiplier=1", "privacy.clip=1")


@pytest.mark.parametrize(("privacy", "told"), [(SITE_LEVEL, False), ((), True)])
def test_the_md5_of_a_sites_own_data_is_in_no_message_of_a_private_run(privacy, told):
    folder = begin(*privacy).folder
    then = folder.data()
    now = LocatedFile(then.path, "files", "0" * 32)
    experiment = load_experiment("tiny", privacy)
    with pytest.raises(ConsiliumError, match="has changed since run") as error:
        _refuse_other_data(experiment, folder, now, then)
    assert (then.md5 in str(error.value)) == told
