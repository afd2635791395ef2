"""Reading of files from outside: as a person sees them, or refused with the name of the file."""

import io
import pathlib
import random
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest
from offenders import not_refused
from PIL import Image, ImageCms

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from image_files import read_arrays, read_labelled, read_picture, read_pictures

pytestmark = pytest.mark.one_backend

RAMP = np.arange(0, 256, dtype="uint8").reshape(16, 16)
GRAY = np.repeat(RAMP[..., None], 3, axis=-1)
HALF = np.where(np.arange(16) < 8, 0, 255).astype("uint8") * np.ones((16, 1), "uint8")  # opaque on the right


def seen(path, picture, **options):
    picture.save(path, **options)
    return read_picture(path, 16).astype(int)


def of_mode(array, mode):
    return Image.frombytes(mode, (16, 16), np.ascontiguousarray(array).tobytes())


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(RAMP),
        Image.fromarray(RAMP.astype("uint16") * 257),
        Image.fromarray(RAMP.astype("int32") * 257),
        Image.fromarray((RAMP / 255).astype("float32")),
        of_mode(RAMP.astype(">u2") * 257, "I;16B"),
        Image.fromarray(GRAY),
    ],
    ids=lambda picture: picture.mode,
)
def test_a_ramp_stays_a_ramp(picture, tmp_path):
    # The suffix is that of a kind that is read; Pillow goes by the content.
    picture.save(tmp_path / "a.tiff")
    (tmp_path / "a.tiff").rename(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", 16), GRAY)


def test_16_bit_gray_png(tmp_path):
    values = np.linspace(0, 65535, 256).round().astype("uint16").reshape(16, 16)
    pixels = seen(tmp_path / "a.png", Image.fromarray(values))
    assert np.abs(pixels - GRAY).max() <= 1
    assert len(np.unique(pixels)) == 256
    transparent = seen(tmp_path / "b.png", Image.fromarray(values), transparency=int(values[0, 3]))
    assert transparent[0, 3].tolist() == [255] * 3
    assert transparent[0, 2].tolist() == [2] * 3


def test_orientation_of_exif(tmp_path):
    pixels = np.zeros((16, 16, 3), "uint8")
    pixels[:8] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what is above comes to the right
    turned = seen(tmp_path / "a.png", Image.fromarray(pixels), exif=exif)
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1))


def palette(transparent):
    picture = Image.fromarray(np.where(HALF > 0, 1, 0).astype("uint8"), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.info["transparency"] = transparent
    return picture


@pytest.mark.parametrize(
    ("picture", "opaque"),
    [
        (Image.fromarray(np.dstack([np.full_like(GRAY, 40), HALF])), [40, 40, 40]),
        (Image.fromarray(np.dstack([np.full_like(HALF, 40), HALF]), "LA"), [40, 40, 40]),
        (palette(0), [40, 50, 60]),
        (palette(bytes([0, 255])), [40, 50, 60]),
    ],
    ids=["RGBA", "LA", "P", "P with a table"],
)
def test_transparency_is_on_white(picture, opaque, tmp_path):
    pixels = seen(tmp_path / "a.png", picture)
    assert (pixels[:, :8] == 255).all()
    assert (pixels[:, 8:] == opaque).all()


def test_half_transparency_is_half_white(tmp_path):
    picture = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    assert np.abs(seen(tmp_path / "a.png", picture) - 127).max() <= 1


def test_a_colour_that_stands_for_transparency(tmp_path):
    pixels = seen(tmp_path / "a.png", Image.fromarray(GRAY), transparency=(3, 3, 3))
    np.testing.assert_array_equal(pixels, np.where(GRAY == 3, 255, GRAY))


def test_inks(tmp_path):
    pixels = seen(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=100)
    assert np.abs(pixels[8, 8] - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_follow_the_profile(mode, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = Image.new(mode, (16, 16), (200, 30, 90) if mode == "RGB" else (200, 30, 90, 255))
    same = seen(tmp_path / "a.png", picture, icc_profile=profile)
    assert np.abs(same[0, 0] - [200, 30, 90]).max() <= 1
    red, blue = (profile.index(name) for name in (b"rXYZ", b"bXYZ"))  # entries of the table: name, offset, size
    swapped = bytearray(profile)
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    exchanged = seen(tmp_path / "b.png", picture, icc_profile=bytes(swapped))
    assert np.abs(exchanged[0, 0] - [90, 30, 200]).max() <= 2


def test_a_useless_profile_is_left_out(tmp_path):
    for_rgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile, picture in ((b"no profile", Image.fromarray(GRAY)), (for_rgb, Image.fromarray(RAMP))):
        np.testing.assert_array_equal(seen(tmp_path / "a.png", picture, icc_profile=profile), GRAY)


def test_hidden_files_are_skipped(tmp_path):
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"of another system")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "b.png").write_bytes(b"no picture")
    assert read_pictures(tmp_path, 16).shape == (1, 16, 16, 3)


def png(width, height, *chunks):
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks, (b"IEND", b"")]
    bodies = (struct.pack(">I", len(data)) + kind + data for kind, data in parts)
    sums = (struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body + crc for body, crc in zip(bodies, sums, strict=True))


