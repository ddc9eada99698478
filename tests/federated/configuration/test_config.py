import re
from pathlib import Path

import pytest
import yaml

from federated.configuration.load import (
    load_experiment,
    read_experiment,
)
from federated.configuration.params_file import experiment_names, parse_overrides
from federated.errors import ConsiliumError
from federated.files import write_json
from federated.settings.networks import OF_ALL_ONCE, ResNet3D, SmallCNN
from federated.strategies import FedAvg, FedProx
from tests.conftest import PROJECT

PARAMS = PROJECT / "params.yaml"
SUMS = ["evaluation.share=sums", "protection.name=secagg_plus", "compression.bits=8"]
COUNT = r"a whole number of at least 1 and at most 100000\."


@pytest.mark.parametrize("name", experiment_names(PARAMS))
def test_every_experiment_of_params_yaml_resolves(name):
    assert load_experiment(name, params=PARAMS).name == name


@pytest.mark.parametrize("name", experiment_names(PARAMS))
def test_every_experiment_states_what_the_data_stages_of_dvc_depend_on(name):
    own = yaml.safe_load(PARAMS.read_text())["experiments"][name]
    assert {"seed", "data", "sites", "validate"} <= set(own)


def test_only_the_demo_may_fall_back_to_a_phantom():
    sources = {n: load_experiment(n, params=PARAMS).data.source for n in experiment_names(PARAMS)}
    assert [name for name, source in sources.items() if source == "auto"] == ["demo"]
    assert "phantom" not in sources.values()


def test_an_override_reaches_its_section_and_nothing_else():
    plain = load_experiment("demo", params=PARAMS)
    changed = load_experiment("demo", ["strategy.mu=0.5"], PARAMS)
    assert changed.strategy == FedProx(mu=0.5)
    assert changed.model_copy(update={"strategy": plain.strategy}) == plain


def test_another_strategy_does_not_inherit_the_keys_of_the_first():
    assert load_experiment("demo", ["strategy.name=fedavg"], PARAMS).strategy == FedAvg()


def test_numbers_without_a_point_are_numbers():
    assert parse_overrides(["training.lr=1e-3"]) == {"training": {"lr": 0.001}}


def test_truth_values_stay_where_they_are_meant():
    own = ["strategy.name=apfl", "strategy.adapt=false"]
    assert load_experiment("demo", own, PARAMS).strategy.adapt is False
    assert load_experiment("demo", [*own[:1], "strategy.adapt=true"], PARAMS).strategy.adapt is True


