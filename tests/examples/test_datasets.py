import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from datasets import load_images


def test_digits():
    images, labels = load_images("digits")
    assert images.shape == (1797, 8, 8, 1)
    assert (images.min(), images.max()) == (-1, 1)
    assert sorted(set(labels.tolist())) == list(range(10))


def test_npz_in_the_layout_of_keras(tmp_path):
    pixels = np.arange(2 * 4 * 4, dtype="uint8").reshape(2, 4, 4)
    np.savez(tmp_path / "a.npz", x_train=pixels, y_train=np.array([[3], [4]]))
    images, labels = load_images(str(tmp_path / "a.npz"))
    assert images.shape == (2, 4, 4, 1)
    np.testing.assert_allclose(images[..., 0], pixels / 127.5 - 1, atol=1e-6)
    assert labels.tolist() == [3, 4]
    np.savez(tmp_path / "b.npz", x_train=pixels)
    assert load_images(str(tmp_path / "b.npz"))[1] is None


def test_folder_of_pictures(tmp_path):
    Image.new("RGB", (10, 20), (255, 0, 0)).save(tmp_path / "a.png")
    (tmp_path / "more").mkdir()
    Image.new("L", (8, 8), 255).save(tmp_path / "more" / "b.jpg")
    (tmp_path / "notes.txt").write_text("not a picture")
    images, labels = load_images(str(tmp_path), size=8)
    assert images.shape == (2, 8, 8, 3)
    assert labels is None
    np.testing.assert_allclose(images[0, 4, 4], [1, -1, -1], atol=0.02)


def test_a_truncated_picture_is_named(tmp_path):
    path = tmp_path / "broken.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), "uint8")).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"broken.png"):
        load_images(str(tmp_path))
    (tmp_path / "broken.png").write_text("no picture at all")
    with pytest.raises(ValueError, match=r"broken.png"):
        load_images(str(tmp_path))


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="`dataset` must be one of digits, mnist.*Received: dataset=mnits"):
        load_images("mnits")
    with pytest.raises(ValueError, match="`path` must be a folder with pictures"):
        load_images(str(tmp_path))
    np.savez(tmp_path / "c.npz", images=np.zeros(3))
    with pytest.raises(ValueError, match=r"`path` must hold x_train.*\['images'\]"):
        load_images(str(tmp_path / "c.npz"))
    np.savez(tmp_path / "d.npz", x_train=np.zeros((3, 4, 4)))
    with pytest.raises(ValueError, match="`x_train` must be uint8"):
        load_images(str(tmp_path / "d.npz"))
