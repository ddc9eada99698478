"""``make mutants``: small faults are put into the code, one at a time; its tests have to notice.

Cosmic Ray makes the mutants. Each is run in a copy of this process in which the module is imported
from the mutated text, so that no file is ever changed, and what takes seconds to import is imported
once. A mutant that no test notices has to stand in ``docs/mutants.md`` with the reason.

    python -m tests.mutants [--jobs N] [place | place:module ...]

as in ``masks`` or ``masks:shares``. Rows there of what does not survive any more are told.
"""

import argparse
import ast
import contextlib
import difflib
import gc
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator

PROJECT = Path(__file__).resolve().parent.parent
EXPLAINED = PROJECT / "docs" / "mutants.md"

PRIVACY, PROTECTION = "tests/federated/privacy/", "tests/federated/protection/"
CHAIN = PRIVACY + "test_hash_chain.py"
LEDGER, SECAGG = PRIVACY + "test_ledger.py", PROTECTION + "test_secagg.py"
# Without this one, which is slow and of the accountant.
ENTRIES = (LEDGER, f"--deselect={LEDGER}::TestRecords::test_prv_is_never_above_rdp_and_never_below")
COMPOSED = (PRIVACY + "test_composition.py", PRIVACY + "test_patients.py", *ENTRIES)
SUM = f"{SECAGG}::test_the_sum_is_exact_for_every_pattern_of_dropouts"
PARTS, BOUNDS = f"{SECAGG}::TestParts", PROTECTION + "test_secagg_bounds.py"
PACKING = (
    PROTECTION + "test_packing.py",
    PROTECTION + "test_protection.py::TestPackedBFV",
    PROTECTION + "test_protection.py::test_parameters_below_128_bits_are_refused",
)
# Which protections add whole numbers exactly.
CONFIG = "tests/federated/configuration/test_config.py::TestNetworks"
EXACT = f"{CONFIG}::test_a_metric_that_what_sites_send_does_not_give_is_refused"
LIES, FAULTS = PROTECTION + "test_secagg_lies.py", PROTECTION + "test_secagg_faults.py"
ONCE = PROTECTION + "test_secagg_once.py"
TAGS, PROOFS = PROTECTION + "test_tags.py", PROTECTION + "test_tag_proofs.py"
RING, RLWE = PROTECTION + "test_rlwe_ring.py", PROTECTION + "test_rlwe_secagg.py"
RLWE_SIZES = PROTECTION + "test_rlwe_parameters.py"
# By place, its modules, each with the tests that have to notice.
PLACES: dict[str, dict[str, tuple[str, ...]]] = {
    "ledger": {"privacy/hash_chain.py": (CHAIN, *ENTRIES), "privacy/ledger.py": ENTRIES},
    "accountant": {
        "privacy/accounting.py": (PRIVACY + "test_accounting.py",),
        "privacy/composition.py": COMPOSED,
        "privacy/spending.py": COMPOSED,
    },
    "masks": {
        "protection/secagg/masks.py": (PARTS, SUM),
        "protection/secagg/graph.py": (PARTS, f"{SECAGG}::TestSparseGraphs", SUM),
        "protection/secagg/shares.py": (PARTS, SUM),
        "protection/secagg/bounds.py": (BOUNDS,),
    },
    # What a site checks of what it is told, and whom a sum that does not come out is laid to.
    "rounds": {
        "protection/secagg/consistency.py": (LIES, FAULTS, SECAGG),
        "protection/secagg/roster.py": (LIES, FAULTS, SECAGG),
        "protection/secagg/view.py": (LIES, FAULTS, SECAGG),
        "protection/secagg/recovery.py": (FAULTS, LIES, SECAGG),
        "protection/secagg/answered.py": (ONCE, FAULTS, LIES),
        "protection/secagg/once.py": (ONCE, FAULTS, LIES),
    },
    "tags": {
        "protection/tags.py": (TAGS, PROOFS),
        "protection/tag_proofs.py": (PROOFS, TAGS),
        "protection/opened.py": (PROTECTION + "test_opened.py",),
        "protection/digits.py": (PROTECTION + "test_digits.py",),
    },
    "packing": {"protection/packing.py": PACKING, "protection/packed_bfv.py": (*PACKING, EXACT)},
    "rlwe": {
        "protection/rlwe/bits.py": (RING, RLWE),
        "protection/rlwe/ring.py": (RING, RLWE),
        "protection/rlwe/encryption.py": (RING, RLWE_SIZES, RLWE),
        "protection/rlwe/payload.py": (RLWE, RING),
        "protection/rlwe/parameters.py": (RLWE_SIZES, RING, RLWE),
    },
}