def test_a_resolved_experiment_survives_its_file(tmp_path):
    experiment = load_experiment("demo", ["runner.workers=2"], PARAMS)
    write_json(tmp_path / "config.json", experiment.to_json())
    assert read_experiment(tmp_path / "config.json") == experiment


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("strategy.muu=1", r"strategy\.muu is not a known key\. Did you mean 'mu'\?"),
        ("strategy.mu=-1", r"strategy\.mu=-1 is not possible: it has to be a number of at least 0"),
        ("strategy.mu=.nan", r"strategy\.mu=nan is not possible"),
        ("strategy.name=fedpro", r"'fedpro'.*'fedavg', 'fedavgm', 'fedprox'"),
        ("compression.name=zip", r"'zip'.*'none', 'top_k', 'shared_mask'"),
        ("protection.name=rot13", r"'rot13'.*'ckks', 'packed_bfv', 'secagg_plus', 'rlwe_secagg'"),
        (
            "compression.bits=1",
            r"compression\.bits=1 is not .* whole number of at least 2 and at mo",
        ),
        ("compression.bits=17", r"compression\.bits=17 is not possible.*and at most 16 or null"),
        ("privacy.epsilon=1", r"privacy\.epsilon is not a known key"),
        ("privacy.name=magic", r"'magic'.*'none', 'dp_sgd', 'site_level'"),
        ("sites.count=0", r"sites\.count=0 is not possible"),
        ("sites.count=5001", r"sites\.count=5001 is not possible.*at most 5000"),
        ("sites=0", r"sites=0 is not possible: it has to be a section with keys of its own"),
        ("sites.beta=0", r"sites\.beta=0 is not possible: it has to be a number above 0"),
        ("sites.beta=-0.5", r"sites\.beta=-0\.5 is not possible"),
        ("sites.participation=1.5", r"sites\.participation=1\.5 is not possible"),
        ("data.size=32", r"data\.size=32 is not possible.*28 or 64"),
        (
            "data.spacing=0",
            r"data\.spacing=0 is not possible: it has to be a number above 0, a list of 3, each of "
            r"it a number above 0 or null",
        ),
        ("data.spacing=2", r"data\.spacing=2 is the side of a voxel in mm, which images of"),
        ("training.local_steps=0", r"training\.local_steps=0 is not possible"),
        ("data.dataset=organmnist", r"Did you mean 'organmnist3d'\?"),
        ("data.source=web", r"'medmnist', 'files', 'phantom' or 'auto'"),
        ("rounds=0", r"rounds=0 is not possible"),
        (
            "rounds=true",
            r"rounds=true is not possible: it has to be " + COUNT,
        ),
        (
            "rounds=2.5",
            r"rounds=2\.5 is not possible: it has to be " + COUNT,
        ),
        (
            "rounds=two",
            r"rounds='two' is not possible: it has to be " + COUNT,
        ),
        ("seed=false", r"seed=false is not possible.* of at least 0 and below 2147483648\."),
        ("training.lr=true", r"training\.lr=true is not possible: it has to be a number above 0\."),
        ("training.lr=.inf", r"training\.lr=inf is not possible: .* a finite number above 0\."),
        ("training.lr=[1]", r"training\.lr=\[1\] is not possible: it has to be a number above 0\."),
        (
            "training.local_steps=true",
            r"local_steps=true is not possible: .* a whole number of at least 1 or null\.",
        ),
        (
            "runner.workers=true",
            r"runner\.workers=true is not .* whole number of at least 1 or 'au",
        ),
        (
            "strategy.mu=true",
            r"strategy\.mu=true is not possible: it has to be a number of at least",
        ),
        (
            "data.spacing=true",
            r"data\.spacing=true is not possible: it has to be a number above 0, a list of 3",
        ),
        ("data.size=true", r"data\.size=true is not possible: it has to be 28 or 64\."),
        ("data.root=3", r"data\.root=3 is not possible: it has to be text\."),
        ("sites=true", r"sites=true is not possible: it has to be a section"),
        ("sites=", r"sites=null is not possible: it has to be a section"),
        ("sites.scanner_shift=maybe", r"scanner_shift='maybe' is not .* has to be true or false\."),
        (
            "training.trainable=head",
            r"trainable='head' is not .* has to be a list, each of it text",
        ),
        ("training.trainable=[head, 3]", r"trainable\[1\]=3 is not possible: it has to be text"),
        ("strategy=fedavg", r"strategy='fedavg' is not possible: it has to be a section"),
        ("strategy.name=", r"strategy\.name=null is not possible\. There are 'fedavg', "),
        ("strategy.name=[a]", r"strategy\.name=\['a'\] is not possible\. There are 'fedavg', "),
        ("name=../elsewhere", r"`name` is not a known key"),
        ("model.name=unet model", r"model\.name='unet model' is not possible"),
        ("training.lr=fast", r"training\.lr='fast' is not possible"),
        ("runner.workers=many", r"workers='many' is not possible.* of at least 1 or 'auto'\."),
        ("trainig.lr=1", r"trainig is not a known key\. Did you mean 'training'\?"),
        ("training.lr", r"not of the form section\.key=value"),
        ("=3", r"not of the form section\.key=value"),
        ("a: b=3", r"is not a known key"),
        ("training.lr=[", r"is not YAML"),
        (
            "validate.on_failure=ignore",
            r"validate\.on_failure='ignore'.*'abort', 'exclude-site' or 'drop-case'",
        ),
    ],
)
def test_a_mistake_is_refused_with_key_value_and_remedy(override, said):
    with pytest.raises(ConsiliumError, match=said):
        load_experiment("demo", [override], PARAMS)


def test_a_3d_network_for_2d_images_is_refused():
    with pytest.raises(ConsiliumError, match="small_cnn"):
        load_experiment("blood", ["model.name=resnet3d"], PARAMS)


