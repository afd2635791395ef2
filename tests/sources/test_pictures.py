"""Reading of files from outside: as a person sees them, or refused with the name of the file."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from offenders import not_refused
from PIL import Image, ImageCms

from keras_gen.data import load_images
from keras_gen.sources.pictures import read_picture

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
    assert load_images(tmp_path, 16)[0].shape == (1, 16, 16, 3)


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
        cases.append((name, lambda name=name: read_picture(tmp_path / f"{name}.png", 8), rf"`path` must .*{name}\.png"))
    (tmp_path / "folder.png").mkdir()
    cases.append(("folder", lambda: read_picture(tmp_path / "folder.png", 8), r"`path` must hold files.*folder\.png"))
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


def animals(folder, **counts):
    """Writes one-coloured pictures, `counts` of them in each sub-folder; the i-th one's red is 10 i."""
    for name, count in counts.items():
        (folder / name).mkdir()
        for i in range(count):
            Image.new("RGB", (6, 4), (10 * i, 0, 0)).save(folder / name / f"{i}.png")


def test_sub_folders_are_labels(tmp_path):
    animals(tmp_path, cat=2, ape=1)
    (tmp_path / "cat" / "wild").mkdir()
    Image.new("RGB", (4, 4), (200, 0, 0)).save(tmp_path / "cat" / "wild" / "a.png")
    (tmp_path / ".hidden").mkdir()
    images, labels, names = load_images(tmp_path, size=4)
    assert names == ["ape", "cat"]
    assert labels.dtype == "int32"
    assert labels.tolist() == [0, 1, 1, 1]
    assert images[:, 0, 0, 0].tolist() == [0, 0, 10, 200]


def test_pictures_beside_sub_folders_have_no_labels(tmp_path):
    animals(tmp_path, cat=2, empty=0)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    images, labels, names = load_images(str(tmp_path), size=4)
    assert (len(images), labels, names) == (3, None, [])


def test_a_folder_with_one_picture(tmp_path):
    Image.new("L", (4, 4), 9).save(tmp_path / "a.png")
    images, labels, _ = load_images(tmp_path, size=2)
    assert images.tolist() == [[[[9] * 3] * 2] * 2]
    assert labels is None


def test_what_is_no_folder_of_pictures_is_refused(tmp_path):
    animals(tmp_path, cat=2, ape=0, dog=0)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "notes.txt").write_text("no picture")
    with pytest.raises(
        ValueError, match=r"`path` must hold pictures in each.*without any in \['ape', 'dog', 'words'\]"
    ):
        load_images(tmp_path)
    with pytest.raises(ValueError, match=r"`path` must be a folder with pictures \(.png, .*words"):
        load_images(tmp_path / "words")
    with pytest.raises(ValueError, match="`path` must be a folder. Received: path=.*nowhere"):
        load_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="`size` must be an integer >= 1. Received: size=0"):
        load_images(tmp_path, size=0)
