"""Every random draw comes from a generator derived from (seed, round, site, purpose)."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

# What everything random about the cases of a batch is drawn from: one generator for all of them in
# turn, or one generator for each case, so that no case has a part in another's draws.
Draws = torch.Generator | Sequence[torch.Generator]


def derive_seed(seed: int, *, purpose: str, round_number: int = 0, site: str = "") -> int:
    """Return an integer in [0, 2**63) that depends on all four arguments alone.

    SHA-256 keeps neighbouring seeds, rounds and sites apart, and two different purposes never share
    a stream.
    """
    digest = hashlib.sha256(f"{seed}|{round_number}|{site}|{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_generator(
    seed: int, *, purpose: str, round_number: int = 0, site: str = ""
) -> np.random.Generator:
    """A NumPy generator for one purpose at one site in one round."""
    return np.random.default_rng(
        derive_seed(seed, purpose=purpose, round_number=round_number, site=site)
    )


def torch_generator(
    seed: int, *, purpose: str, round_number: int = 0, site: str = ""
) -> torch.Generator:
    """A CPU torch generator for one purpose at one site in one round."""
    return torch.Generator().manual_seed(
        derive_seed(seed, purpose=purpose, round_number=round_number, site=site)
    )


@contextmanager
def global_draws(generator: torch.Generator) -> Iterator[None]:
    """Let code that draws from torch's global generator alone, as TorchIO does, draw from this one.

    The global generator is put back afterwards.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed writes the stack down for devices that are not there, each time.
        torch.default_generator.manual_seed(seed)
        yield
