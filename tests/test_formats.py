"""Reading: every format against another library or a file made by hand, and every way in which a file can be bad."""

import io
import os
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from cnn_zoo import DataError, InputError
from cnn_zoo.data import IMAGE_SUFFIXES, list_images, read_image
from cnn_zoo.data.formats import ImageInfo, inspect, read_array, read_ids, read_many, to_channels
from cnn_zoo.masks import Palette


@pytest.fixture
def picture(rng):
    """A smooth picture `(40, 30, 3)`."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(rng.normal(size=(40, 30, 3)), (4, 4, 0))
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype("uint8")


def packed(image, kind, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png(values, kind, bits, extra=()):
    """A PNG by the letter of its specification: `(h, w, samples)` of whole numbers."""
    values = values.reshape(*values.shape[:2], -1)
    rows = []
    for row in values:
        if bits == 16:
            packed_row = row.astype(">u2").tobytes()
        elif bits == 8:
            packed_row = row.astype("u1").tobytes()
        else:
            ones = (row.astype("u1") >> np.arange(bits - 1, -1, -1).astype("u1")) & 1
            packed_row = np.packbits(ones.ravel()).tobytes()
        rows.append(b"\0" + packed_row)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, kind, 0, 0, 0)
    middle = b"".join(chunk(name, data) for name, data in extra)
    body = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + middle + body + chunk(b"IEND", b"")


def agrees(info, array):
    """The header promises what is then read."""
    assert (info.height, info.width, info.channels) == array.shape
    assert info.dtype == array.dtype.name
    return True


# ---------------------------------------------------------------- JPEG


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}, {"optimize": True}]
)
def test_jpeg_has_the_values_of_pillow_and_of_tensorflow(picture, options):
    import tensorflow as tf

    contents = packed(picture, "JPEG", **options)
    array = read_array(contents)
    assert np.array_equal(array, np.asarray(Image.open(io.BytesIO(contents))))
    assert np.array_equal(array, tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE").numpy())
    assert inspect(contents) == ImageInfo(40, 30, 3, "uint8", 8, 1, "JPEG")
    gray = packed(picture[..., 0], "JPEG", **options)
    assert np.array_equal(read_array(gray)[..., 0], np.asarray(Image.open(io.BytesIO(gray))))
    assert agrees(inspect(gray), read_array(gray))


def test_jpeg_of_printers_and_telephones(picture):
    """Four inks; a second picture behind the first; bytes behind the end; fill bytes before a marker."""
    inks = packed(Image.fromarray(picture).convert("CMYK"), "JPEG")
    assert np.array_equal(read_array(inks), np.asarray(Image.open(io.BytesIO(inks)).convert("RGB")))
    assert agrees(inspect(inks), read_array(inks))
    plain = packed(picture, "JPEG")
    both = packed(picture, "MPO", save_all=True, append_images=[Image.new("RGB", (30, 40))])
    assert np.array_equal(read_array(both), np.asarray(Image.open(io.BytesIO(both)).convert("RGB")))
    assert np.array_equal(read_array(plain + b"trailer"), read_array(plain))
    assert np.array_equal(read_array(plain[:2] + b"\xff\xff" + plain[2:]), read_array(plain))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(picture, kind, orientation):
    """Pillow's transposition is the reference; three quarters of the picture are cut so that no symmetry hides a mistake."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    contents = packed(picture[:20], kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    image = Image.open(io.BytesIO(contents))
    twin = np.asarray(ImageOps.exif_transpose(image))
    assert twin.shape[:2] == ((20, 30) if orientation < 5 else (30, 20))
    array = read_array(contents)
    assert np.array_equal(array, twin) and agrees(inspect(contents), array)
    gray = packed(picture[:20, :, 0], kind, exif=exif) if kind in ("JPEG", "PNG") else None
    if gray:
        assert np.array_equal(
            read_array(gray)[..., 0], np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(gray))))
        )