def test_an_unknown_experiment_names_the_known_ones():
    with pytest.raises(ConsiliumError, match=r"Did you mean 'organ'\? Known experiments: demo"):
        load_experiment("orgn", params=PARAMS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("experiments: [", r"params\.yaml cannot be read as YAML: line 1: .*Correct it there"),
        ("defaults: {}", r"params\.yaml has no section `experiments:`"),
        ("- a", r"params\.yaml has no section `experiments:`"),
        ("experiments: {demo: 3}", "mapping of sections"),
        ("", r"parameter file .*params\.yaml is empty"),
        ("# nothing but this", r"parameter file .*params\.yaml is empty"),
        ("a\xff", r"params\.yaml cannot be read: it is not text in UTF-8\. .*--params"),
    ],
)
def test_a_broken_params_file_is_refused_with_what_is_wrong_with_it(tmp_path, text, said):
    (tmp_path / "params.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(ConsiliumError, match=said) as refused:
        load_experiment("demo", params=tmp_path / "params.yaml")
    assert "Errno" not in str(refused.value)
    assert "a key is text" not in str(refused.value)


def test_a_folder_in_place_of_the_params_file_is_refused_as_a_folder(tmp_path):
    with pytest.raises(ConsiliumError, match=r"cannot be read: it is a folder, .*--params"):
        load_experiment("demo", params=tmp_path)


def test_a_params_file_that_may_not_be_read_is_refused_as_such(tmp_path, monkeypatch):
    def denied(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(ConsiliumError, match=r"cannot be read: you have no permission"):
        load_experiment("demo", params=tmp_path / "params.yaml")


def test_what_has_set_a_wrong_value_is_named():
    layers = {"--transfer": ["training.lr=0"], "--set": ["sites.beta=-1"], "--rounds": ["rounds=0"]}
    with pytest.raises(ConsiliumError) as refused:
        load_experiment("demo", layers, PARAMS)
    said = str(refused.value)
    whole = "a whole number of at least 1 and at most 100000."
    assert f"rounds=0 is not possible: it has to be {whole} It was set by --r" in said
    assert re.search(r"sites\.beta=-1 is not [^.]*\. It was set by --set\.", said)
    assert re.search(r"training\.lr=0 is not [^.]*\. It was set by --transfer\.", said)


def test_the_last_to_set_a_value_is_named():
    with pytest.raises(ConsiliumError, match=r"rounds=0 .* set by --rounds") as refused:
        load_experiment("demo", {"--set": ["rounds=5"], "--rounds": ["rounds=0"]}, PARAMS)
    assert "set by --set" not in str(refused.value)


def test_a_wrong_value_of_the_file_is_blamed_on_the_file_alone(tmp_path):
    text = PARAMS.read_text().replace("rounds: 20", "rounds: x")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ConsiliumError, match=r"rounds='x' is not possible") as refused:
        load_experiment("organ", ["seed=3"], tmp_path / "params.yaml")
    assert "set by" not in str(refused.value)


def test_settings_that_do_not_go_together_name_the_option_that_set_one():
    with pytest.raises(
        ConsiliumError, match=r"Experiment blood of .*params\.yaml with --set cannot"
    ):
        load_experiment("blood", ["model.name=resnet3d"], PARAMS)


def test_a_missing_params_file_says_where_to_go():
    with pytest.raises(ConsiliumError, match="Run consilium in the project's folder"):
        load_experiment("demo", params=Path("nowhere.yaml"))


def test_a_backbone_names_the_experiment_whose_data_it_is_trained_on(tmp_path):
    (tmp_path / "params.yaml").write_text("experiments: {demo: {}}\npretraining: {cubes: {}}")
    with pytest.raises(ConsiliumError, match=r"backbone 'cubes'.* needs `experiment:`.* of demo"):
        load_experiment("pretrain-cubes", params=tmp_path / "params.yaml")


DP_SGD = ["privacy.name=dp_sgd", "privacy.epsilon=8"]
SITE = ["privacy.name=site_level", "privacy.clip=1", "privacy.epsilon=8"]
STACKED = "runner.stacked_sites=4"
SHARES = ["privacy.name=site_level_distributed", "privacy.clip=1", "privacy.epsilon=8"]
SECAGG = ["protection.name=secagg_plus", "compression.bits=8"]
RLWE = ["protection.name=rlwe_secagg", "compression.bits=8"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["compression.name=top_k", "compression.density=0"], r"density=0 is not possible"),
        (["compression.name=shared_mask", "compression.density=1.5"], r"density=1\.5 is not poss"),
        (["protection.name=packed_bfv"], r"set compression\.bits"),
        (
            ["protection.name=ckks", "compression.name=top_k", "compression.density=0.1"],
            r"own positions.*shared_mask",
        ),
        (["protection.name=ckks", "runner.name=serial"], r"would hold the sites' keys"),
        *(
            (
                [f"runner.name={name}", "runner.stacked_sites=4"],
                r"belongs to runner\.name=processes",
            )
            for name in ("sites", "serial", "dask")
        ),
        ([*DP_SGD, STACKED], r"private site trains alone\. Set privacy\.name=none, or leave out"),
        ([*SITE, STACKED], r"private site trains alone\. Set privacy\.name=none, or leave out"),
        (["training.precision=bfloat16", STACKED], r"Set training\.precision=float32, or leave"),
        (["training.precision=float16", STACKED], r"Set training\.precision=float32, or leave"),
        (["privacy.name=dp_sgd"], r"set one of noise_multiplier, epsilon and epsilon_per_round"),
        ([*DP_SGD, "privacy.noise_multiplier=1"], r"set one of noise_multiplier, epsilon"),
        (
            ["privacy.name=dp_sgd", "privacy.epsilon=0"],
            r"epsilon=0 is not possible.*above 0",
        ),
        ([*DP_SGD, "privacy.delta=1"], r"delta=1 is not possible.*above 0 and below 1"),
        ([*DP_SGD, "privacy.clip=0"], r"clip=0 is not possible.*above 0"),
        (
            [*DP_SGD, "privacy.adaptive.rte=1"],
            r"privacy\.adaptive\.rte is not .*Did you mean 'rate'",
        ),
        ([*DP_SGD, "privacy.adaptive.rate=0"], r"privacy\.adaptive\.rate=0 .* a number above 0"),
        ([*DP_SGD, "privacy.noise_schedule=[1, 0]"], r"noise_schedule\[1\]=0 .* a number above 0"),
        (["privacy.name=site_level", "privacy.epsilon=6"], r"privacy\.clip is missing"),
        ([*DP_SGD, "model.norm=batch"], r"mixes the cases of a batch.*model\.norm=group"),
        ([*DP_SGD, "training.sampling=balanced"], r"number of cases of each class"),
        ([*DP_SGD, "training.class_weights=balanced"], r"number of cases of each class"),
        ([*DP_SGD, "training.precision=bfloat16"], r"Set training\.precision=float32"),
        ([*DP_SGD, "strategy.name=local"], r"about what is sent"),
        ([*DP_SGD, "compression.name=top_k", "compression.density=0.1"], r"largest values"),
        (["protection.name=secagg_plus"], r"set compression\.bits"),
        (["protection.name=rlwe_secagg"], r"rlwe_secagg adds integers.*set compression\.bits"),
        (
            [*RLWE, "protection.degree=1024", "sites.count=50", "compression.bits=16"],
            r"no room for the sum of 50 sites in the ring of protection\.degree=1024",
        ),
        ([*RLWE, "protection.degree=512"], r"degree=512 is not possible"),
        ([*RLWE, "runner.name=serial"], r"would hold the sites' keys"),
        ([*SHARES, "compression.bits=16"], r"nobody may see it alone.*secagg_plus"),
        ([*SHARES, "protection.name=ckks"], r"Set compression\.bits, best to 16"),
        ([*SHARES, *SECAGG, "privacy.missing=4"], r"missing=4 leaves none of the 4 sites"),
        ([*SHARES, *SECAGG, "privacy.accountant=prv"], r"'rdp'"),
        ([*SECAGG, "runner.name=serial"], r"would hold the sites' keys"),
        ([*SECAGG, "protection.threshold=5"], r"threshold=5 cannot be with 4 sites.*from 3.* to 4"),
        ([*SECAGG, "protection.threshold=2"], r"threshold=2 cannot be.*more than half"),
        (
            [*SECAGG, "sites.participation=0.5"],
            r"protection\.min_sites=3 sites, and 2 are selected.*sites\.participation",
        ),
        (
            ["protection.name=ckks", "sites.count=2"],
            r"protection\.min_sites=3 sites, and 2 are selected",
        ),
        ([*SECAGG, "protection.min_sites=1"], r"min_sites=1 is not possible.*2"),
        ([*SECAGG, "sites.count=12", "protection.neighbours=2"], r"neighbours may fall apart"),
        ([*SECAGG, "sites.count=100", "protection.neighbours=4"], r"neighbours may fall apart"),
        (
            [*SECAGG, "sites.count=10", "protection.corrupted=0.9"],
            r"10 sites .*corrupted=0\.9 colludes: .*holders may collude",
        ),
        (
            ["protection.name=ckks", "protection.statistical_security=20"],
            r"statistical_security=20 is not possible.*30",
        ),
        (
            [
                "protection.name=ckks",
                "protection.degree=2048",
                "protection.coefficient_bits=[54]",
            ],
            r"no room for 4 sites and the noise of its openings.*protection\.degree",
        ),
        (
            ["protection.name=ckks", "protection.coefficient_bits=[40]"],
            r"degree and coefficient_bits are set together",
        ),
        ([*SECAGG, "protection.neighbours=4"], r"neighbours=4 cannot be with 4 sites"),
        ([*SECAGG, "sites.count=9", "protection.neighbours=5"], r"an even number below 9"),
        (
            [*SECAGG, "compression.name=top_k", "compression.density=0.1"],
            r"own positions.*shared_mask",
        ),
        (["strategy.name=local", "compression.bits=8"], r"nothing to compress or protect"),
        (["strategy.name=central", "protection.name=ckks"], r"nothing to compress or protect"),
        (
            ["protection.name=ckks", "protection.degree=2048", "protection.coefficient_bits=[60]"],
            r"less than 128-bit security, which allows 54; take degree 4096",
        ),
        (
            [
                "compression.bits=8",
                "sites.count=1000",
                "protection.name=packed_bfv",
                "protection.degree=2048",
                "protection.coefficient_bits=[54]",
                "protection.plain_bits=16",
            ],
            r"no head room for 1000 sites.*compression\.bits or sites\.count",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(overrides, said):
    with pytest.raises(ConsiliumError, match=said):
        load_experiment("demo", overrides, PARAMS)


class TestNetworks:
    """Each network is a section of its own, with the settings that it alone has."""

    def test_a_setting_of_another_network_is_refused_with_those_there_are(self):
        with pytest.raises(ConsiliumError, match=r"model\.width is not a known key.*norm, init"):
            load_experiment("adrenal", ["model.width=32"], PARAMS)
        with pytest.raises(ConsiliumError, match=r"belongs to model\.name=resnet3d.*scale_norm"):
            load_experiment("blood", ["model.stem=7"], PARAMS)

    def test_an_unknown_one_is_refused_with_those_there_are(self):
        said = r"model\.name='unit' is not possible\. Did you mean 'unet'\? There are 'small_cnn', "
        with pytest.raises(ConsiliumError, match=said):
            load_experiment("adrenal", ["model.name=unit"], PARAMS)

    def test_without_a_name_it_is_the_small_net(self):
        assert load_experiment("adrenal", ["model={norm: instance}"], PARAMS).model == SmallCNN(
            norm="instance"
        )

    def test_a_metric_that_there_is_not_is_told_with_those_there_are(self):
        with pytest.raises(ConsiliumError, match=r"one of val/auc, .*val/loss\. Did you mean"):
            load_experiment("adrenal", ["selection.metric=val/acuracy"], PARAMS)
        with pytest.raises(ConsiliumError, match=r"segmentation.*one of val/dice, val/loss"):
            load_experiment("retina", ["selection.metric=val/auc"], PARAMS)

    @pytest.mark.parametrize(
        ("experiment", "settings", "said"),
        [
            (
                "adrenal",
                ["evaluation.share=metrics"],
                r"selection\.metric='val/auc' would have no value: evaluation\.share=metrics.*"
                r"Set selection\.metric=val/accuracy or val/loss, or change evaluation",
            ),
            (
                "adrenal",
                ["evaluation.share=metrics", "selection.metric=val/balanced_accuracy"],
                r"'val/balanced_accuracy' would have no value",
            ),
            (
                "adrenal",
                ["evaluation.min_count=5"],
                r"'val/auc' would have no value: evaluation\.min_count=5 withholds the histograms.*"
                r"val/accuracy or val/balanced_accuracy or val/loss",
            ),
            (
                "adrenal",
                ["evaluation.min_count=2", "selection.metric=val/loss"],
                r"evaluation\.min_count=2 hides no count.*=3 or more",
            ),
            (
                "retina",
                ["evaluation.min_count=5", "evaluation.share=predictions"],
                r"share=predictions sends every case.*Set evaluation\.share=statistics or metrics",
            ),
            (
                "adrenal",
                [*SUMS, "evaluation.min_count=3", "selection.metric=val/loss"],
                r"sum of that table would be of the other sites alone.*Leave evaluation\.min_count",
            ),
            (
                "adrenal",
                ["evaluation.share=sums", "protection.name=ckks", "runner.name=processes"],
                r"protection\.name=ckks is not made for\. Set protection\.name=plain or packed_bfv "
                r"or secagg_plus or rlwe_secagg|plain, packed_bfv, secagg_plus or rlwe_secagg",
            ),
            (
                "adrenal",
                [*SUMS, "sites.participation=0.5", "protection.threshold=4"],
                r"protection\.threshold=4 cannot be with 10 sites",
            ),
            (
                "hippocampus",
                ["evaluation.calibration=temperature"],
                r"calibration=temperature is for one class of an image.*for segmentation\. Leave",
            ),
            (
                "adrenal",
                ["evaluation.conformal.alpha=0.1", "evaluation.share=metrics"],
                r"evaluation\.conformal follows from counts.*share=metrics sends none\. Set",
            ),
            (
                "adrenal",
                [
                    "evaluation.calibration=temperature",
                    *("evaluation.min_count=5", "selection.metric=val/loss"),
                ],
                r"which evaluation\.min_count=5 withholds.*Leave evaluation\.min_count out",
            ),
            ("adrenal", ["evaluation.conformal.alpha=1"], r"conformal\.alpha=1 is not possible"),
            # No case would have to be covered: the rank of the threshold was 0, and chance NaN.
            (
                "adrenal",
                ["evaluation.conformal.alpha=0.999999999999"],
                r"at most 0\.999999|0\.999999",
            ),
            ("adrenal", ["evaluation.conformal.beta=1"], r"conformal\.beta"),
            ("adrenal", ["evaluation.calibration=platt"], r"calibration='platt' is not possible"),
            ("adrenal", ["evaluation.share=all"], r"evaluation\.share='all' is not possible"),
            ("adrenal", ["evaluation.min_count=-1"], r"evaluation\.min_count=-1 is not possible"),
        ],
    )
    def test_a_metric_that_what_sites_send_does_not_give_is_refused(
        self, experiment, settings, said
    ):
        with pytest.raises(ConsiliumError, match=said):
            load_experiment(experiment, settings, PARAMS)

    @pytest.mark.parametrize(
        ("experiment", "settings"),
        [
            ("adrenal", []),
            ("adrenal", ["evaluation.share=predictions"]),
            ("adrenal", ["evaluation.share=metrics", "selection.metric=val/loss"]),
            ("adrenal", ["evaluation.min_count=3", "selection.metric=val/balanced_accuracy"]),
            ("adrenal", SUMS),
            ("adrenal", ["evaluation.share=sums", "protection.name=plain"]),
            ("adrenal", [*SUMS, "sites.participation=0.5"]),
            ("adrenal", ["evaluation.calibration=temperature", "evaluation.conformal.alpha=0.1"]),
            ("adrenal", [*SUMS, "evaluation.conformal.alpha=0.1"]),
            ("adrenal", ["evaluation.share=predictions", "evaluation.calibration=temperature"]),
            ("retina", ["evaluation.share=metrics"]),
            ("retina", ["evaluation.share=metrics", "evaluation.min_count=5"]),
        ],
    )
    def test_one_that_it_gives_is_not(self, experiment, settings):
        found = load_experiment(experiment, settings, PARAMS).evaluation
        assert found.share == "statistics" or any("share" in each for each in settings)

    @pytest.mark.parametrize("own", [{}, {"conv": "acs", "stem": 7}])
    def test_what_an_older_version_wrote_of_every_network_is_read(self, tmp_path, own):
        experiment = load_experiment("adrenal", ["model.name=resnet3d"], PARAMS)
        value = experiment.to_json()
        value["model"] |= {**OF_ALL_ONCE, **own}
        write_json(tmp_path / "config.json", value)
        read = read_experiment(tmp_path / "config.json")
        assert read.model == ResNet3D(**own)
