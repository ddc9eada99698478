"""For which sums a site has answered, across all runs.

The update that a site sends follows from its data and the state that it starts from; where two
sums of the same round, of two attempts or of two runs, are of different sites, their difference is
the update of a few, or of one. So a site helps for one set of sites alone to each (data, start
state), whatever run asks.

What that does not cover: a site that is in one of the two sums alone has nothing to refuse with,
and relies on the others in both. Runs from other states, as from another seed, are other training;
their sums differ by more than one update, but what a model learned of a site's cases is in both.
Only differential privacy bounds that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from federated.errors import ConsiliumError


@dataclass(frozen=True)
class Answered:
    """By data and start state, the sites of the sum that was opened.

    Nothing in it is ever forgotten: an entry that was dropped is a sum that could be opened again
    with another set. It grows by some dozens of bytes for each site of a sum with every round.
    """

    sums: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def allow(self, data: str, state: str, responded: Iterable[str], own: str = "") -> "Answered":
        """What to store *before* the site answers, where it may; equal to this if it answered so.

        Args:
            data: a digest of the site's data, the same for the same cases.
            state: the SHA-256 of the state that the round starts from.
            responded: the sites whose updates are in the sum, as ``NAME`` or ``NAME (KEY)``.
            own: which of them the site itself is. Where it had another key before, as simulated
                sites have in each run, names alone are compared.

        Raises:
            ConsiliumError: it has answered for other sites with the same data and state.
        """
        if not data or not state:
            raise ValueError("data and state have to be named, or all sums were one")
        names = tuple(sorted(set(responded)))
        self.refuse_other(data, state, names, own)
        return Answered(dict(self.sums) | {(data, state): names})

    def refuse_other(self, data: str, state: str, responded: Iterable[str], own: str = "") -> None:
        """Refuse a sum where another was answered for; where none was, nothing is refused.

        Arguments are those of :meth:`allow`.

        Raises:
            ConsiliumError: it has answered for other sites with the same data and state.
        """
        names = tuple(sorted(set(responded)))
        before = self.sums.get((data, state))
        by_key = before is not None and own in before
        same = before == names if by_key else _names(before or ()) == _names(names)
        if before is not None and not same:
            differing = {*before} ^ {*names} if by_key else {*_names(before)} ^ {*_names(names)}
            other = ", ".join(sorted(differing))
            raise ConsiliumError(
                "The site has already answered for a sum of updates from the same data and the "
                f"same start state, in this run or another, and for other sites: a second sum with "
                f"or without {other} would reveal their updates by the difference. It answers "
                "nothing. Resume when the same sites can take part, or start a run from another "
                "state, as with another seed."
            )

    def to_json(self) -> dict[str, dict[str, list[str]]]:
        """By data, by state, the names."""
        result: dict[str, dict[str, list[str]]] = {}
        for (data, state), names in self.sums.items():
            result.setdefault(data, {})[state] = list(names)
        return result

    @staticmethod
    def from_json(value: Any) -> "Answered":
        """The value from what :meth:`to_json` gave.

        Raises:
            ConsiliumError: it is something else. The site then answers nothing, since what it has
                answered for is not known.
        """
        try:
            sums = {
                (data, state): tuple(names)
                for data, states in value.items()
                for state, names in states.items()
            }
            lists = [names for states in value.values() for names in states.values()]
            good = all(isinstance(names, list) for names in lists) and all(
                isinstance(name, str) for names in lists for name in names
            )
        except (AttributeError, TypeError):
            good = False
        if not good:
            raise ConsiliumError(
                "The record of the sums that the site has answered for cannot be read, so it "
                "answers for none. Put it back from a backup of the site's home."
            )
        return Answered(sums)


def _names(sites: Iterable[str]) -> list[str]:
    """The names of sites without their keys; no name has a space in it."""
    return sorted(site.split(" ", 1)[0] for site in sites)
