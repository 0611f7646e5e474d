"""The experiments of macJNet keep to the paper's numbers, and nothing begins with what has not learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anamorph.losses import diffusion
from anamorph.methods.base import Domain
from anamorph.methods.dynunet import DynUNetSettings
from anamorph.methods.lapirn import LapIRNSettings
from anamorph.methods.macjnet import MacJNetSettings
from anamorph.methods.network_choice import registration_network
from anamorph.methods.registration import SimilaritySettings
from anamorph.methods.voxelmorph import VoxelMorphSettings
from anamorph.networks.deformation import Deformation
from anamorph.training.configuration import TrainingConfiguration
from anamorph.training.experiment import configured
from anamorph.training.experiment_recipe import Scale, read_experiment

FOLDER = Path(__file__).parents[2] / "experiments/macjnet"
ABDOMENS = sorted(path.stem for path in FOLDER.glob("*.yaml") if "folder: macjnet\n" in path.read_text())


def trained(name: str, scale: Scale) -> dict[str, TrainingConfiguration]:
    return configured(read_experiment(FOLDER / f"{name}.yaml", scale))


@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize("name", ABDOMENS)
def test_there_are_as_many_pairs_and_labels_as_in_the_paper(name: str, scale: Scale) -> None:
    experiment = read_experiment(FOLDER / f"{name}.yaml", scale)
    phantoms = experiment.cohort.synthesise
    assert phantoms is not None
    assert phantoms.cases is not None
    assert (phantoms.cases - phantoms.validation - phantoms.test, phantoms.test) == (90, 28)
    assert experiment.labelled.share == 0.3


def test_the_shares_of_labels_are_those_of_table_7() -> None:
    experiment = read_experiment(FOLDER / "table_7.yaml", "cpu")
    shares = {}
    for name, row in experiment.rows.items():
        recipe = experiment.train[row.of]
        weights = MacJNetSettings.model_validate(recipe.settings).weights
        share = (recipe.labelled or experiment.labelled).share if weights.overlap else 0.0
        shares[name] = share
        for source in recipe.initial.values():
            begun = experiment.train[source.partition(".")[0]]
            if weights.overlap and begun.method == "dynunet":
                assert (begun.labelled or experiment.labelled).share == share, f"{name} begins with {source}"
    assert shares == {f"labels, percent {percent}": percent / 100 for percent in (0, 5, 10, 30, 50, 100)}


@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize("name", ABDOMENS)
def test_nothing_teaches_itself_before_it_has_learnt_from_labels(name: str, scale: Scale) -> None:
    experiment = read_experiment(FOLDER / f"{name}.yaml", scale)
    for training, configuration in configured(experiment).items():
        settings, recipe = configuration.settings, experiment.train[training]
        if isinstance(settings, DynUNetSettings) and settings.weights.self_training:
            begun = experiment.train[recipe.initial["network"].partition(".")[0]]
            assert (begun.modality, begun.labelled) == (recipe.modality, recipe.labelled)
            assert settings.self_training.begin < 0.1, f"{training} idles on cases without labels"


@pytest.mark.parametrize("name", [*ABDOMENS, "hippocampus"])
def test_the_epoch_of_a_pyramid_is_chosen_when_all_its_levels_have_learnt(name: str) -> None:
    for training, configuration in trained(name, "cpu").items():
        settings, schedule = configuration.settings, configuration.schedule
        if isinstance(settings, LapIRNSettings) and settings.progressive:
            last_level = sum(settings.shares[:-1]) * schedule.epochs
            assert schedule.validate_every > last_level + 0.5, training


def cost_of_a_map(configuration: TrainingConfiguration) -> float:
    """What the same velocity costs a network, by the weight of the images."""
    settings = configuration.settings
    assert isinstance(settings, (MacJNetSettings, LapIRNSettings, VoxelMorphSettings))
    domain = Domain((16, 16, 16), (1.0, 1.0, 1.0), classes=1, modalities=("ct", "t1"))
    velocity = torch.rand(1, 3, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    chosen = settings.registration if isinstance(settings, MacJNetSettings) else settings
    field = registration_network(chosen, domain).regularised(Deformation(velocity, velocity))
    assert settings.weights.smoothness is not None
    return float(settings.weights.smoothness * diffusion(field) / settings.weights.similarity)


def test_a_map_costs_voxelmorph_in_the_frame_what_it_costs_lapirn() -> None:
    frame, macjnet = (trained(name, "cpu")[of] for name, of in (("other_networks", "frame"), ("table_5", "macjnet")))
    assert cost_of_a_map(frame) == pytest.approx(cost_of_a_map(macjnet))


@pytest.mark.parametrize("scale", ["cpu", "paper"])
@pytest.mark.parametrize("name", ["table_2", "table_2_elastix", "hippocampus", "prostate_mr_us"])
def test_a_map_costs_the_baselines_what_it_costs_macjnet(name: str, scale: Scale) -> None:
    found = trained(name, scale)
    costs = [cost_of_a_map(found[of]) for of in ("voxelmorph-mind", "reg-mind", "reg-macmind", "macjnet")]
    assert costs == pytest.approx([costs[-1]] * 4)
    assert {getattr(found[of].settings, "weights").similarity for of in ("voxelmorph-mind", "reg-mind")} == {20.0}  # noqa: B009


def test_lapirn_of_table_2_is_the_network_with_mind_of_table_4() -> None:
    rows = [read_experiment(FOLDER / f"table_{number}.yaml", "cpu").rows for number in (2, 4)]
    assert rows[0]["LapIRN, MIND"].of == rows[1]["registration, MIND"].of


@pytest.mark.parametrize("name", [*ABDOMENS, "hippocampus", "prostate_mr_us"])
def test_on_coarse_voxels_macmind_looks_less_far(name: str) -> None:
    reaches: dict[Scale, int] = {"cpu": 4, "paper": 8}
    for scale, reach in reaches.items():
        for training, configuration in trained(name, scale).items():
            settings = configuration.settings
            if isinstance(settings, SimilaritySettings) and settings.similarity == "macmind":
                farthest = len(settings.alphas) * settings.distance
                found = farthest + settings.patch_size // 2 + settings.macmind_bins.radius
                assert found == reach or (name not in ABDOMENS and found == 5), training


@pytest.mark.parametrize("name", ["table_5", "hippocampus", "prostate_mr_us"])
def test_the_network_by_itself_has_as_many_steps(name: str) -> None:
    """And differs from macJNet in the terms by which the networks teach each other alone."""
    for scale in ("cpu", "paper"):
        experiment = read_experiment(FOLDER / f"{name}.yaml", scale)
        assert experiment.rows["registration, macMIND, as many steps"].of == "apart"
        alone, joint = (configured(experiment)[of].model_dump() for of in ("apart", "macjnet"))
        assert alone["settings"]["weights"] == joint["settings"]["weights"] | {"overlap": 0.0, "consistency": 0.0}
        joint["settings"]["weights"] = alone["settings"]["weights"]
        assert alone == joint


@pytest.mark.parametrize("name", ABDOMENS)
def test_structures_have_a_column_for_each_metric(name: str) -> None:
    judged = read_experiment(FOLDER / f"{name}.yaml", "cpu").evaluate
    assert set(judged.landmarks) == (set(judged.labels) if "tre_mm" in judged.metrics else set())
