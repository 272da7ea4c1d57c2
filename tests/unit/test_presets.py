"""The presets and the configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from betz.cli.main import app
from betz.core.config import from_dict, to_dict
from betz.core.errors import ConfigError
from betz.model.presets import PRESETS, ModelConfig, as_reference, mlp_width, parameters, preset, state_bytes


def test_sizes() -> None:
    found = {name: parameters(preset(name)) for name in ("tiny", "small", "45m", "350m", "700m")}
    assert (found["45m"], found["350m"]) == (44_919_649, 354_165_761)
    assert 4.5e6 < found["small"] < 5.5e6
    assert found["700m"] - found["350m"] == 12 * 29_374_720  # the published size of a layer
    assert found["tiny"] < 2e5
    assert (mlp_width(1024), mlp_width(64), mlp_width(320)) == (1024, 128, 384)


def test_own_models_slide_in_milliseconds_and_the_reference_s_do_not() -> None:
    for config in PRESETS.values():
        assert (config.rotary, config.semantics, config.layout) == ("ms", "sliding", "pretrain")
        assert config.refresh_bins == config.window
    reference = as_reference(preset("45m"))
    assert (reference.rotary, reference.semantics, reference.refresh_bins) == ("bins", "recompute", 0)


def test_each_ablation_differs_in_what_it_names() -> None:
    def changed(name: str) -> dict[str, object]:
        whole, other = to_dict(preset("45m")), to_dict(preset(name))
        return {key: other[key] for key in whole if whole[key] != other[key]}

    assert changed("45m-given") == {"behavior_input": "given"}
    assert changed("45m-classes") == {"behavior_head": "classes"}
    assert changed("45m-spikes") == {"objective": "spikes"}
    assert changed("45m-behavior") == {"objective": "behavior"}
    assert changed("45m-patch16") == {"patch_channels": 16, "positions": 58}
    assert changed("45m-no-constraints") == {"constraints": False}
    assert changed("45m-reweighted") == {"behavior_weight": 10.0}
    assert (preset("45m-classes").behavior_classes, preset("45m-classes").class_sigma) == (512, 0.75)


def test_a_configuration_survives_json_and_refuses_what_it_does_not_know() -> None:
    config = replace(preset("small"), readin="units", layout="wide", positions=99)
    assert from_dict(ModelConfig, to_dict(config)) == config
    with pytest.raises(ConfigError, match="depth: Unexpected keyword"):
        from_dict(ModelConfig, {"depth": 3})
    with pytest.raises(ConfigError, match=r"there is no preset '46m'.*use one of tiny, small"):
        preset("46m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 7}, "cannot be cut into 7 heads of even width"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"window": 0}, "window must be at least 1"),
        ({"dropout": 1.0}, "0 ≤ dropout < 1"),
        ({"positions": 40}, "needs 46 positions, the table has 40.*set positions=46"),
        ({"returns": False, "return_head": True}, "return_head needs return tokens.*set returns=True"),
        ({"refresh_bins": -1}, "cannot be negative"),
        ({"sequence_classes": 1}, "sequence_classes ≠ 1"),
        ({"layout": "other"}, "layout: Input should be 'pretrain', 'legacy-finetune' or 'wide'"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelConfig(**change)  # type: ignore[arg-type]


def test_bytes_of_a_recomputed_window_are_its_counts() -> None:
    config = as_reference(preset("45m"))
    assert state_bytes(config, channels=96) < 5000 < state_bytes(preset("45m"), channels=96)


def test_command_line() -> None:
    shown = CliRunner().invoke(app, ["presets"])
    assert shown.exit_code == 0, shown.output
    for name in PRESETS:
        assert name in shown.output
    assert "44,919,649" in shown.output
    assert f"{state_bytes(preset('45m')):,}" in shown.output
    one = CliRunner().invoke(app, ["presets", "tiny"])
    assert "rotary = ms" in one.output
    assert "350m" not in one.output
    wrong = CliRunner().invoke(app, ["presets", "giant"])
    assert wrong.exit_code == 1
    assert "there is no preset 'giant'" in wrong.output
