"""Files that ask for more than they hold, or for what nobody knows: refused in one paragraph."""

import json
import resource
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from federated.calibration.of_model import ModelCalibration
from federated.errors import ConsiliumError
from federated.exchange import kinds
from federated.files import read_json
from federated.protection import Plain
from federated.protection.base import Sum
from federated.run.folder import RunFolder
from federated.run.update_files import (
    pack_payload,
    read_layout,
    read_memory,
    read_payload,
    read_state,
    read_update,
    write_payload,
    write_state,
)
from federated.settings.networks import SmallCNN
from federated.stages.aggregate import add_payloads
from federated.stages.coordinator import begin_round
from federated.stages.evaluate import read_shared
from federated.update import CompressedUpdate, Layout, Payload, RoundState
from federated.weights.bounded_file import Content
from federated.weights.model_file import (
    ModelHeader,
    load_model,
    personal_sites,
    read_header,
    save_model,
)
from federated.weights.pretrained_file import read_tensors
from tests.federated.staged_run import begin, small_experiment, small_images

HEADER = ModelHeader(SmallCNN(), 1, 2, 3, 28, "adrenalmnist3d", "files")


@contextmanager
def little_memory() -> Iterator[None]:
    """At most two GiB more of address space than now: what asks for more fails at once."""
    if sys.platform != "linux":
        yield
        return
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2 * 2**30, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refused(call: Callable[..., Any], *arguments: Any, match: str = "") -> None:
    with little_memory(), pytest.raises(ConsiliumError, match=match) as told:
        call(*arguments)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 1500


