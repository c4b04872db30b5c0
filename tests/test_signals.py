"""Waveforms: windows, full scale, spectrograms against SciPy and mel filters against TensorFlow."""

import numpy as np
import pytest
from scipy.io import wavfile

from cnn_zoo import DataError, InputError
from cnn_zoo.data import SignalFiles, from_signals, pipeline
from cnn_zoo.data.intensity import Intensity
from cnn_zoo.data.signals import full_scale, mel_filters, read_signal

RATE = 8000


def tone(frequency, samples=2000, loudness=0.5):
    return loudness * np.sin(2 * np.pi * frequency * np.arange(samples) / RATE)


@pytest.fixture
def sounds(tmp_path):
    for label, frequency in (("low", 500), ("high", 2000)):
        (tmp_path / label).mkdir()
        for i in range(4):
            wavfile.write(tmp_path / label / f"{i}.wav", RATE, np.int16(tone(frequency + 10 * i) * 32767))
    return tmp_path


def test_every_kind_of_file(tmp_path):
    wave = np.stack([tone(100, 50), tone(300, 50)], 1)
    wavfile.write(tmp_path / "a.wav", RATE, np.int16(wave * 32768))
    wavfile.write(tmp_path / "f.wav", RATE, wave.astype("float32"))
    wavfile.write(tmp_path / "u.wav", RATE, np.uint8(np.rint(wave * 127 + 128)))
    np.save(tmp_path / "a.npy", wave)
    np.savetxt(tmp_path / "a.csv", wave, delimiter=";", header="left;right", comments="")
    for name, tolerance in (("a.wav", 1e-4), ("f.wav", 1e-6), ("u.wav", 0.02), ("a.npy", 0), ("a.csv", 1e-9)):
        values, rate = read_signal(tmp_path / name)
        assert values.shape == (50, 2) and rate == (RATE if name.endswith("wav") else None)
        np.testing.assert_allclose(full_scale(values), wave, atol=tolerance)
    files = SignalFiles([tmp_path / "a.wav"], length=50)
    np.testing.assert_allclose(files[0], 127.5 + 127.5 * wave, atol=0.01)
    assert files.shape == (1, 50, 2) and files.dtype == np.float32 and "silence 127.5" in files.rule


def test_windows(tmp_path):
    np.save(tmp_path / "a.npy", np.linspace(-1, 1, 25))
    np.save(tmp_path / "b.npy", np.full(4, 0.5))
    files = SignalFiles([tmp_path / "a.npy", tmp_path / "b.npy"], length=10, step=5)
    assert files.shape == (5, 10, 1) and [path.name[0] for path in files.paths] == list("aaaab")
    np.testing.assert_allclose(files[2][:, 0], 127.5 * (1 + np.linspace(-1, 1, 25)[10:20]), rtol=1e-6)
    assert files[4][:, 0].tolist() == [191.25] * 4 + [127.5] * 6  # silence at the end
    assert np.array_equal(files.take([4, 0])[:], files[[4, 0]])
    assert files.describe()["count"] == 5
    fitted = SignalFiles([tmp_path / "a.npy"], length=25, intensity=Intensity("standardise")).fit()
    values = np.linspace(-1, 1, 25)
    expected = (127.5 + 51 * (values - values.mean()) / values.std()).clip(0, 255)
    np.testing.assert_allclose(fitted[0][:, 0], expected, atol=1e-3)


def test_spectrograms_are_scipys():
    """scipy.signal.spectrogram with scaling 'spectrum' gives half the amplitude squared; ours is 1 for a full-scale sine."""
    from scipy.signal import spectrogram

    from cnn_zoo.data.signals import _power

    wave = np.stack([tone(1000, 3000, 1), tone(700, 3000)], 1)
    for window, hop in ((256, 64), (255, 100)):
        ours = _power(wave, window, hop)
        _, _, twin = spectrogram(
            wave, RATE, "hann", window, window - hop, detrend=False, scaling="spectrum", mode="psd", axis=0
        )
        twin = np.moveaxis(twin, 1, -1) * 2
        np.testing.assert_allclose(ours[1:-1], twin[1:-1], rtol=1e-6, atol=1e-12)
    ours = _power(wave, 256, 64)
    assert ours[32, :, 0] == pytest.approx(1, abs=1e-6)  # 1000 Hz is the 32nd of 8000 / 256 Hz each