# One that is like it for each operator, and the bounds of comparisons; numbers one up and one down.
# Not `|`, which is a type's nearly everywhere.
OPERATORS = (
    *("AddNot", "NumberReplacer", "ExceptionReplacer", "ZeroIterationForLoop"),
    *("ReplaceAndWithOr", "ReplaceOrWithAnd", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak"),
    *("ReplaceUnaryOperator_Delete_Not", "ReplaceUnaryOperator_USub_UAdd"),
    *(
        f"ReplaceComparisonOperator_{change}"
        for change in ("Lt_LtE", "LtE_Lt", "Gt_GtE", "GtE_Gt", "Lt_GtE", "LtE_Gt", "Gt_LtE")
    ),
    *(
        f"ReplaceComparisonOperator_{change}"
        for change in ("GtE_Lt", "Eq_NotEq", "NotEq_Eq", "Is_IsNot", "IsNot_Is")
    ),
    *(
        f"ReplaceBinaryOperator_{change}"
        for change in ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_FloorDiv")
    ),
    *(f"ReplaceBinaryOperator_{change}" for change in ("Pow_Mul", "LShift_RShift", "BitAnd_BitOr")),
)
# What tests and modules import of others, and what is slow to.
IMPORTED = (
    *("cryptography.hazmat.primitives.ciphers", "Crypto.Protocol.SecretSharing", "hypothesis"),
    *("networkx", "numpy", "opacus.accountants", "pyarrow", "pydantic", "pytest", "scipy.optimize"),
    *("scipy.stats", "tenseal.sealapi", "torch", "yaml"),
)
# Tests that take seconds come last: only mutants that the others do not notice wait for them.
SLOW = (
    "test_both_accountants_agree_with_googles_within_two_percent",
    "test_killed_between_any_two_writes_no_release_is_missing",
    "test_prv_is_never_above_rdp_and_never_below_the_truth_of_the_worst",
    "test_the_bound_on_falling_apart_is_above_how_often_it_happens",
    "test_the_noise_found_reaches_the_target_and_hardly_more",
    "test_the_sum_is_exact_for_every_pattern_of_dropouts",
    "test_what_is_chosen_does_what_it_has_to_and_one_step_less_does_not",
)


class SlowLast:
    """A plugin of pytest."""

    @staticmethod
    def pytest_collection_modifyitems(items: list[Any]) -> None:
        items.sort(key=lambda item: item.name.startswith(SLOW))


@dataclass(frozen=True)
class Mutant:
    """A module with one fault: where it is, and the line before and after."""

    path: Path
    tests: tuple[str, ...]
    source: str
    place: str
    before: str = ""
    after: str = ""

    @property
    def row(self) -> str:
        """The beginning of its row in ``docs/mutants.md``."""
        cells = (f"`{self.place}`", f"`{self.before}`", f"`{self.after}`")
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def mutants(path: Path, tests: tuple[str, ...]) -> Iterator[Mutant]:
    """All mutants of a module that are other code than it."""
    source = path.read_text(encoding="utf-8")
    seen = {ast.dump(ast.parse(source))}
    for name in OPERATORS:
        operator, occurrence = get_operator(f"core/{name}")(), 0
        while (changed := mutate_code(source, operator, occurrence)) is not None:
            occurrence += 1
            with contextlib.suppress(SyntaxError):  # of the ** of arguments it makes no Python
                code = ast.dump(ast.parse(changed))
                if code not in seen:
                    seen.add(code)
                    yield _located(path, tests, source, changed)


def _located(path: Path, tests: tuple[str, ...], source: str, changed: str) -> Mutant:
    old, new = source.splitlines(), changed.splitlines()
    (number, end, start, stop) = next(
        (i, j, k, m)
        for tag, i, j, k, m in difflib.SequenceMatcher(None, old, new, False).get_opcodes()
        if tag != "equal"
    )
    before, after = (" ".join(" ".join(p).split()) for p in (old[number:end], new[start:stop]))
    scope = ".".join(
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and min([node.lineno, *(d.lineno for d in node.decorator_list)])
        <= number + 1
        <= (node.end_lineno or 0)
    )
    module = _name(path)
    return Mutant(path, tests, changed, f"{module}:{scope}" if scope else module, before, after)


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts)


