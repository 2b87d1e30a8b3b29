"""What an image file may be: each mode, range, transparency and orientation is right, or refused by the file's name."""

import numpy as np
import pytest
import torch
from PIL import Image

from efface.data.decode import Reader
from efface.data.folder import image_folder
from small.messages import words

GREY = (np.arange(64, dtype=np.uint8).reshape(8, 8) * 4 + 3).astype(np.uint8)  # 3 to 255


def read(path, white=None):
    return np.asarray(Reader(white)(str(path)))


def grey_of(path, white=None):
    found = read(path, white)
    assert (found == found[:, :, :1]).all()
    return found[:, :, 0]


@pytest.mark.parametrize(
    ("values", "white"),
    [
        ((GREY / 255).astype(np.float32), None),
        (GREY.astype(np.float32), None),
        ((GREY * 257.0).astype(np.float32), None),
        (GREY.astype(np.int32), None),
        (GREY.astype(np.int32) * 257, None),
        (GREY.astype(np.uint16) * 257, None),
        (GREY.astype(np.uint16) * 16, 4095),
        ((GREY / 255 * 20).astype(np.float32), 20.0),
    ],
    ids=["float 1", "float 255", "float 65535", "int32 255", "int32 65535", "16 bits", "12 in 16", "white 20"],
)
def test_values_beyond_eight_bits_are_scaled_by_what_is_white(values, white, tmp_path):
    Image.fromarray(values).save(tmp_path / "0.tif")
    assert np.abs(grey_of(tmp_path / "0.tif", white).astype(int) - GREY).max() <= 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (GREY.astype(np.uint16) * 16, "0.tif 48 4080 white 4095"),
        (GREY.astype(np.uint16), "0.tif 255 white"),
        (GREY.astype(np.int32) * 8, "0.tif 2040 white"),
        (GREY.astype(np.int32) - 20, "0.tif -17"),
        (GREY.astype(np.float32) / 8, "0.tif 31.875 white"),
        ((GREY / 255 - 0.5).astype(np.float32), "0.tif -0.488235"),
        (np.where(GREY > 200, np.nan, GREY).astype(np.float32), "0.tif NaN"),
        (GREY.astype(np.float32) * 1e5, "0.tif white"),
    ],
    ids=["12 in 16", "8 in 16", "11 in 32", "negative", "dark", "about 0", "nan", "large"],
)
def test_values_whose_white_is_not_clear_are_refused_by_the_files_name(values, said, tmp_path):
    Image.fromarray(values).save(tmp_path / "0.tif")
    with pytest.raises(ValueError, match=words(said)):
        read(tmp_path / "0.tif")


def test_a_value_above_the_white_that_is_given_is_refused(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "0.tif")
    with pytest.raises(ValueError, match=words("0.tif 65535 4095 white")):
        read(tmp_path / "0.tif", 4095)


def test_files_of_a_tree_that_disagree_on_white_are_refused_together(tmp_path):
    for name, values in (("a", (GREY / 255).astype(np.float32)), ("b", GREY.astype(np.float32))):
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
    reader = Reader()
    reader(str(tmp_path / "a.tif"))
    with pytest.raises(ValueError, match=words("b.tif 255 a.tif white")):
        reader(str(tmp_path / "b.tif"))


def test_black_files_say_nothing_of_white(tmp_path):
    for values in (np.zeros((4, 4), np.float32), np.zeros((4, 4), np.uint16), np.zeros((4, 4), np.int32)):
        Image.fromarray(values).save(tmp_path / "0.tif")
        assert not read(tmp_path / "0.tif").any()


def test_a_portable_grey_map_tells_its_own_white(tmp_path):
    twelve = (GREY.astype(np.uint16) * 16).astype(">u2")
    (tmp_path / "0.pgm").write_bytes(b"P5 8 8 4095\n" + twelve.tobytes())
    assert np.abs(grey_of(tmp_path / "0.pgm").astype(int) - GREY).max() <= 1


def colours_of_16_bits(path, values):
    """A PNG of 16 bits a channel; Pillow itself writes none."""
    import struct
    import zlib

    h, w, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def test_colours_of_16_bits_keep_their_eight_highest_and_dark_ones_are_refused(tmp_path):
    values = np.repeat(GREY[:, :, None].astype(np.uint16), 3, 2)
    colours_of_16_bits(tmp_path / "0.png", values * 257)
    assert (grey_of(tmp_path / "0.png") == GREY).all()
    colours_of_16_bits(tmp_path / "0.png", values * 16)
    with pytest.raises(ValueError, match=words("0.png 16 4095 65535 white:")):
        read(tmp_path / "0.png")
    assert (grey_of(tmp_path / "0.png", 65535) == GREY // 16).all()


def test_a_file_in_which_0_is_white_is_refused_beyond_eight_bits(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "0.tif", tiffinfo={262: 0})
    with pytest.raises(ValueError, match=words("0.tif (WhiteIsZero)")):
        read(tmp_path / "0.tif")


def half_transparent(mode):
    alpha = np.zeros((8, 8), np.uint8)
    alpha[:, 4:] = 255
    image = Image.fromarray(np.full((8, 8), 40, np.uint8))
    image = image.convert("RGB" if mode == "RGBA" else "L")
    image.putalpha(Image.fromarray(alpha))
    assert image.mode == mode
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_lies_behind_a_transparent_image_is_white(mode, tmp_path):
    if mode == "P":
        image = Image.fromarray(np.repeat([[0] * 4 + [1] * 4], 8, 0).astype(np.uint8), mode="P")
        image.putpalette([7, 7, 7, 40, 40, 40])
        image.save(tmp_path / "0.png", transparency=bytes([0, 255]))
    else:
        half_transparent(mode).save(tmp_path / "0.png")
    found = grey_of(tmp_path / "0.png")
    assert (found[:, :4] == 255).all()
    assert (found[:, 4:] == 40).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_exif_is_applied(orientation, tmp_path):
    upright = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) * 5)
    turns = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    lying = upright
    for turn in turns[orientation]:
        lying = lying.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying.save(tmp_path / "0.png", exif=exif)
    assert (grey_of(tmp_path / "0.png") == np.asarray(upright)).all()


def test_an_exif_block_that_cannot_be_read_turns_nothing(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "0.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01")
    assert (grey_of(tmp_path / "0.png") == GREY).all()


def test_lab_is_refused_by_name(tmp_path):
    Image.new("LAB", (8, 8)).save(tmp_path / "0.tif")
    with pytest.raises(ValueError, match=words("0.tif LAB RGB")):
        read(tmp_path / "0.tif")


def test_white_is_a_setting_of_the_tree_and_changes_the_pack(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(GREY.astype(np.uint16) * 16).save(tmp_path / "set" / name / "0.tif")
    settings = {"root": str(tmp_path / "set"), "size": 8, "resize": None}
    with pytest.raises(ValueError, match=words("0.tif 4080 white")):
        image_folder(**settings)
    found = [image_folder(**settings, white=white)["test"].images.take(torch.tensor([0])) for white in (4095, 65535)]
    assert (found[0][0].numpy() == GREY).all()
    assert (found[1][0].numpy() == GREY // 16).all()
