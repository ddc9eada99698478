"""A round of SecAgg+ with all its parties in one process, for tests."""

from dataclasses import dataclass, replace

import numpy as np

from federated.protection.secagg import protocol
from federated.protection.secagg.consistency import Agreed, Said, check_consistent
from federated.protection.secagg.graph import draw_graph
from federated.protection.secagg.recovery import Evidence
from federated.protection.secagg.round import Round
from federated.protection.secagg.view import view

SITES = tuple(f"site-{number:02d}" for number in range(6))


@dataclass
class Parties:
    """The sites of a round after stage 2, and what the coordinator has of them.

    ``dealt`` has by dealer and holder what was dealt.
    """

    now: Round
    secrets: dict
    advertised: dict
    dealt: dict

    @property
    def sites(self):
        return tuple(sorted(self.secrets))

    def inbox(self, site, sharing=None):
        dealers = self.sites if sharing is None else sharing
        return {d: self.dealt[d][site] for d in dealers if site in self.dealt[d]}

    def quantised(self, length=20):
        rng = np.random.default_rng(len(self.sites))
        return {s: rng.integers(-127, 128, length).astype(np.int32) for s in self.sites}

    def masked(self, quantised, site, sharing=None):
        sharing = self.sites if sharing is None else sharing
        secrets, advertised = self.secrets[site], self.advertised
        return protocol.mask_update(quantised[site], secrets, advertised, sharing, self.now)

    def view(self, site, responded, missing=()):
        return view(site, self.advertised, list(responded), list(missing), self.now)

    def answer_view(self, site, told, sharing=None):
        """What a site answers for a view that nobody else has signed."""
        inbox, agreed = self.inbox(site, sharing), Agreed(told)
        return protocol.answer(self.secrets[site], inbox, self.advertised, agreed, self.now)

    def answer(self, site, responded, missing=(), sharing=None):
        return self.answer_view(site, self.view(site, responded, missing), sharing)

    def answers(self, views):
        """By site, what those answer to whom the consistency round lets them, of the ``views``."""
        said = {site: Said(told.digest, True) for site, told in views.items()}
        return {
            site: self.answer_view(site, check_consistent(site, told, said, self.now).view)
            for site, told in views.items()
        }

    def unmask(self, total, answers, responded, missing=(), sharing=None):
        dealers = self.sites if sharing is None else sharing
        dealt = {dealer: self.dealt[dealer] for dealer in dealers}
        evidence = Evidence(answers, dealt, self.advertised, self.now)
        return protocol.unmask(total, list(responded), list(missing), evidence)


def begin(sites=SITES, threshold=4, degree=5, **changes):
    """Stages 1 and 2 of all sites."""
    now = Round("run", 1, draw_graph(sites, degree, 0, 1), threshold, 16)
    return begin_round(replace(now, **changes))


def begin_round(now):
    """Stages 1 and 2 of all sites of a round."""
    own = {s: protocol.advertise(s, now.run, now.number, now.attempt) for s in now.neighbours}
    secrets = {site: pair[0] for site, pair in own.items()}
    advertised = {site: pair[1] for site, pair in own.items()}
    dealt = {site: protocol.share(secrets[site], advertised, now) for site in secrets}
    return Parties(now, secrets, advertised, dealt)