class Mutated(MetaPathFinder, SourceFileLoader):
    """Imports one module from another text than its file's."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__(_name(mutant.path), str(mutant.path))
        self.text = mutant.source

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec:
        if fullname != self.name:
            return None
        return spec_from_file_location(fullname, self.path, loader=self)

    def get_code(self, fullname: str) -> object:
        return compile(self.text, self.path, "exec")


def start(mutant: Mutant, folder: Path, seconds: float) -> int:
    """Run the tests of a mutant in a copy of this process; its number."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    # Of a loop without end, also in a process that a test starts, and of a wait without end.
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    signal.alarm(int(10 * seconds))
    code = 3
    try:
        import pytest

        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        sys.meta_path.insert(0, Mutated(mutant))
        options = ["-x", "-q", "-p", "no:cacheprovider"]
        code = int(
            pytest.main([*options, f"--basetemp={folder}", *mutant.tests], plugins=[SlowLast()])
        )
    finally:
        os._exit(code)


def run_all(found: list[Mutant], seconds: float, at_once: int) -> Iterator[tuple[Mutant, int]]:
    """Each mutant with how its tests ended: 0 if they noticed nothing."""
    waiting, running = list(reversed(found)), {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as root:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    mutant = waiting.pop()
                    folder = Path(root) / str(len(waiting))
                    running[start(mutant, folder, seconds)] = mutant, folder
                child, status = os.wait()
                mutant, folder = running.pop(child)
                _end(child)
                shutil.rmtree(folder, ignore_errors=True)
                yield mutant, os.waitstatus_to_exitcode(status)
        finally:
            for child in running:
                _end(child)


def _end(child: int) -> None:
    """End what is left of a session of processes."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def modules(named: str) -> list[tuple[str, str]]:
    """The modules, each after its place, of a place or of ``place:module``.

    Raises:
        argparse.ArgumentTypeError: there is no such place, or no such module in it.
    """
    place, separator, stem = named.partition(":")
    found = [
        (place, module)
        for module in PLACES.get(place, ())
        if not separator or stem == Path(module).stem
    ]
    if not found:
        known = [f"{one}:{Path(module).stem}" for one, of in PLACES.items() for module in of]
        raise argparse.ArgumentTypeError(
            f"there is no {named}. Places are {', '.join(PLACES)}; one module of a place is any of "
            f"{', '.join(known)}."
        )
    return found


def main(chosen: list[tuple[str, str]], at_once: int) -> int:
    """Run modules of places, so many mutants at once; 1 if one survives that is not explained."""
    rows = EXPLAINED.read_text(encoding="utf-8").splitlines()
    os.environ["OMP_NUM_THREADS"] = "1"
    # Of what is installed, plugins that no test here uses take as long as everything else.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in IMPORTED:
        importlib.import_module(name)
    gc.disable()
    gc.freeze()
    unexplained = 0
    for place, module in chosen:
        begun, path, tests = time.monotonic(), PROJECT / "federated" / module, PLACES[place][module]
        source = path.read_text(encoding="utf-8")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        ((_, code),) = run_all([Mutant(path, tests, source, "none")], 600, 1)
        if code:
            print(f"{module}: its tests fail without any fault: {' '.join(tests)}")
            return 1
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = 5 + 3 * (now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)
        found = list(mutants(path, tests))
        survived = known = 0
        name = _name(path)
        unmet = {row for row in rows if row.startswith((f"| `{name}:", f"| `{name}`"))}
        for mutant, code in run_all(found, seconds, at_once):
            if code == 0:
                survived += 1
                explaining = {row for row in rows if row.startswith(mutant.row)}
                known += bool(explaining)
                unmet -= explaining
                if not explaining:
                    print(mutant.row, flush=True)
        unexplained += survived - known
        print(
            f"{place}: {module}: {len(found)} mutants, {len(found) - survived} killed, "
            f"{survived} survived, of which {known} are explained "
            f"({time.monotonic() - begun:.0f} s)",
            flush=True,
        )
        for row in sorted(unmet):
            print(f"does not survive any more: {row}", flush=True)
    if unexplained:
        print(
            f"{unexplained} mutants survived that {EXPLAINED.relative_to(PROJECT)} does not "
            "explain: write a test that notices each, or add its row with the reason."
        )
    return int(unexplained > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "chosen",
        nargs="*",
        type=modules,
        default=[modules(place) for place in PLACES],
        metavar="place | place:module",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    sys.exit(main([one for of in given.chosen for one in of], given.jobs))