def test_an_orientation_that_makes_no_sense_is_none(picture):
    plain = packed(picture, "JPEG")
    for block in (b"Exif\0\0broken", b"Exif\0\0" + b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0"):
        segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
        assert np.array_equal(read_array(plain[:2] + segment + plain[2:]), read_array(plain))


# ---------------------------------------------------------------- PNG


@pytest.mark.parametrize(("kind", "samples"), [(0, 1), (2, 3), (4, 2), (6, 4)])
@pytest.mark.parametrize("bits", [8, 16])
def test_png_of_8_and_16_bit(rng, kind, samples, bits):
    values = rng.integers(0, 2**bits, (9, 7, samples))
    contents = png(values, kind, bits)
    alpha = samples in (2, 4)
    array = read_array(contents)
    assert array.dtype == f"uint{bits}" and np.array_equal(array, values[..., : samples - alpha])
    info = inspect(contents)
    assert agrees(info, array) and info.alpha == alpha and info.bits == bits
    kept = read_array(contents, alpha=True)
    if alpha:
        assert np.array_equal(kept, values[..., [0, 0, 0, 1]] if samples == 2 else values)
    else:
        assert np.array_equal(kept, array)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_png_of_few_bits(rng, bits):
    """Gray is stretched to 0..255 (one bit is logical), ids are not."""
    values = rng.integers(0, 2**bits, (9, 7))
    contents = png(values, 0, bits)
    array = read_array(contents)
    assert np.array_equal(array[..., 0] * (255 if bits == 1 else 1), values * 255 // (2**bits - 1))
    assert agrees(inspect(contents), array) and inspect(contents).bits == bits
    assert np.array_equal(read_ids(contents), values) and read_ids(contents).dtype == np.uint8


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_with_a_palette(rng, bits):
    values = rng.integers(0, 2**bits, (9, 7))
    colors = rng.integers(0, 256, (2**bits, 3)).astype("uint8")
    contents = png(values, 3, bits, [(b"PLTE", colors.tobytes())])
    assert np.array_equal(read_array(contents), colors[values])
    assert agrees(inspect(contents), read_array(contents))
    assert np.array_equal(read_ids(contents), values)
    clear = rng.integers(0, 256, 2**bits).astype("uint8")
    contents = png(values, 3, bits, [(b"PLTE", colors.tobytes()), (b"tRNS", clear.tobytes())])
    assert np.array_equal(read_array(contents), colors[values])
    assert np.array_equal(read_array(contents, alpha=True), np.dstack([colors[values], clear[values]]))
    assert np.array_equal(read_ids(contents), values)


def test_png_with_one_transparent_colour_keeps_it(picture):
    contents = png(picture, 2, 8, [(b"tRNS", struct.pack(">HHH", *picture[0, 0]))])
    assert np.array_equal(read_array(contents), picture) and np.array_equal(read_array(contents, alpha=True), picture)


# ---------------------------------------------------------------- BMP, GIF, WebP


def test_bmp_gif_and_webp_are_pillows(picture, rng):
    rgba = np.dstack([picture, picture[..., 0]])
    for contents in (
        packed(picture, "BMP"), packed(picture[..., 0], "BMP"), packed(Image.fromarray(picture).quantize(9), "BMP"),
        packed(picture, "GIF"), packed(picture, "WEBP"), packed(rgba, "WEBP"), packed(rgba, "WEBP", lossless=True),
    ):  # fmt: skip
        image = Image.open(io.BytesIO(contents))
        gray = image.mode == "L"
        twin = np.asarray(image.convert("L" if gray else "RGBA" if image.mode == "RGBA" else "RGB"))
        array = read_array(contents)
        assert np.array_equal(array, twin[..., None] if gray else twin[..., :3])
        assert agrees(inspect(contents), array)
        assert np.array_equal(read_array(contents, alpha=True), twin[..., None] if gray else twin)
    logical = rng.integers(0, 2, (9, 7)).astype(bool)
    contents = packed(logical, "BMP")
    assert np.array_equal(read_array(contents)[..., 0], logical) and agrees(inspect(contents), read_array(contents))


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_frames(picture, kind):
    flat = [np.full((8, 6, 3), value, "uint8") for value in (0, 100, 200)]
    images = [Image.fromarray(one) for one in flat]
    contents = packed(
        images[0], kind, save_all=True, append_images=images[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert inspect(contents).frames == 3
    for frame, one in enumerate(flat):
        assert np.array_equal(read_array(contents, frame), one)
    assert np.array_equal(read_array(contents), flat[0])
    for frame in (3, -1):
        with pytest.raises(DataError, match=rf"has 3 frame\(s\), 0..2, and no frame {frame}"):
            read_array(contents, frame)


# ---------------------------------------------------------------- TIFF


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float16", "float32", "float64"])
@pytest.mark.parametrize(
    "options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"compression": "zlib"}, {"tile": (16, 16)}]
)
def test_tiff_of_any_type(rng, dtype, options):
    values = (rng.random((40, 30)) * 200).astype(dtype)
    contents = tiff(values, **options)
    array = read_array(contents)
    assert array.dtype == dtype and array.dtype.isnative and np.array_equal(array[..., 0], values)
    assert agrees(inspect(contents), array)


def test_tiff_as_pillow_writes_it(picture, rng):
    logical = rng.integers(0, 2, (9, 7)).astype(bool)
    for image in (Image.fromarray(picture), Image.fromarray(picture[..., 0]), Image.fromarray(logical)):
        for compression in (None, "tiff_deflate", "tiff_lzw", "packbits"):
            contents = packed(image, "TIFF", compression=compression)
            array = read_array(contents)
            assert np.array_equal(array.squeeze(), np.asarray(image)), (image.mode, compression)
            assert agrees(inspect(contents), array)
    for quality in (75, 95):
        contents = packed(picture, "TIFF", compression="jpeg", quality=quality)
        twin = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
        assert np.abs(read_array(contents).astype(int) - twin).max() <= 1 and agrees(
            inspect(contents), read_array(contents)
        )
    deep = rng.integers(0, 65536, (9, 7)).astype("uint16")
    contents = packed(deep, "TIFF", compression="tiff_lzw")
    assert np.array_equal(read_array(contents)[..., 0], deep)
    inks = packed(Image.fromarray(picture).convert("CMYK"), "TIFF")
    assert np.array_equal(read_array(inks), np.asarray(Image.open(io.BytesIO(inks)).convert("RGB")))
    assert agrees(inspect(inks), read_array(inks))


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("bands", [2, 3, 4, 13])
def test_tiff_of_several_bands(rng, bands, planar):
    values = rng.integers(0, 4096, (40, 30, bands)).astype("uint16")
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    contents = tiff(stored, photometric="minisblack", planarconfig=planar)
    array = read_array(contents)
    assert np.array_equal(array, values) and agrees(inspect(contents), array) and not inspect(contents).alpha


def test_tiff_with_alpha_drops_it(rng):
    values = rng.integers(0, 256, (20, 30, 4)).astype("uint8")
    contents = tiff(values, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read_array(contents), values[..., :3]) and inspect(contents).alpha
    assert np.array_equal(read_array(contents, alpha=True), values)


@pytest.mark.parametrize(
    ("shape", "options", "axes"),
    [
        ((4, 20, 30), {"photometric": "minisblack", "metadata": None}, "ZYX"),  # pages and nothing said
        ((4, 20, 30), {"photometric": "minisblack", "compression": "zlib"}, "ZYX"),
        ((4, 20, 30, 3), {"photometric": "rgb"}, "ZYXS"),
        ((2, 3, 20, 30), {"imagej": True, "metadata": {"axes": "ZCYX"}}, "ZCYX"),
        ((2, 2, 3, 20, 30), {"imagej": True, "metadata": {"axes": "TZCYX"}}, "TZCYX"),
        ((3, 20, 30), {"ome": True, "metadata": {"axes": "CYX"}}, "CYX"),
        ((3, 2, 20, 30), {"ome": True, "metadata": {"axes": "CZYX"}, "photometric": "minisblack"}, "CZYX"),
    ],
)
def test_tiff_stacks_and_channels(rng, tmp_path, shape, options, axes):
    values = rng.integers(0, 65536, shape).astype("uint8" if "S" in axes else "uint16")
    (tmp_path / "a.tif").write_bytes(tiff(values, **options))
    order = [i for i, axis in enumerate(axes) if axis in "TZ"], [i for i, axis in enumerate(axes) if axis in "CS"]
    moved = values.transpose(*order[0], axes.index("Y"), axes.index("X"), *order[1])
    moved = moved.reshape(-1, 20, 30, moved.shape[-1] if order[1] else 1)
    info = inspect(tmp_path / "a.tif")
    assert info.frames == len(moved)
    for frame in range(len(moved)):
        array = read_array(tmp_path / "a.tif", frame)
        assert np.array_equal(array, moved[frame]) and agrees(info, array)


def test_tiff_where_white_is_0_and_tiff_with_a_palette(rng):
    values = rng.integers(0, 256, (20, 30)).astype("uint8")
    contents = tiff(values, photometric="miniswhite")
    assert np.array_equal(read_array(contents)[..., 0], 255 - values) and np.array_equal(read_ids(contents), values)
    squeezed = packed(values, "TIFF", compression="tiff_lzw", tiffinfo={262: 0})
    assert np.array_equal(read_array(squeezed)[..., 0], np.asarray(Image.open(io.BytesIO(squeezed))))
    assert np.array_equal(read_ids(squeezed), 255 - read_array(squeezed)[..., 0])
    colors = rng.integers(0, 65536, (3, 256)).astype("uint16")
    contents = tiff(values, photometric="palette", colormap=colors)
    assert np.array_equal(read_array(contents), (colors >> 8).T[values]) and agrees(
        inspect(contents), read_array(contents)
    )
    assert np.array_equal(read_ids(contents), values)
    image = Image.fromarray(rng.integers(0, 256, (20, 30, 3)).astype("uint8")).quantize(16)
    squeezed = packed(image, "TIFF", compression="tiff_lzw")
    assert np.array_equal(read_array(squeezed), np.asarray(image.convert("RGB")))
    assert np.array_equal(read_ids(squeezed), np.asarray(image))


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("white_is_0", [False, True])
def test_tiff_of_few_bits(rng, bits, white_is_0):
    """Written by hand: eight rows in one strip."""
    values = rng.integers(0, 2**bits, (8, 8))
    ones = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    data = np.packbits(ones.reshape(8, -1).astype("u1"), axis=1).tobytes()
    tags = [
        (256, 8),
        (257, 8),
        (258, bits),
        (259, 1),
        (262, 0 if white_is_0 else 1),
        (273, 8),
        (277, 1),
        (278, 8),
        (279, len(data)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    contents = struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
    stretched = values * (255 // (2**bits - 1))
    assert np.array_equal(read_array(contents)[..., 0], 255 - stretched if white_is_0 else stretched)
    assert np.array_equal(read_ids(contents), values) and agrees(inspect(contents), read_array(contents))


def test_tiff_that_nothing_here_decompresses(rng):
    values = rng.integers(0, 256, (40, 30, 13)).astype("uint8")
    contents = bytearray(tiff(values, photometric="minisblack", planarconfig="contig"))
    at = contents.index(struct.pack("<HHI", 259, 3, 1)) + 8
    contents[at : at + 2] = struct.pack("<H", 5)
    with pytest.raises(DataError, match=r"is damaged(, or needs pip install 'cnn-zoo\[tiff\]'| \(imcd_lzw)"):
        read_array(bytes(contents))


def test_real_microscopy(shared):
    cells, labels = shared("data/microscopy/cells_uint16.tif"), shared("data/microscopy/cells_labels_uint16.tif")
    assert inspect(cells) == ImageInfo(512, 512, 1, "uint16", 16, 1, "TIFF")
    assert np.array_equal(read_array(cells)[..., 0], np.asarray(Image.open(cells)))
    assert np.array_equal(read_ids(labels), np.asarray(Image.open(labels))) and read_ids(labels).max() > 50


# ---------------------------------------------------------------- MRC and NumPy


def mrc(values, mode):
    """An MRC2014 file by the letter of its specification: 1,024 bytes of header, then rows."""
    header = bytearray(1024)
    stack = values.reshape(-1, *values.shape[-2:])
    struct.pack_into("<4i", header, 0, *stack.shape[::-1], mode)
    struct.pack_into("<3i", header, 28, *stack.shape[::-1])
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    struct.pack_into("<i", header, 88, 0 if values.ndim == 3 or len(stack) == 1 else 1)
    header[208:216] = b"MAP \x44\x44\0\0"
    struct.pack_into("<i", header, 108, 20140)
    return bytes(header) + values.tobytes()


@pytest.mark.parametrize(("mode", "dtype"), [(0, "int8"), (1, "int16"), (2, "float32"), (6, "uint16")])
def test_mrc(rng, tmp_path, mode, dtype):
    pytest.importorskip("mrcfile")
    values = (rng.random((3, 20, 30)) * 100).astype(dtype)
    (tmp_path / "a.mrcs").write_bytes(mrc(values, mode))
    for source in (tmp_path / "a.mrcs", mrc(values, mode)):
        info = inspect(source)
        assert info == ImageInfo(20, 30, 1, dtype, 8 * values.itemsize, 3, "MRC")
        for frame in range(3):
            assert np.array_equal(read_array(source, frame)[..., 0], values[frame])
    whole = mrc(values, mode)
    (tmp_path / "cut.mrc").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"cut.mrc' is damaged \("):
        read_array(tmp_path / "cut.mrc")


def test_mrc_as_mrcfile_writes_it(rng, tmp_path):
    mrcfile = pytest.importorskip("mrcfile")
    values = rng.normal(size=(20, 30)).astype("float32")
    with mrcfile.new(tmp_path / "a.mrc", values):
        pass
    assert np.array_equal(read_array(tmp_path / "a.mrc")[..., 0], values)
    assert agrees(inspect(tmp_path / "a.mrc"), read_array(tmp_path / "a.mrc"))
    assert list_images(tmp_path) == [tmp_path / "a.mrc"]


def test_mrc_without_its_package_names_the_extra(monkeypatch, rng):
    monkeypatch.setitem(sys.modules, "mrcfile", None)
    with pytest.raises(ImportError, match=r"pip install 'cnn-zoo\[mrc\]'"):
        read_array(mrc(rng.normal(size=(2, 3)).astype("float32"), 2))


def test_numpy(rng, tmp_path):
    values = rng.integers(0, 256, (5, 20, 30, 3)).astype(">u2")
    for array, twin in ((values[0, ..., 0], values[:1, ..., :1]), (values[0], values[:1]), (values, values)):
        np.save(tmp_path / "a.npy", array)
        np.savez_compressed(tmp_path / "a.npz", anything=array)
        for path in (tmp_path / "a.npy", tmp_path / "a.npz"):
            for source in (path, path.read_bytes()):
                info = inspect(source)
                assert info.frames == len(twin) and info.format == "NumPy" and info.bits == 16
                for frame in range(len(twin)):
                    found = read_array(source, frame)
                    assert np.array_equal(found, twin[frame]) and agrees(info, found) and found.dtype.isnative
    np.savez(tmp_path / "two.npz", a=values, b=values)
    np.save(tmp_path / "object.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    np.save(tmp_path / "line.npy", np.zeros(9))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-9])
    for name, words in [
        ("two.npz", r"several arrays \(a, b\)"), ("object.npy", "holds object of shape"), ("line.npy", r"float64 of shape \(9,\)"),
        ("cut.npy", "is damaged"),
    ]:  # fmt: skip
        with pytest.raises(DataError, match=f"{name}' {words}|{name}' holds {words}"):
            read_array(tmp_path / name)


# ---------------------------------------------------------------- Masks


def test_ids_are_never_colours(rng, tmp_path):
    ids = rng.integers(0, 3, (9, 7)).astype("uint8")
    palette = Palette(("a", "b", "c"), ((0, 0, 0), (255, 0, 0), (0, 0, 255)))
    indexed = Image.fromarray(2 - ids).convert("P")
    indexed.putpalette(np.array(palette.colors[::-1], "uint8").tobytes())
    coloured, own = packed(palette.to_rgb(ids), "PNG"), packed(indexed, "PNG")
    assert np.array_equal(read_ids(own), 2 - ids)
    assert np.array_equal(read_ids(own, palette), ids)  # by its colours
    assert np.array_equal(read_ids(coloured, palette), ids)
    assert np.array_equal(read_ids(packed(ids, "PNG"), palette), ids)  # numbers are ids already
    for contents in (packed(np.dstack([ids] * 3), "PNG"), packed(np.dstack([ids] * 3 + [ids * 0 + 255]), "PNG")):
        assert np.array_equal(read_ids(contents), ids)
    deep = rng.integers(0, 65536, (9, 7)).astype("uint16")
    assert np.array_equal(read_ids(packed(deep, "PNG")), deep) and np.array_equal(read_ids(tiff(deep)), deep)
    assert np.array_equal(read_ids(packed(ids, "WEBP", lossless=True)), ids)
    logical = packed(ids > 0, "PNG")
    assert np.array_equal(read_ids(logical), ids > 0)
    white = packed((ids > 0).astype("uint8") * 255, "PNG")
    assert np.array_equal(read_ids(white, Palette.binary()), ids > 0)
    assert np.array_equal(read_ids(logical, Palette.binary()), ids > 0)
    assert np.array_equal(read_ids(white, values={255: 1}), ids > 0)
    swapped = read_ids(packed(ids, "PNG"), values={0: 1, 1: 0, 2: 300})
    assert swapped.dtype == np.uint16 and np.array_equal(swapped, np.array([1, 0, 300])[ids])
    assert np.array_equal(read_ids(tiff(ids.astype("float32"))), ids)


def test_masks_that_are_none(rng, picture, tmp_path):
    (tmp_path / "m.jpg").write_bytes(packed(picture[..., 0], "JPEG"))
    for contents, words in [
        (packed(picture, "PNG"), "coloured and there is no palette"),
        (packed(picture[..., 0], "WEBP"), "a lossy WebP, which changes the values of a mask"),
        (packed(np.dstack([picture, picture[..., 0]]), "PNG"), "with transparency"),
        (tiff(rng.random((9, 7)).astype("float32")), "fractions"),
        (
            tiff(rng.integers(0, 9, (20, 30, 5)).astype("uint8"), photometric="minisblack", planarconfig="contig"),
            "one channel",
        ),
    ]:
        with pytest.raises(DataError, match=f"the image.* {words}|the image is {words}"):
            read_ids(contents)
    with pytest.raises(DataError, match=r"m.jpg' is a JPEG, which changes the values of a mask"):
        read_ids(tmp_path / "m.jpg")
    with pytest.raises(DataError, match="not in the palette"):
        read_ids(packed(picture, "PNG"), Palette.binary())


# ---------------------------------------------------------------- Bad files


@pytest.mark.parametrize(
    "make",
    [
        lambda p: packed(p, "JPEG"), lambda p: packed(p, "JPEG", progressive=True), lambda p: packed(p, "PNG"),
        lambda p: packed(p, "BMP"), lambda p: packed(p, "GIF"), lambda p: packed(p, "WEBP"), lambda p: packed(p, "WEBP", lossless=True),
        lambda p: tiff(p), lambda p: tiff(p, compression="zlib"), lambda p: packed(p, "TIFF", compression="tiff_lzw"),
        lambda p: tiff(p, bigtiff=True, tile=(16, 16)),
    ],
    ids=["jpeg", "progressive", "png", "bmp", "gif", "webp", "lossless", "tiff", "zlib", "lzw", "bigtiff"],
)  # fmt: skip
def test_wherever_a_file_breaks_off_it_is_refused(picture, make, capfd):
    """At every tenth of its length, and at its first bytes: one sentence, no other exception, and no picture with gray below."""
    contents = make(picture)
    for end in [*range(1, 40, 3), *range(40, len(contents) - 2, len(contents) // 10)]:
        with pytest.raises(DataError, match="the image is (damaged|not an image)|the image cannot") as caught:
            read_array(contents[:end])
        assert "\n" not in str(caught.value)


def test_random_damage_gives_pictures_or_data_errors(picture, rng):
    """Never another exception, and never a picture of another shape."""
    for contents in (
        packed(picture, "JPEG"),
        packed(picture, "PNG"),
        packed(picture, "GIF"),
        packed(picture, "WEBP"),
        tiff(picture),
    ):
        for _ in range(40):
            broken = bytearray(contents)
            for place in rng.integers(0, len(broken), 3):
                broken[place] = rng.integers(256)
            try:
                info = inspect(bytes(broken), max_pixels=100_000)
                array = read_array(bytes(broken), max_pixels=100_000)
            except DataError:
                continue
            assert agrees(info, array)


def test_png_with_a_wrong_checksum(picture):
    contents = bytearray(packed(picture, "PNG"))
    contents[contents.index(b"IDAT") + 30] ^= 1
    with pytest.raises(DataError, match="wrong checksum"):
        read_array(bytes(contents))


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "zip.npz").write_bytes(b"PK\3\4" + bytes(300))
    with zipfile.ZipFile(tmp_path / "doc.docx", "w") as archive:
        archive.writestr("word/document.xml", "text")
    for name, words in [
        ("empty.png", r"is empty \(0 bytes\)"), ("text.png", r"is not an image that can be read \(.bmp"), ("folder.png", "is a folder"),
        ("doc.docx", "is not an image"), ("zip.npz", "is not an image"),
    ]:  # fmt: skip
        for function in (read_array, read_ids, inspect):
            with pytest.raises(DataError, match=f"{name}' {words}"):
                function(tmp_path / name)
    with pytest.raises(DataError, match="there is no image .*none.png'"):
        read_array(tmp_path / "none.png")
    with pytest.raises(DataError, match="there is no image|cannot be read"):
        read_array("x" * 5000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="is no ordinary file"):
        read_array(tmp_path / "pipe.png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may read everything")
def test_an_unreadable_path(tmp_path, picture):
    (tmp_path / "a.png").write_bytes(packed(picture, "PNG"))
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(DataError, match=r"a.png' cannot be read \(Permission denied\): check its permissions"):
        read_array(tmp_path / "a.png")


def bombs():
    claim = struct.pack(">II", 50_000, 50_000)
    head = png(np.zeros((1, 1), int), 0, 8)
    yield "png", head[:16] + claim + head[24:]
    jpeg = bytearray(packed(np.zeros((8, 8), "uint8"), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 50_000, 50_000)
    yield "jpeg", bytes(jpeg)
    bmp = bytearray(packed(np.zeros((8, 8), "uint8"), "BMP"))
    bmp[18:26] = struct.pack("<ii", 50_000, 50_000)
    yield "bmp", bytes(bmp)
    gif = bytearray(packed(np.zeros((8, 8), "uint8"), "GIF"))
    gif[6:10] = struct.pack("<HH", 50_000, 50_000)
    yield "gif", bytes(gif)
    header = {"descr": "|u1", "fortran_order": False, "shape": (50_000, 50_000)}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    yield "npy", buffer.getvalue() + bytes(100)
    packed_npz = io.BytesIO()
    with zipfile.ZipFile(packed_npz, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", buffer.getvalue() + bytes(100))
    yield "npz", packed_npz.getvalue()


@pytest.mark.parametrize("contents", [pytest.param(contents, id=kind) for kind, contents in bombs()])
def test_a_bomb_is_refused_by_its_header(contents):
    for function in (read_array, inspect, read_ids):
        with pytest.raises(DataError, match=r"claims to be larger than 89,478,485 pixels \(50,000 x 50,000"):
            function(contents)


def test_the_limit_is_an_argument_and_counts_bands(picture, rng):
    for contents in (packed(picture, "PNG"), packed(picture, "GIF"), packed(picture, "JPEG"), tiff(picture)):
        with pytest.raises(DataError, match="larger than 1,199 pixels"):
            read_array(contents, max_pixels=1199)
        assert read_array(contents, max_pixels=1200).shape == (40, 30, 3)
    many = tiff(rng.integers(0, 9, (40, 30, 13)).astype("uint8"), photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match="larger than 4,799"):
        read_array(many, max_pixels=4799)
    assert read_array(many, max_pixels=4800).shape == (40, 30, 13)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "PNG"])
def test_a_raised_limit_is_not_pillows(monkeypatch, picture, kind):
    """Pillow's own limit is one for the process, warns, and at twice its value refuses."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    contents = packed(picture, kind)
    with pytest.raises(DataError, match="larger than 100 pixels"):
        read_array(contents)
    assert read_array(contents, max_pixels=10_000).shape == (40, 30, 3)


# ---------------------------------------------------------------- Many files, channels, suffixes


def test_many_files_one_summary(tmp_path, picture):
    for i in range(30):
        (tmp_path / f"{i:02}.png").write_bytes(packed(picture, "PNG") if i % 2 else b"" if i % 4 else b"text")
    paths = sorted(tmp_path.iterdir())
    with pytest.raises(DataError) as caught:
        read_many(paths)
    text = str(caught.value)
    assert text.startswith("15 image(s) cannot be read: ") and "; and 5 more. " in text and "\n" not in text
    assert [f"{i:02}.png" in text for i in range(30)] == [i % 2 == 0 and i < 20 for i in range(30)]
    with pytest.warns(UserWarning, match=r"left out 15 image\(s\): .*00.png.*; and 5 more"):
        arrays, kept = read_many(paths, on_error="skip")
    assert kept == list(range(1, 30, 2)) and all(np.array_equal(array, picture) for array in arrays)
    assert read_many([]) == ([], [])
    infos, kept = read_many(paths[1::2], read=inspect)
    assert len(infos) == 15 and infos[0].format == "PNG"
    with pytest.raises(InputError, match="'raise' or 'skip', not 'ignore'"):
        read_many(paths, on_error="ignore")


@pytest.mark.slow  # it imports the package once more
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_does_not_wait_for_threads_that_it_lacks(tmp_path, picture):
    (tmp_path / "a.png").write_bytes(packed(picture, "PNG"))
    code = (
        "import os, sys, warnings; warnings.simplefilter('ignore'); from cnn_zoo.data.formats import read_many\n"
        "paths = [sys.argv[1]] * 8; read_many(paths); child = os.fork()\n"
        "answer = len(read_many(paths)[0])\n"
        "os._exit(answer) if child == 0 else sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.png")], timeout=120).returncode == 8


def test_channels(picture, rng):
    gray = picture[..., :1]
    assert np.array_equal(to_channels(gray, 3), np.repeat(gray, 3, -1)) and to_channels(picture, 3) is picture
    assert np.array_equal(to_channels(gray, 4)[..., 3], np.full((40, 30), 255))
    assert to_channels(gray, 13).shape == (40, 30, 13)
    for dtype in ("uint8", "uint16", "float32", "uint32"):
        scale = 257 if dtype == "uint16" else 1
        values = picture.astype(dtype) * np.dtype(dtype).type(scale)
        twin = values.astype("float64") @ [0.299, 0.587, 0.114]
        found = to_channels(values, 1)
        assert found.dtype == dtype and np.abs(found[..., 0] - twin).max() <= (0.501 if dtype != "float32" else 1e-4)
        assert np.array_equal(
            to_channels(to_channels(values[..., :1], 3), 1), values[..., :1]
        )  # there and back, to the bit
    with pytest.raises(DataError, match="13 channels cannot be brought to 3"):
        to_channels(np.zeros((4, 4, 13)), 3)


def test_hidden_files_are_no_images(tmp_path, picture):
    for name in ("a.png", "._a.png", ".b.jpg", "a.npz"):
        (tmp_path / name).write_bytes(packed(picture, "PNG"))
    assert list_images(tmp_path) == [tmp_path / "a.png"]
    assert {".mrc", ".mrcs", ".npy"} <= set(IMAGE_SUFFIXES) and ".npz" not in IMAGE_SUFFIXES
    np.save(tmp_path / "deep.npy", np.full((4, 5), 257, "uint16"))
    assert np.array_equal(read_image(tmp_path / "deep.npy"), np.ones((4, 5, 1)))
