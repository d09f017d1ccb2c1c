"""A run's networks, played in both renderers' pictures."""

import numpy as np
import pytest

from configs import dmc_pixels, gymnax_states
from experiments.evaluate import drawn_by, play
from experiments.record.policy import read_config
from experiments.run import run


@pytest.mark.slow
def test_networks_play_as_they_were_evaluated_and_almost_so_in_opengls_pictures(tmp_path):
    config = dmc_pixels.get_config("smoke")
    config.update(results_dir=str(tmp_path), seeds=(0,), eval=dict(episodes=2), env=dict(render_quality="fast"))
    assert run(config) == 0
    folder = tmp_path / "drq_ne_smoke_cartpole_swingup"
    jax, gl = (play(folder, drawn_by(each, folder, read_config(folder)), 2).returns for each in ("jax", "gl"))
    last = (folder / "0" / "metrics.jsonl").read_text().splitlines()[-1]
    assert f'"eval/return": {jax.mean():.3f}'[:-1] in last
    assert jax.shape == gl.shape == (1, 2) and np.isfinite(gl).all()


def test_a_folder_without_a_run_and_a_run_without_pixels_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(gymnax_states.get_config().to_json())
    with pytest.raises(ValueError, match="is no run of dm_control from pixels"):
        drawn_by("gl", tmp_path, read_config(tmp_path))
