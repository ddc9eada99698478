"""Pretrained weights: what fits goes in unchanged in effect, and nothing unsafe is read."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from federated.errors import ConsiliumError
from federated.settings.networks import SmallCNN
from federated.weights.model_file import ModelHeader, save_model
from federated.weights.transfer import fit, load_pretrained
from models import is_head
from tests.networks import build_model

STAGES = {1: 64, 2: 128, 3: 256, 4: 512}


def network(name="resnet3d", classes=2, seed=0, **options):
    settings = {"channels": 1, "dims": 3, "norm": "batch"} | options
    return build_model(name, classes=classes, seed=seed, **settings)


def resnet18_layout(
    kernel, stem, inputs, conv="conv{n}", norm="bn{n}", stem_names=("conv1", "bn1")
):
    """A ResNet-18 of random weights by torchvision's names; ``kernel`` has 2 or 3 sizes."""
    generator = torch.Generator().manual_seed(7)

    def random(*shape):
        return torch.randn(shape, generator=generator) * 0.05

    def norms(prefix, width):
        values = {"weight": random(width), "bias": random(width)}
        values |= {"running_mean": random(width), "running_var": random(width).abs() + 1}
        return {f"{prefix}.{key}": value for key, value in values.items()}

    tensors = {f"{stem_names[0]}.weight": random(64, inputs, *stem)}
    tensors |= norms(stem_names[1], 64)
    width_in = 64
    for stage, width in STAGES.items():
        for block in range(2):
            prefix = f"layer{stage}.{block}"
            for n, source in ((1, width_in), (2, width)):
                tensors[f"{prefix}.{conv.format(n=n)}.weight"] = random(width, source, *kernel)
                tensors |= norms(f"{prefix}.{norm.format(n=n)}", width)
                width_in = width
            if stage > 1 and block == 0:
                ones = (1,) * len(kernel)
                tensors[f"{prefix}.downsample.0.weight"] = random(width, width // 2, *ones)
                tensors |= norms(f"{prefix}.downsample.1", width)
    return tensors | {"fc.weight": random(1000, 512), "fc.bias": random(1000)}


MEDICALNET = {"kernel": (3, 3, 3), "stem": (7, 7, 7), "inputs": 1}
IMAGENET = {"kernel": (3, 3), "stem": (7, 7), "inputs": 3}
R3D = {
    "kernel": (3, 3, 3),
    "stem": (3, 7, 7),
    "inputs": 3,
    "conv": "conv{n}.0",
    "norm": "conv{n}.1",
    "stem_names": ("stem.0", "stem.1"),
}


@pytest.fixture
def saved(tmp_path):
    def save(tensors, name="weights.pth"):
        torch.save(tensors, tmp_path / name)
        return tmp_path / name

    return save


def test_this_projects_model_comes_back_whole(tmp_path):
    source = network("small_cnn", seed=1, norm="group")
    header = ModelHeader(SmallCNN(), 1, 2, 3, 28, "adrenalmnist3d", "files")
    save_model(tmp_path / "model.safetensors", source, header)
    target = network("small_cnn", norm="group")
    report = load_pretrained(target, tmp_path / "model.safetensors")
    assert len(report.matched) == len(target.state_dict())
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name])


def test_the_head_starts_from_zero_for_other_classes(tmp_path):
    save_file(network("small_cnn", classes=11, seed=1).state_dict(), tmp_path / "w.safetensors")
    target = network("small_cnn", classes=2)
    report = load_pretrained(target, tmp_path / "w.safetensors")
    assert set(report.skipped) == {n for n in target.state_dict() if is_head(n)}
    for name in report.skipped:
        assert not target.state_dict()[name].any()
    assert "head starts anew, from zero" in report.line()


def test_medicalnets_layout_fills_the_whole_backbone(saved):
    tensors = resnet18_layout(**MEDICALNET)
    parallel = {f"module.{name}": tensor for name, tensor in tensors.items()}
    target = network(stem=7)
    report = load_pretrained(target, saved({"state_dict": parallel}))
    assert report.format == "MedicalNet ResNet-18"
    assert not report.reshaped
    backbone = {n for n, t in target.state_dict().items() if t.is_floating_point()}
    assert set(report.matched) == {n for n in backbone if not is_head(n)}
    state = target.state_dict()
    assert torch.equal(state["stages.2.shortcut.0.weight"], tensors["layer2.0.downsample.0.weight"])
    assert torch.equal(state["stages.7.norm2.running_var"], tensors["layer4.1.bn2.running_var"])


