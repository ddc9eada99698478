"""What a site has done in an attempt at a round, so that nothing is made twice with one secret.

Shares are sealed under a key for one message, and a mask hides one vector: made anew with the same
secrets for something else, the two could be subtracted. A site that signed two views would let a
coordinator have two lists answered. So each step is marked before it is done, and what it gave is
stored; asked again, the site sends what is stored, or refuses where it is asked for something else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from federated.errors import ConsiliumError
from federated.protection.secagg.masks import WORDS
from federated.protection.secagg.roster import roster_digest
from federated.protection.secagg.round import Advertised, Round
from federated.protection.secagg.view import View


@dataclass(frozen=True)
class Done:
    """What a site has done in one attempt; the caller stores it beside the secrets.

    Each method gives the value to store *before* the step is done. Where it equals the value that
    it was called on, the very same was done before, and the stored bytes are to be sent again.
    Masking and signing give the same bytes when they are done again for the same; sharing does not,
    so where its bytes were not stored before a crash, the secrets have to be erased and the attempt
    is over for the site.

    Attributes:
        attempt: the label of the run, round and attempt.
        shared: the digest of the roster that the site dealt shares to; empty before.
        masked: the digest of the values that it masked; empty before.
        sharing: with whom it masked.
        signed: the digest of the view that it signed; empty before.
    """

    attempt: str
    shared: str = ""
    masked: str = ""
    sharing: tuple[str, ...] = ()
    signed: str = ""

    @staticmethod
    def nothing(round_: Round) -> "Done":
        """Nothing done yet in a round's attempt."""
        return Done(round_.label("attempt"))

    def share(self, advertised: Mapping[str, Advertised], round_: Round) -> "Done":
        """Mark that shares are dealt to the sites of a roster.

        Raises:
            ConsiliumError: shares were dealt to those of another, or in another attempt.
        """
        return self._mark("shared", roster_digest(advertised, round_), round_)

    def mask(
        self,
        quantised: npt.NDArray[np.int32],
        advertised: Mapping[str, Advertised],
        sharing: Sequence[str],
        round_: Round,
    ) -> "Done":
        """Mark that values are masked with those who completed stage 2.

        Args:
            quantised: the values, int32 ``(length,)``.
            advertised: the public keys of all sites.
            sharing: the sites that completed stage 2.
            round_: what all parties know of the round.

        Raises:
            ConsiliumError: other values were masked before, or with others, or shares were dealt to
                the sites of another roster.
        """
        self._refuse_roster(roster_digest(advertised, round_), round_)
        names = tuple(sorted(sharing))
        if self.masked and self.sharing != names:
            raise ConsiliumError(self._other("masks with other sites", round_))
        values = sha256(quantised.astype(WORDS[round_.bits]).data).hexdigest()
        return replace(self._mark("masked", values, round_), sharing=names)

    def sign(self, view: View, round_: Round) -> "Done":
        """Mark that a view is signed.

        A site that masked with some alone would be left with no mask at all once these are said to
        be missing, so those who responded and those who are missing have to be all that it masked
        with.

        Raises:
            ConsiliumError: the site signed another view before, masked nothing or with other sites
                than the view has, or dealt shares to those of another roster.
        """
        self._refuse_roster(view.roster, round_)
        told = {*view.responded, *view.missing}
        if not self.masked or told != set(self.sharing):
            differ = ", ".join(sorted(told ^ set(self.sharing)))
            raise ConsiliumError(
                f"The sites that are said to have responded in round {round_.number} or to be "
                f"missing are not those that the update was masked with; they differ in {differ}. "
                "The sum could be that of one site. Nothing is signed; resume the run, and the "
                "round begins anew."
            )
        return self._mark("signed", view.digest, round_)

    def to_json(self) -> dict[str, Any]:
        """The value as plain values."""
        return asdict(self) | {"sharing": list(self.sharing)}

    @staticmethod
    def from_json(value: Any) -> "Done":
        """The value from what :meth:`to_json` gave.

        Raises:
            ConsiliumError: it is something else.
        """
        names = {field.name for field in fields(Done)}
        if isinstance(value, dict) and value.keys() == names:
            sharing, texts = value["sharing"], [value[name] for name in names - {"sharing"}]
            if isinstance(sharing, list) and all(isinstance(t, str) for t in [*texts, *sharing]):
                return Done(**(value | {"sharing": tuple(sharing)}))
        raise ConsiliumError(
            "What a site has noted of its steps in a round of secagg_plus cannot be read, so "
            "nothing more is done in it. Resume the run; the round begins anew."
        )

    def _mark(self, step: str, digest: str, round_: Round) -> "Done":
        if self.attempt != round_.label("attempt"):
            raise ConsiliumError(self._other("steps in another attempt", round_))
        before = getattr(self, step)
        if before and before != digest:
            what = {"shared": "shares for", "masked": "masks of", "signed": "a signature of"}[step]
            raise ConsiliumError(self._other(f"{what} something else", round_))
        changed: dict[str, Any] = {step: digest}
        return replace(self, **changed)

    def _refuse_roster(self, roster: str, round_: Round) -> None:
        if self.shared != roster:
            raise ConsiliumError(self._other("shares for the sites of another roster", round_))

    def _other(self, what: str, round_: Round) -> str:
        return (
            f"In round {round_.number} of run {round_.run}, attempt {round_.attempt}, the site has "
            f"made {what} before with the same secrets; both together could reveal its update. "
            "It makes nothing more. Resume the run; the round begins anew."
        )
