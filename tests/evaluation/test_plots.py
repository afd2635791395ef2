import pathlib

import keras
import numpy as np
import pytest
from keras import ops
from offenders import not_refused
from PIL import Image

from keras_gen import plots, schedules

pytestmark = pytest.mark.one_backend

IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 1)).astype("float32")
PATH = np.random.default_rng(1).uniform(-1, 1, (5, 2, 8, 8, 3)).astype("float32")


def saved(figure, tmp_path):
    figure.savefig(tmp_path / "figure.png")
    return np.asarray(Image.open(tmp_path / "figure.png").convert("L"))


def test_rows_show_their_images_and_names(tmp_path):
    figure = plots.image_rows({"data": IMAGES, "samples": -IMAGES}, "one panel")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["data", "samples"]
    assert axes.get_title() == "one panel"
    picture = axes.images[0].get_array()
    first = picture[6 : 6 + 48 : 6, 6 : 6 + 48 : 6, 0]
    np.testing.assert_array_equal(first, ((IMAGES[0, :, :, 0] + 1) * 127.5).round())
    assert saved(figure, tmp_path).min() < 50
    panels = plots.image_rows({"a": {"": IMAGES}, "b": {"": IMAGES}})
    assert [axes.get_title() for axes in panels.axes] == ["a", "b"]


def test_trajectories_have_a_row_for_each_image():
    (axes,) = plots.trajectories(PATH).axes
    assert len(axes.get_yticklabels()) == 2
    picture = axes.images[0].get_array()
    np.testing.assert_array_equal(picture[6, 6 + 4 * 54, :], ((PATH[4, 0, 0, 0] + 1) * 127.5).round())


def test_loss_curves_of_a_history_and_of_a_file(tmp_path):
    history = keras.callbacks.History()
    history.history = {"loss": [2.0, 1.0], "val_loss": [2.5, 1.5]}
    (tmp_path / "log.csv").write_text("epoch,loss,val_loss\n0,2.0,2.5\n1,1.0,1.5\n")
    for source in (history, history.history, tmp_path / "log.csv", str(tmp_path / "log.csv")):
        (axes,) = plots.loss_curves(source).axes
        assert [line.get_ydata().tolist() for line in axes.lines] == [[2.0, 1.0], [2.5, 1.5]]
        assert axes.get_yscale() == "log"
    (axes,) = plots.loss_curves({"loss": [1.0, -1.0]}).axes
    assert axes.get_yscale() == "linear"


def test_log_snr_curves():
    linear, flow = schedules.LinearSchedule(100), schedules.RectifiedFlowSchedule()
    (axes,) = plots.log_snr_curves({"linear": linear, "flow": flow}).axes
    first = axes.lines[0].get_ydata()
    assert first[0] == pytest.approx(linear.log_snr(np.array([0]))[0])
    assert [line.get_label() for line in axes.lines] == ["linear", "flow"]


def test_latents_are_shown_in_the_plane_of_most_variance():
    z = np.random.default_rng(0).normal(size=(200, 5)) * [0.1, 5.0, 0.1, 2.0, 0.1]
    (axes,) = plots.latents(z, ops.convert_to_tensor(np.arange(200) % 3)).axes
    shown = axes.collections[0].get_offsets()
    np.testing.assert_allclose(np.var(shown, axis=0), np.var(z[:, [1, 3]], axis=0), rtol=0.05)
    assert len(axes.get_legend().get_texts()) == 3
    (axes,) = plots.latents(z[:, :2]).axes
    np.testing.assert_allclose(axes.collections[0].get_offsets(), z[:, :2])


def test_a_gif_holds_the_frames(tmp_path):
    plots.save_gif(tmp_path / "new" / "a.gif", PATH, columns=2, scale=2, seconds=1)
    with Image.open(tmp_path / "new" / "a.gif") as animation:
        assert animation.n_frames == 5
        assert animation.size == (2 * 17 + 1, 18)
        assert animation.info["duration"] == 200
    assert [file.name for file in pathlib.Path(tmp_path / "new").iterdir()] == ["a.gif"]


def test_bad_arguments(tmp_path):
    cases = [
        ("no rows", lambda: plots.image_rows({}), "`rows` must be a dictionary of images"),
        ("list", lambda: plots.image_rows([IMAGES]), "`rows` must be a dictionary of images"),
        ("shapes", lambda: plots.image_rows({"a": IMAGES, "b": IMAGES[:2]}), "`rows` must be images .* of one shape"),
        ("NaN", lambda: plots.image_rows({"a": IMAGES * np.nan}), "`rows` must be finite"),
        ("rank", lambda: plots.trajectories(IMAGES), "`path` must have shape"),
        ("no loss", lambda: plots.loss_curves({"accuracy": [1.0]}), "`history` must be a History"),
        ("no schedule", lambda: plots.log_snr_curves({}), "`schedules` must be a dictionary"),
        ("one dimension", lambda: plots.latents(np.zeros((3, 1))), "`z` must have shape"),
        ("labels", lambda: plots.latents(np.zeros((3, 2)), [1, 2]), "`labels` must have shape"),
        ("suffix", lambda: plots.save_gif(tmp_path / "a.png", PATH), "`filepath` must end with .gif"),
        ("seconds", lambda: plots.save_gif(tmp_path / "a.gif", PATH, seconds=0), "`seconds` must be > 0"),
    ]
    assert not not_refused(cases)
