"""Arrays of files from outside: what is damaged is refused with the name of the file."""

import io
import zipfile

import numpy as np
import pytest
from offenders import not_refused

from keras_gen.data import array_names, load_arrays, load_npz

pytestmark = pytest.mark.one_backend

IMAGES = np.arange(256, dtype="uint8").reshape(4, 8, 8)


def write_npz(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_damaged_npz_files_are_refused_by_name(tmp_path):
    whole = write_npz(tmp_path / "whole.npz", x_train=IMAGES, y_train=np.arange(4)).read_bytes()
    contents = {f"cut_{n}": whole[:n] for n in (0, 3, 100, len(whole) - 30)}
    for place in (40, 150, 180, len(whole) - 60):
        contents[f"flipped_{place}"] = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
    contents |= {"words": b"no arrays", "folderlike": b"PK\x05\x06" + b"\0" * 18}
    array = io.BytesIO()
    np.save(array, IMAGES)
    contents["one_array"] = array.getvalue()
    cases = []
    for name, content in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        cases.append((name, lambda path=path: load_npz(path, "train"), rf"`path` must .*{name}\.npz"))
    assert not not_refused(cases)


def test_a_place_outside_of_the_file_is_damage(tmp_path):
    """Where the end of an archive misplaces its directory, the system itself refuses to seek."""
    whole = write_npz(tmp_path / "whole.npz", x_train=IMAGES).read_bytes()
    place = whole.index(b"PK\x05\x06") + 16
    (tmp_path / "moved.npz").write_bytes(whole[:place] + b"\0\1\0\1" + whole[place + 4 :])
    with pytest.raises(ValueError, match=r"`path` must be a whole .npz file.*moved\.npz"):
        load_npz(tmp_path / "moved.npz")


def test_a_huge_header_and_a_pickle_are_refused(tmp_path):
    header = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(header, fields)
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("x_train.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"`path` must be a whole .npz file.*huge.npz"):
        load_npz(tmp_path / "huge.npz", "train")
    np.savez(tmp_path / "pickle.npz", x_train=np.array([{}], object))
    with pytest.raises(ValueError, match=r"without pickled objects.*pickle.npz.*allow_pickle=False"):
        load_npz(tmp_path / "pickle.npz", "train")


def test_labels(tmp_path):
    for labels in (np.arange(4), np.arange(4.0), np.arange(4)[:, None].astype("uint8")):
        read = load_npz(write_npz(tmp_path / "a.npz", x_train=IMAGES, y_train=labels), "train")[1]
        assert read.dtype == "int32"
        assert read.tolist() == [0, 1, 2, 3]
    for labels, message in (
        (np.full(4, 0.5), r"`y_train` must be integers in 0 .. 99999. Received: y_train=\[0.5\]"),
        (np.array([0, 1, np.nan, 2]), r"integers in 0 .. 99999. Received: y_train=\[nan\]"),
        (np.array([0, 1, 2, 10**9]), r"integers in 0 .. 99999. Received: y_train=\[1000000000\]"),
        (np.array([0, 1, 2, -1]), r"integers in 0 .. 99999. Received: y_train=\[-1\]"),
        (np.eye(4), r"`y_train` must be one class number for each image, of shape \(4,\).*float64 of shape \(4, 4\)"),
        (np.arange(3), r"one class number for each image.*int64 of shape \(3,\)"),
        (np.array(list("abcd")), "one class number for each image.*<U1 of shape"),
        (np.array(3), r"one class number for each image.*int64 of shape \(\)"),
    ):
        path = write_npz(tmp_path / "bad.npz", x_train=IMAGES, y_train=labels)
        with pytest.raises(ValueError, match=rf"bad\.npz: .*{message}"):
            load_npz(path, "train")


def test_named_arrays(tmp_path):
    path = write_npz(tmp_path / "a.npz", x_train=IMAGES, names=np.array(["a", "b"]))
    assert {name: array.tolist() for name, array in load_arrays(path, "names").items()} == {"names": ["a", "b"]}
    assert list(load_arrays(str(path))) == array_names(path) == ["x_train", "names"]
    with pytest.raises(
        ValueError, match=r"`path` must hold others, more. Received: path=.*a\.npz with \['x_train', 'n"
    ):
        load_arrays(path, "names", "others", "more")
    assert load_npz(path)[1] is None
    with pytest.raises(
        ValueError, match=r"`path` must hold x_test. Received: path=.*a\.npz with \['x_train', 'names'\]"
    ):
        load_npz(path, "test")
    with pytest.raises(ValueError, match="`part` must be one of 'train', 'test'. Received: part='tset'"):
        load_npz(path, "tset")
    with pytest.raises(ValueError, match=r"`path` must be an .npz file, a zip archive of arrays.*nowhere\.npz"):
        load_arrays(tmp_path / "nowhere.npz")


def test_names_load_no_array(tmp_path):
    """The second array is damaged, which only those see who load it."""
    whole = bytearray(write_npz(tmp_path / "a.npz", x_train=IMAGES, x_test=IMAGES).read_bytes())
    whole[whole.rindex(bytes(range(100, 120)))] ^= 1
    (tmp_path / "a.npz").write_bytes(whole)
    assert array_names(tmp_path / "a.npz") == ["x_train", "x_test"]
    with pytest.raises(ValueError, match=r"`path` must be a whole .npz file"):
        load_arrays(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"`path` must be an .npz file"):
        array_names(tmp_path / "nowhere.npz")