def test_r3d_18_computes_the_same_after_its_stem_is_padded(saved):
    tensors = resnet18_layout(**R3D)
    target = network(stem=7, channels=3)
    report = load_pretrained(target, saved(tensors))
    assert report.format == "torchvision r3d_18"
    assert report.reshaped == {"stem.0.weight": "kernel padded with zeros"}
    volume = torch.randn(1, 3, 9, 9, 9, generator=torch.Generator().manual_seed(0))
    theirs = nn.functional.conv3d(volume, tensors["stem.0.weight"], padding=(1, 3, 3))
    ours = nn.functional.conv3d(volume, target.state_dict()["stem.0.weight"], padding=3)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert torch.equal(target.state_dict()["stages.1.norm1.bias"], tensors["layer1.1.conv1.1.bias"])


def test_inflated_kernels_answer_a_constant_volume_as_the_2d_ones_do(saved):
    tensors = resnet18_layout(**IMAGENET)
    target = network(stem=7)
    report = load_pretrained(target, saved(tensors))
    assert report.format == "2D ResNet-18"
    assert report.reshaped["stem.0.weight"] == "inflated to depth 7, input channels summed"
    assert report.reshaped["stages.0.conv1.weight"] == "inflated to depth 3"
    slice_ = torch.randn(1, 1, 15, 15, generator=torch.Generator().manual_seed(0))
    flat = nn.functional.conv2d(slice_.expand(-1, 3, -1, -1), tensors["conv1.weight"], padding=3)
    volume = slice_.unsqueeze(2).expand(-1, -1, 15, -1, -1)
    deep = nn.functional.conv3d(volume, target.state_dict()["stem.0.weight"], padding=3)
    torch.testing.assert_close(deep[:, :, 7], flat, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("conv", ["acs", "2.5d"])
def test_2d_kernels_enter_acs_and_25d_convolutions_as_they_are(saved, conv):
    tensors = resnet18_layout(**IMAGENET)
    target = network(stem=7, conv=conv)
    load_pretrained(target, saved(tensors))
    ours = target.state_dict()["stages.5.conv2.weight"].reshape(256, 256, 3, 3)
    assert torch.equal(ours, tensors["layer3.1.conv2.weight"])


def test_a_stem_that_is_too_large_is_skipped_and_told(saved):
    report = load_pretrained(network(), saved(resnet18_layout(**MEDICALNET)))
    assert report.skipped["stem.0.weight"] == ("has shape (64, 1, 7, 7, 7), not (64, 1, 3, 3, 3)")
    assert "stages.0.conv1.weight" in report.matched


def test_deeper_networks_do_not_slip_into_the_wrong_block(saved):
    tensors = resnet18_layout(**MEDICALNET)
    tensors["layer1.2.conv1.weight"] = torch.full((64, 64, 3, 3, 3), 9.0)
    target = network(stem=7)
    report = load_pretrained(target, saved(tensors))
    assert report.unused == ["layer1.2.conv1.weight"]
    assert float(target.state_dict()["stages.2.conv1.weight"].max()) < 9.0


def test_group_norm_takes_scale_and_shift_and_leaves_the_statistics(saved):
    report = load_pretrained(network(stem=7, norm="group"), saved(resnet18_layout(**MEDICALNET)))
    assert "stem.1.weight" in report.matched
    assert "bn1.running_mean" in report.unused


def test_where_nothing_fits_it_says_what_is_there_and_what_is_needed(saved):
    path = saved({"encoder.weight": torch.zeros(3, 3)})
    with pytest.raises(ConsiliumError, match=r"encoder\.weight \(3, 3\).*stem\.0\.weight"):
        load_pretrained(network(), path)


class Malicious:
    def __reduce__(self):
        return (print, ("run by the pickle",))


@pytest.mark.parametrize("content", [Malicious(), {"w": torch.zeros(2), "run": Malicious()}])
def test_a_pickle_that_could_run_code_is_refused(tmp_path, content, capsys):
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(ConsiliumError, match="more than plain tensors"):
        load_pretrained(network("small_cnn"), tmp_path / "evil.pth")
    (tmp_path / "old.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(ConsiliumError, match=r"refused|damaged"):
        load_pretrained(network("small_cnn"), tmp_path / "old.pkl")
    assert "run by the pickle" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [{"epoch": 3}, {}, [torch.zeros(2)], {"w": [1.0]}])
def test_what_is_no_state_dict_is_refused(saved, content):
    with pytest.raises(ConsiliumError, match="refused"):
        load_pretrained(network("small_cnn"), saved(content))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_damaged_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 not a whole file")
    with pytest.raises(ConsiliumError, match=r"damaged|refused"):
        load_pretrained(network("small_cnn"), tmp_path / name)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ConsiliumError, match="consilium pretrain"):
        load_pretrained(network("small_cnn"), tmp_path / "none.safetensors")


def test_one_input_channel_spreads_over_several():
    fitted, how = fit(torch.ones(4, 1, 3, 3), (4, 3, 3, 3))
    assert how == "input channel spread over 3"
    assert torch.allclose(fitted.sum(dim=1), torch.ones(4, 3, 3))