def rewrite_metadata(path: Path, change: Callable[[dict[str, str]], None]) -> None:
    """Change the metadata of a safetensors file, and nothing else."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    change(header.setdefault("__metadata__", {}))
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, HEADER.build(0), HEADER)
    return path


class TestModels:
    @pytest.mark.parametrize(
        "change",
        [
            {"network": {"name": "unet", "width": 10**9}},
            {"network": {"name": "unet", "width": 2**40}},
            {"network": {"name": "unet", "width": -8}},
            {"network": {"name": "unet", "width": 12}},
            {"network": {"name": "small_cnn", "width": 32}},
            {"classes": 10**12},
            {"classes": 1},
            {"channels": 0},
            {"channels": 10**6},
            {"size": 10**7},
            {"spacing": 1e-9},
            {"spacing": 0},
            {"dims": 4},
            {"network": {"name": "small_cnn", "norm": "none"}},
            {"network": {"name": "resnet3d", "conv": "5d"}},
            {"network": {"name": "resnet3d", "stem": 5}},
            {"channels": "1"},
            {"channels": 1.5},
            {"channels": True},
            {"network": {"name": "x" * 300}},
            {"network": {"name": "another"}},
            {"network": {"name": None}},
            {"network": "small_cnn"},
            {"network": None},
            {"extra": 1},
        ],
        ids=str,
    )
    def test_a_description_out_of_range_is_refused(self, model_file, change):
        text = json.dumps(json.loads(HEADER.to_text()) | change)
        rewrite_metadata(model_file, lambda metadata: metadata.update(consilium=text))
        refused(load_model, model_file, match="not a model of this project")

    @pytest.mark.parametrize("name", ["small_cnn", "dp_resnet", "resnet3d", "unet"])
    def test_a_network_is_built_only_if_the_file_holds_its_tensors(self, model_file, name):
        """Within the ranges a network may be large: 1024 channels at the finest level."""
        network = {"name": name, "norm": "group"} | ({"width": 1024} if name == "unet" else {})
        large = {"network": network, "classes": 10_000, "channels": 256}
        text = json.dumps(json.loads(HEADER.to_text()) | large)
        rewrite_metadata(model_file, lambda metadata: metadata.update(consilium=text))
        refused(load_model, model_file, match="tensors are not those of the network")

    @pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, "[" * 990, " " * 100_000])
    def test_a_description_that_is_none_is_refused(self, model_file, text):
        rewrite_metadata(model_file, lambda metadata: metadata.update(consilium=text))
        for read in (read_header, load_model):
            refused(read, model_file, match="not a model of this project")

    def test_a_header_longer_than_any_is_not_read(self, tmp_path):
        path = tmp_path / "model.safetensors"
        path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
        for read in (read_header, load_model, personal_sites, read_tensors):
            refused(read, path, match=f"gives {2**62} to its header")

    @pytest.mark.parametrize("content", [b"", b"abc", struct.pack("<Q", 9) + b"{}", bytes(100)])
    def test_what_is_no_safetensors_file_is_refused(self, tmp_path, content):
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        for read in (read_header, load_model, personal_sites, read_tensors):
            refused(read, path)

    def test_a_description_of_an_older_version_is_read(self, model_file):
        value = json.loads(HEADER.to_text())
        del value["network"]
        value |= {"name": "small_cnn", "norm": "group", "conv": "3d", "stem": 3, "width": 16}
        value |= {"scale_norm": False, "deep_supervision": False}
        rewrite_metadata(model_file, lambda metadata: metadata.update(consilium=json.dumps(value)))
        assert read_header(model_file) == HEADER

    @pytest.mark.parametrize("missing", ["name", "norm"])
    @pytest.mark.parametrize("flat", [True, False])
    def test_a_network_that_does_not_say_what_it_is_is_refused(self, model_file, missing, flat):
        value = json.loads(HEADER.to_text())
        network = value.pop("network")
        del network[missing]
        value |= network if flat else {"network": network}
        rewrite_metadata(model_file, lambda metadata: metadata.update(consilium=json.dumps(value)))
        refused(read_header, model_file, match=f"has no {missing}")

    def test_a_file_that_names_another_to_start_from_is_refused(self, model_file):
        value = json.loads(HEADER.to_text())
        value["network"]["init"] = "/etc/passwd"
        rewrite_metadata(model_file, lambda metadata: metadata.update(consilium=json.dumps(value)))
        refused(read_header, model_file, match="what its weights started from")

    def test_where_the_weights_once_started_from_is_not_told(self, tmp_path):
        header = replace(HEADER, network=SmallCNN(init="/home/somebody/weights.safetensors"))
        save_model(tmp_path / "m", header.build(0), header)
        assert b"somebody" not in (tmp_path / "m").read_bytes()

    def test_what_was_saved_is_read_with_models_of_sites_too(self, tmp_path, model_file):
        assert read_header(model_file) == HEADER
        model = load_model(model_file)
        same = np.zeros(2, np.float32)
        own = {"site-00": {"head.bias": same}, "site-01": {"head.bias": same}}
        save_model(tmp_path / "own", model, replace(HEADER, spacing=2.0), own)
        assert read_header(tmp_path / "own").spacing == 2
        assert (load_model(tmp_path / "own", "site-01").state_dict()["head.bias"] == 0).all()

    def test_a_changed_byte_is_seen_wherever_it_is(self, model_file):
        """Among weights too, where every byte is a part of some number."""
        whole = model_file.read_bytes()
        (length,) = struct.unpack("<Q", whole[:8])
        header, weights = range(8, 8 + length, 7), range(8 + length, len(whole), len(whole) // 60)
        for place in (*header, *weights, len(whole) - 1):
            changed = bytearray(whole)
            changed[place] ^= 1
            model_file.write_bytes(changed)
            refused(load_model, model_file)
        model_file.write_bytes(whole)
        assert load_model(model_file) is not None

    def test_a_temperature_or_a_sites_own_weights_that_were_changed_are_seen(self, model_file):
        told = replace(HEADER, calibration=ModelCalibration(2.0))
        own = {site: {"head.bias": np.zeros(2, np.float32)} for site in ("site-00", "site-01")}
        save_model(model_file, HEADER.build(0), told, own)
        whole = model_file.read_bytes()
        for old, new in ((b"2.0", b"4.0"), (bytes(8), b"\0\0\x80?" * 2)):
            assert old in whole
            model_file.write_bytes(whole.replace(old, new))
            for site in own:
                refused(load_model, model_file, site, match="changed or damaged")

    def test_a_file_of_an_older_version_has_no_digest_and_is_read(self, model_file):
        rewrite_metadata(model_file, lambda metadata: metadata.update(consilium=HEADER.to_text()))
        assert b"sha256" not in model_file.read_bytes()
        assert load_model(model_file) is not None


class TestPretrained:
    def test_a_compressed_checkpoint_is_not_unpacked(self, tmp_path):
        plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
        torch.save({"head.weight": torch.zeros(4_000_000)}, plain)
        with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w") as target:
            for entry in source.infolist():
                data = source.read(entry)
                target.writestr(entry.filename, data, compress_type=zipfile.ZIP_DEFLATED)
        assert packed.stat().st_size < 100_000
        refused(read_tensors, packed, match="torch.save compresses nothing")
        assert read_tensors(plain)["head.weight"].shape == (4_000_000,)

    def test_a_tensor_spread_over_one_value_is_refused(self, tmp_path):
        path = tmp_path / "spread.pth"
        torch.save({"head.weight": torch.zeros(1, dtype=torch.float16).expand(10**6, 10**6)}, path)
        assert path.stat().st_size < 10_000
        refused(read_tensors, path, match="asks for 2000000000000 bytes")

    def test_a_sparse_tensor_is_refused(self, tmp_path):
        path = tmp_path / "sparse.pth"
        spread = torch.sparse_coo_tensor(torch.tensor([[0], [0]]), torch.ones(1), (10**6, 10**6))
        torch.save({"head.weight": spread}, path)
        refused(read_tensors, path)


def payload_file(tmp_path: Path, **changes: Any) -> Path:
    """A payload of ten values, changed."""
    update = CompressedUpdate("site-00", 1, 5, 0.5, 10, np.arange(10, dtype=np.float32))
    path = tmp_path / "payload.safetensors"
    write_payload(path, replace(Plain().protect(update), **changes))
    return path


class TestPayloads:
    @pytest.mark.parametrize(
        "change",
        [
            {"extra": 1},
            {"length": -1},
            {"length": 10**30},
            {"length": 1.5},
            {"length": "10"},
            {"length": None},
            {"weight": float("nan")},
            {"weight": float("inf")},
            {"weight": -0.5},
            {"weight": 0},
            {"weight": 7.0},
            {"weight": "1"},
            {"scalars": {"below_clip": float("nan")}},
            {"scalars": {"below_clip": "1"}},
            {"scalars": [1.0]},
            {"scalars": {str(number): 0.0 for number in range(65)}},
            {"round_number": True},
            {"site": 3},
            {"scheme": None},
            {"encoding": []},
        ],
        ids=str,
    )
    def test_a_header_that_nobody_writes_is_refused(self, tmp_path, change):
        path = payload_file(tmp_path)
        header = {
            **{"site": "site-00", "round_number": 1, "weight": 0.5, "scheme": "plain"},
            **{"encoding": "float32", "context": "", "length": 10, "scalars": {}},
        }
        text = json.dumps(header | change)
        rewrite_metadata(path, lambda metadata: metadata.update(header=text))
        refused(read_payload, path)

    @pytest.mark.parametrize("text", [None, "", "[]", "{}", "{", "[" * 100_000, "null"])
    def test_a_header_that_is_none_is_refused(self, tmp_path, text):
        path = payload_file(tmp_path)

        def change(metadata: dict[str, str]) -> None:
            del metadata["header"]
            if text is not None:
                metadata["header"] = text

        rewrite_metadata(path, change)
        refused(read_payload, path, match="cannot be read as a payload")

    @pytest.mark.parametrize(
        "positions", [[0, 10], [2**32 - 1], [3, 2], [3, 3], [1, 5, 4]], ids=str
    )
    def test_positions_out_of_range_or_order_are_refused(self, tmp_path, positions):
        path = payload_file(
            tmp_path,
            positions=np.array(positions),
            body=np.zeros(len(positions), "<f4").view(np.uint8),
        )
        refused(read_payload, path, match="positions do not ascend, or go beyond the 10")

    @pytest.mark.parametrize(
        "arrays",
        [
            {},
            {"body": np.zeros(4, np.float32)},
            {"body": np.zeros((2, 2), np.uint8)},
            {"body": np.zeros(4, np.uint8), "more": np.zeros(1)},
            {"body": np.zeros(4, np.uint8), "positions": np.zeros(1, np.int64)},
        ],
        ids=lambda arrays: " ".join(f"{k}:{v.dtype}{v.shape}" for k, v in arrays.items()),
    )
    def test_other_arrays_are_refused(self, tmp_path, arrays):
        path = payload_file(tmp_path)
        with_header: dict[str, str] = {}
        rewrite_metadata(path, with_header.update)
        rewrite_metadata(path, lambda metadata: with_header.update(metadata))
        save_file(arrays, path, metadata=with_header)
        refused(read_payload, path, match="is refused: it has")

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"encoding": "float16"}, "encoding is 'float16'"),
            ({"encoding": "int8"}, "40 bytes for 10 numbers of 1"),
            ({"body": np.zeros(4, np.uint8)}, "4 bytes for 10 numbers"),
            ({"body": np.zeros(39, np.uint8)}, "39 bytes"),
            ({"body": np.full(10, np.nan, "<f4").view(np.uint8)}, "NaN or infinite"),
            ({"positions": np.array([1, 2])}, "40 bytes for 2 numbers"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_body_that_is_not_what_its_header_says_is_not_added(self, tmp_path, changes, said):
        payload = read_payload(payload_file(tmp_path, **changes))
        running = Sum(1, 10, np.zeros(10))
        refused(Plain().add, running, payload, match=said)
        assert running.content.sum() == 0

    def test_a_payload_does_not_say_how_long_the_sum_is(self, tmp_path):
        run = begin(small_experiment(small_images(tmp_path)), tmp_path / "runs")
        topic = begin_round(run.coordinator, 1)
        for site, length in zip(run.sites, (2**45, 2**45), strict=True):
            body = np.zeros(8, np.uint8)
            payload = Payload(
                site, 1, 0.5, "plain", "float32", "", length, body, np.array([1, 2**31])
            )
            run.site(site).to_coordinator(topic, kinds.PAYLOAD, pack_payload(payload))
        refused(
            add_payloads,
            run.coordinator,
            topic,
            run.sites,
            match=f"its length is {2**45}, expected",
        )

    def test_a_payload_far_larger_than_its_numbers_is_not_read(self, tmp_path):
        path = payload_file(tmp_path, body=np.zeros(3 * 2**20, np.uint8))
        refused(read_payload, path, 10, match="a payload of 10 numbers has at most")
        read_payload(path)


class TestOtherFiles:
    @pytest.mark.parametrize(
        "layout",
        [
            [["w", [2**40, 2**40]]],
            [["w", [-1, -3]]],
            [["w", ["3"]]],
            [["w", 3]],
            [["w"]],
            "w",
            [3],
            {},
        ],
        ids=str,
    )
    def test_a_states_layout_is_that_of_its_weights(self, tmp_path, layout):
        path = tmp_path / "state.safetensors"
        state = RoundState(1, np.zeros(3, np.float32), Layout((("w", (3,)),)))
        write_state(path, state)

        def change(metadata: dict[str, str]) -> None:
            metadata["header"] = json.dumps(json.loads(metadata["header"]) | {"layout": layout})

        rewrite_metadata(path, change)
        refused(read_state, path)

    @pytest.mark.parametrize("content", [b"", struct.pack("<Q", 2**40), bytes(64)])
    def test_damaged_files_of_a_run_are_refused_each_by_its_reader(self, tmp_path, content):
        path = tmp_path / "a.safetensors"
        path.write_bytes(content)
        for read in (read_state, read_layout, read_memory, read_update, read_payload):
            refused(read, path)
            refused(read, Content(content, "of a message"))
        refused(read_shared, content, "site-00")

    def test_json_beyond_its_bound_is_not_read(self, tmp_path):
        path = tmp_path / "large.json"
        path.write_text("[" + "0," * 600 + "0]")
        refused(read_json, path, 1000, match="at most 1000 are read")
        assert len(read_json(path)) == 601

    def test_json_nested_without_end_is_no_json(self, tmp_path):
        path = tmp_path / "deep.json"
        path.write_text("[" * 1_000_000)
        with pytest.raises(ValueError, match="nested too deeply"):
            read_json(path)

    @pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"path": 3}', "null"])
    @pytest.mark.parametrize("name", ["config.json", "inputs.json", "partition.json"])
    def test_a_runs_own_files_are_refused_with_their_names(self, tmp_path, name, text):
        (tmp_path / name).write_text(text)
        folder = RunFolder(tmp_path)
        read = {
            "config.json": folder.experiment,
            "inputs.json": folder.data,
            "partition.json": folder.case_counts,
        }[name]
        refused(read, match=name.replace(".", r"\."))
