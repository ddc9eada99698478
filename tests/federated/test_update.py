import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn

from federated.errors import ConsiliumError
from federated.run.update_files import (
    pack_compressed,
    pack_payload,
    pack_update,
    read_compressed,
    read_layout,
    read_payload,
    read_state,
    read_update,
    write_packed,
    write_payload,
    write_state,
)
from federated.update import (
    CompressedUpdate,
    Layout,
    ModelUpdate,
    Payload,
    RoundState,
)
from federated.weights.bounded_file import Content

MODEL = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
LAYOUT = Layout.of(MODEL)
VECTOR = np.arange(LAYOUT.size, dtype=np.float32)


def equal(first, second):
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other)
        elif isinstance(value, dict):
            assert value.keys() == other.keys()
            for key in value:
                np.testing.assert_array_equal(value[key], other[key])
        else:
            assert value == other
    return True


def test_a_layout_holds_floating_point_tensors_alone():
    names = [name for name, _ in LAYOUT.entries]
    assert "1.running_mean" in names
    assert "1.num_batches_tracked" not in names
    assert LAYOUT.size == 6 + 2 + 4 * 2


def test_a_vector_goes_into_a_model_and_comes_out_again():
    LAYOUT.load(MODEL, VECTOR)
    np.testing.assert_array_equal(LAYOUT.flatten(MODEL), VECTOR)


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        LAYOUT.load(MODEL, VECTOR[:-1])


def test_every_value_survives_its_file(tmp_path):
    update = ModelUpdate("site-00", 3, 12, VECTOR)
    write_packed(tmp_path / "u", pack_update(update))
    assert equal(update, read_update(tmp_path / "u"))
    positions = np.arange(0, 32, 2)
    for numbers in (VECTOR, VECTOR.astype(np.int32)):
        for chosen in (None, positions):
            compressed = CompressedUpdate("site-00", 3, 12, 0.25, 32, numbers, chosen)
            write_packed(tmp_path / "c", pack_compressed(compressed))
            assert equal(compressed, read_compressed(tmp_path / "c"))
    body = VECTOR.view(np.uint8)
    payload = Payload("site-00", 3, 0.25, "plain", "float32", "", 32, body, positions)
    write_payload(tmp_path / "p", payload)
    assert equal(payload, read_payload(tmp_path / "p"))
    assert (tmp_path / "p").read_bytes() == pack_payload(payload)
    assert equal(payload, read_payload(Content(pack_payload(payload), "a message")))
    state = RoundState(3, VECTOR, LAYOUT, {"control": VECTOR + 1}, {"score": VECTOR + 2})
    write_state(tmp_path / "s", state)
    assert equal(state, read_state(tmp_path / "s"))
    assert read_layout(tmp_path / "s") == LAYOUT


def test_personal_tensors_are_not_shared_and_stay_so_in_the_file(tmp_path):
    layout = Layout.of(MODEL, frozenset({"1.running_mean", "1.running_var"}))
    kept = layout.split(np.where(layout.shared, 0, VECTOR))
    assert set(np.flatnonzero(~layout.shared)) == {12, 13, 14, 15}
    assert not kept["0.weight"].any()
    write_state(tmp_path / "s", RoundState(3, VECTOR, layout))
    assert read_state(tmp_path / "s").layout == layout


def test_a_file_of_another_kind_is_refused(tmp_path):
    write_state(tmp_path / "s", RoundState(0, VECTOR, LAYOUT))
    with pytest.raises(ConsiliumError, match="holds a 'state', not a payload"):
        read_payload(tmp_path / "s")


def renamed(path, old, new):
    """The same file with an array under another name."""
    with safe_open(path, framework="numpy") as file:
        arrays, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    save_file({key.replace(old, new): array for key, array in arrays.items()}, path, metadata)


def test_a_state_of_a_version_before_is_read_as_it_was_meant(tmp_path):
    state = RoundState(3, VECTOR, LAYOUT, {}, {"score": VECTOR + 2})
    write_state(tmp_path / "s", state)
    renamed(tmp_path / "s", "compression.", "agreed.")
    assert equal(state, read_state(tmp_path / "s"))


@pytest.mark.parametrize("name", ["learned.score", "score"])
def test_a_state_with_an_array_that_is_not_known_is_refused(tmp_path, name):
    write_state(tmp_path / "s", RoundState(3, VECTOR, LAYOUT, {}, {"score": VECTOR + 2}))
    renamed(tmp_path / "s", "compression.score", name)
    with pytest.raises(ConsiliumError, match=f"it has '{name}', which is not known"):
        read_state(tmp_path / "s")


def test_a_truncated_file_is_refused(tmp_path):
    write_state(tmp_path / "s", RoundState(0, VECTOR, LAYOUT))
    content = (tmp_path / "s").read_bytes()
    (tmp_path / "s").write_bytes(content[:-10])
    with pytest.raises(ConsiliumError, match="missing or damaged"):
        read_state(tmp_path / "s")
