"""What a site makes of its derived features once the sums of all sites are known: ComBat's.

The site's own location and scale are worked out from its own cases and stay in its home, as does
the table that is written.
"""

import csv
import io

import numpy as np

from federated.data.dataset import SPLITS
from federated.data.load import listed
from federated.errors import ConsiliumError
from federated.files import PRIVATE, write_text
from federated.planning.bins import Counts
from federated.planning.combat import learned_effect, without_site
from federated.planning.feature_sums import FeatureScheme, pooled_model
from federated.stages.site import Site
from federated.stages.worker import held_cases, worker_context

# Digits of a number in the table: as many as its sums have.
DIGITS = 12


def write_features(site: Site, scheme: FeatureScheme, sums: Counts) -> bool:
    """Write a table of the site's features without what the site adds; whether there is one.

    It has a line for each case of every split, with the columns ``case``, ``split``, the features
    and their covariates as they were. What the site adds is learned from its training cases alone.

    Args:
        site: the site.
        scheme: which features.
        sums: over all sites, int64 ``(scheme.size,)``. Where no model can be made of them the
            coordinator reports why, and there is no table.

    Raises:
        ConsiliumError: of the site's own cases no location and scale can be told.
    """
    try:
        model = pooled_model(scheme, sums)
    except ConsiliumError:
        return False
    context, cases = worker_context(site), held_cases(site)
    files = listed(context.located, context.experiment.data)
    found = {split: cases.files(site.name, split, files) or () for split in SPLITS}
    width = sum(scheme.shape)
    values = {
        split: np.array([case.features for case in own], np.float64).reshape(len(own), width)
        for split, own in found.items()
    }
    effect = learned_effect(model, values["train"], site.name)
    named = (*scheme.features, *scheme.covariates)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "split", *(name for name, _ in named)])
    for split, own in found.items():
        clean = without_site(model, effect, values[split], site.name)
        kept = values[split][:, scheme.shape[0] :]
        for case, row in zip(own, np.column_stack([clean, kept]).tolist(), strict=True):
            writer.writerow([case.name, split, *(f"{number:.{DIGITS}g}" for number in row)])
    write_text(site.store.features_path, text.getvalue(), PRIVATE)
    return True