def bmp(width, height):
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def saved(picture, kind):
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def test_bad_pictures_are_refused_by_name(tmp_path):
    text = zlib.compress(b"a" * 10**8)
    whole = saved(Image.fromarray(GRAY), "PNG")
    contents = {
        "large": png(60_000, 60_000, (b"IDAT", zlib.compress(b"0"))),
        "text": png(8, 8, (b"zTXt", b"a\0\0" + text)),
        "flat": png(0, 8),
        "no_pixels": png(8, 8),
        "wide_bmp": bmp(10**9, 8),
        "negative_bmp": bmp(-(10**9), 8),
        "cut": whole[:60],
        "empty": b"",
        "words": b"no picture",
        "nan": saved(Image.fromarray(np.full((8, 8), np.nan, "float32")), "TIFF"),
        "beyond": saved(Image.fromarray(np.full((8, 8), 70_000, "int32")), "TIFF"),
        "negative": saved(Image.fromarray(np.full((8, 8), -1, "int32")), "TIFF"),
    }
    cases = []
    for name, content in contents.items():
        (tmp_path / f"{name}.png").write_bytes(content)
        cases.append(
            (name, lambda name=name: read_picture(tmp_path / f"{name}.png", 8), rf"`dataset` must .*{name}\.png")
        )
    (tmp_path / "folder.png").mkdir()
    cases.append(("folder", lambda: read_picture(tmp_path / "folder.png", 8), r"folder\.png.*must hold files"))
    assert not not_refused(cases)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_damaged_pictures_load_or_are_refused_by_name(kind, tmp_path):
    whole = saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), "uint8")), kind)
    chance = random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(min(len(damaged), 120))] = chance.randrange(256)
        (tmp_path / "damaged.png").write_bytes(damaged)
        try:
            read_picture(tmp_path / "damaged.png", 8)
        except ValueError as error:
            assert "damaged.png" in str(error)  # noqa: PT017 (whether it is damaged so that one can see it is chance)


IMAGES = RAMP.reshape(4, 8, 8)


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
        cases.append((name, lambda path=path: read_labelled(path, "train"), rf"`dataset` must .*{name}\.npz"))
    assert not not_refused(cases)


def test_a_huge_header_and_a_pickle_are_refused(tmp_path):
    header = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(header, fields)
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("x_train.npy", header.getvalue())
    with pytest.raises(ValueError, match=r"`dataset` must be a whole .npz file.*huge.npz"):
        read_labelled(tmp_path / "huge.npz", "train")
    np.savez(tmp_path / "pickle.npz", x_train=np.array([{}], object))
    with pytest.raises(ValueError, match=r"without pickled objects.*pickle.npz.*allow_pickle=False"):
        read_labelled(tmp_path / "pickle.npz", "train")


def test_labels(tmp_path):
    for labels in (np.arange(4), np.arange(4.0), np.arange(4)[:, None].astype("uint8")):
        read = read_labelled(write_npz(tmp_path / "a.npz", x_train=IMAGES, y_train=labels), "train")[1]
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
            read_labelled(path, "train")


def test_named_arrays(tmp_path):
    path = write_npz(tmp_path / "a.npz", x_train=IMAGES, names=np.array(["a", "b"]))
    assert {name: array.tolist() for name, array in read_arrays(path, "names", "others").items()} == {
        "names": ["a", "b"]
    }
    with pytest.raises(ValueError, match=r"a\.npz: `dataset` must hold an array others.*\['x_train', 'names'\]"):
        read_arrays(path, "others")
    assert read_labelled(path, "train")[1] is None
    assert read_labelled(path, "test") is None
