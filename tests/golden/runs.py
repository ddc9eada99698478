"""Run the golden configurations: ``python -m tests.golden.runs OUT [--only NAME]``.

OUT gets, for each of them, SHA-256 of the final weights and what was measured, and each is told as
a line of JSON once it is known. They run without Prefect, which changes no result, and with
:data:`PLAIN`, in which torch, oneDNN, MKL, numpy and the C library use no instructions that only
some processors have, so that as few machines as can be find other bits. Where results are meant to
change, OUT is ``tests/golden/recorded.json``; the commit says why.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

PLAIN: Mapping[str, str] = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Nehalem",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
QUIET: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
}
# Beginnings of the names of instructions that libraries choose kernels by.
VECTOR = ("avx", "amx", "fma", "sse4")
# Numbers of summary.json that are results, and not times, sizes or names.
MEASURED = ("metrics", "kept_round", "rounds_done", "data_source")


def fingerprint() -> dict[str, str]:
    """What else the bits of a result may hang on: versions, and the kind of processor."""
    import numpy
    import torch

    return {
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "kind": _kind_of_processor(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
    }


def _kind_of_processor() -> str:
    """Its maker, family and instructions, as Linux tells them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in told.items()}
    kept = [facts.get(key, "") for key in ("vendor_id", "cpu family")]
    vector = sorted(flag for flag in facts.get("flags", "").split() if flag.startswith(VECTOR))
    return " ".join([*kept, *vector])


def run_all(out: Path, only: str | None = None) -> None:
    """Run them in a folder of their own, and write what they found as JSON."""
    from tests.golden.configurations import GOLDEN

    found: dict[str, Any] = {}
    print(json.dumps({"fingerprint": fingerprint()}), flush=True)
    with _project() as run:
        for name, (experiment, overrides) in GOLDEN.items():
            if only in (None, name):
                found[name] = _result(run(experiment, list(overrides)))
                print(json.dumps({name: found[name]}), flush=True)
    out.write_text(json.dumps({"fingerprint": fingerprint(), "runs": found}, indent=2) + "\n")


@contextmanager
def _project() -> Iterator[Callable[[str, list[str]], Path]]:
    """What runs an experiment and returns its folder, below a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        os.environ["CONSILIUM_HOME"] = str(root / "home")
        os.chdir(root)
        _write_data(root)
        from flows.round import fl_round
        from tests.without_prefect import without_prefect

        def run(experiment: str, overrides: list[str]) -> Path:
            return Path(fl_round(experiment, overrides, register_model=False))

        with without_prefect():
            yield run


def _write_data(root: Path) -> None:
    import numpy as np
    import yaml

    from federated.data.folders.families import FAMILIES
    from federated.data.folders.phantom import write_phantom
    from tests.conftest import tiny_volumes
    from tests.golden.configurations import PARAMS

    (root / "mlruns").mkdir()
    (root / "params.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(PARAMS))))
    (root / "data" / "medmnist").mkdir(parents=True)
    np.savez(root / "data" / "medmnist" / "adrenalmnist3d.npz", **tiny_volumes())
    write_phantom(FAMILIES["retina"], root / "data" / "retina", 16, 0, (150, 160))
    write_phantom(FAMILIES["hippocampus"], root / "data" / "hippocampus", 18, 0)


def _result(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    tensors = load_file(folder / "model.safetensors")
    digest = sha256()
    for name in sorted(tensors):
        digest.update(f"{name}|{tensors[name].dtype}|{tensors[name].shape}|".encode())
        digest.update(tensors[name].tobytes())
    summary = json.loads((folder / "summary.json").read_text())
    result = {"weights": digest.hexdigest(), **{key: summary[key] for key in MEASURED}}
    result["epsilon"] = summary["privacy"].get("epsilon")
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", help="One of the runs, by its name.")
    arguments = parser.parse_args()
    out = arguments.out.resolve()
    wanted = {**PLAIN, **QUIET}
    if any(os.environ.get(key) != value for key, value in wanted.items()):
        # Libraries read these when they are loaded.
        command = [sys.executable, "-m", "tests.golden.runs", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **wanted})
    run_all(out, arguments.only)


if __name__ == "__main__":
    main()