def test_mel_filters_are_tensorflows():
    import tensorflow as tf

    twin = tf.signal.linear_to_mel_weight_matrix(40, 257, RATE, 0.0, RATE / 2).numpy().T
    np.testing.assert_allclose(mel_filters(40, 512, RATE)[:, 1:], twin[:, 1:], atol=1e-4)
    with pytest.raises(InputError, match="of 200 mel bands hold no frequency of a window of 64 samples"):
        mel_filters(200, 64, RATE)


def test_sounds_as_images(sounds):
    data = from_signals(sounds, length=1000, view="log_mel", window=256, mels=20, test=0.25)
    assert data.classes == ("high", "low") and data.train.images.shape == (12, 20, 12, 1)
    assert (
        not set(data.train.groups) & set(data.test.groups) and len(data.test) == 4
    )  # two windows a file stay together
    images, labels = next(iter(pipeline(data.train, 12)))
    loudest = images.numpy()[..., 0].mean(2).argmax(1)
    assert loudest[labels == 1].max() < loudest[labels == 0].min()
    assert "20 mel bands" in data.source and data.train.names[0] == "high/" + data.train.groups[0].split("/")[1] + "#0"
    waves = from_signals(sounds, length=500)
    assert waves.train.images.shape == (32, 500, 1) and 127 < waves.train.images[:].mean() < 128
    plain = SignalFiles(sorted(sounds.rglob("*.wav")), length=1000, view="spectrogram", window=256)
    assert plain.shape == (16, 129, 12, 1) and plain[0].argmax(0).tolist() == [[64]] * 12  # 2000 Hz
    assert abs(plain[0].max() - (80 - 6.02) / 80 * 255) < 1  # half of full scale


def test_bad_signals(sounds, tmp_path):
    files = sorted(sounds.rglob("*.wav"))
    whole = files[0].read_bytes()
    for content in (b"", b"RIFF", whole[:30], b"hello" * 20):
        files[0].write_bytes(content)
        with pytest.raises(DataError, match="0.wav' is (empty|damaged)"):
            from_signals(sounds, length=100)
    with pytest.warns(UserWarning, match="left out 1: .*0.wav"):
        assert len(from_signals(sounds, length=2000, on_error="skip").train) == 7
    files[0].write_bytes(whole)
    (tmp_path / "a.csv").write_text("1,2\n3,x\n")
    with pytest.raises(DataError, match="a.csv', line 2: could not convert"):
        read_signal(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("1,2\n3\n")
    with pytest.raises(DataError, match="a.csv', line 2: 1 numbers, where 2 are expected"):
        read_signal(tmp_path / "a.csv")
    np.save(tmp_path / "big.npy", np.full(50, 7.0))
    with pytest.raises(DataError, match="big.npy': .*from 7 to 7.*Intensity"):
        SignalFiles([tmp_path / "big.npy"], length=50)[0]
    with pytest.raises(DataError, match="differ in samples a second"):
        SignalFiles([files[0], tmp_path / "big.npy"], length=50)
    with pytest.raises(InputError, match="mel bands need rate="):
        SignalFiles([tmp_path / "big.npy"], length=50, view="log_mel", window=20)
    for options in (
        {"length": 0},
        {"length": 5, "step": -1},
        {"length": 5, "view": "mfcc"},
        {"length": 5, "view": "spectrogram"},
    ):
        with pytest.raises(InputError):
            SignalFiles([files[0]], **options)
