"""Weight files: strict, checked, never half-written; downloads against a server on this machine."""

import base64
import dataclasses
import hashlib
import http.server
import threading
import types

import numpy as np
import pytest

from cnn_zoo import StorageError, Weights, WeightsError, backbone, build, build_lenet, weights
from cnn_zoo.weights import cache

CLASSES = tuple("0123456789")


@pytest.fixture
def saved(tmp_path):
    """A LeNet and the file of its weights."""
    model = build_lenet()
    for variable in model.weights:
        variable.assign(np.random.default_rng(len(variable.path)).normal(size=variable.shape))
    path = tmp_path / "lenet.safetensors"
    weights.save(model, path, net="lenet", classes=CLASSES, preset="unit", licence="CC0-1.0")
    return model, path


def test_weights_come_back_with_the_same_bits(saved, rng):
    model, path = saved
    x = rng.integers(0, 256, (2, 28, 28, 1)).astype("uint8")
    np.testing.assert_array_equal(build_lenet(weights=str(path))(x), model(x))
    taps = backbone("lenet", weights=path)
    np.testing.assert_array_equal(taps.get_layer("c1").kernel, model.get_layer("c1").kernel)


def test_weights_of_another_net_or_shape_are_refused(saved, tmp_path):
    model, path = saved
    with pytest.raises(WeightsError, match="holds weights of 'lenet', not of 'lenet5'"):
        build("lenet5", weights=path)
    with pytest.raises(
        WeightsError, match=r"of another shape: head_f6/kernel: \(120, 84\) in the file, \(\d+, 84\) in the model"
    ):
        build_lenet(weights=path, input_size=40)
    with pytest.raises(ValueError, match="have 10 classes, not 3"):
        build_lenet(weights=path, classes=3)
    arrays, _ = weights.read(path)
    arrays["c9/kernel"] = arrays.pop("c1/kernel")
    before = model.get_weights()
    with pytest.raises(WeightsError, match="1 not in the file: c1/kernel | 1 not in the model: c9/kernel"):
        weights.assign(model, arrays, "these")
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_damaged_files_are_refused(saved, tmp_path):
    _, path = saved
    half = tmp_path / "half.safetensors"
    half.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        build_lenet(weights=half)
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    with pytest.raises(WeightsError, match="not a whole safetensors file"):
        build_lenet(weights=text)
    with pytest.raises(WeightsError, match="no weights file"):
        weights.read(tmp_path / "nothing.safetensors")


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`, with ranges; a path that starts with /cut/ hangs up half-way."""

    stated: str = ""
    files: dict = {}
    log: list = []

    def do_GET(self):
        cut, name = self.path.startswith("/cut/"), self.path.rpartition("/")[2]
        self.log.append((self.path, self.headers.get("Range")))
        if name not in self.files:
            return self.send_error(404)
        if self.path.startswith("/hub/"):  # Hugging Face: a redirect that states the hash of what lies behind it
            self.send_response(302)
            self.send_header("Location", f"/{name}")
            self.send_header("X-Linked-Etag", f'"{self.stated}"')
            return self.end_headers()
        body, start = self.files[name], 0
        if (wanted := self.headers.get("Range")) and not self.path.startswith("/norange/"):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        if self.path.startswith("/bucket/"):  # Google Cloud Storage
            self.send_header("x-goog-hash", "crc32c=AAAAAA==")
            self.send_header("x-goog-hash", f"md5={base64.b64encode(hashlib.md5(body).digest()).decode()}")
        self.end_headers()
        self.wfile.write(body[start : start + (len(body) - start) // 2] if cut else body[start:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(saved):
    body = saved[1].read_bytes()
    Server.files, Server.log = {"lenet.safetensors": body, "wrong.safetensors": body[::-1]}, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def record(saved, server):
    body = saved[1].read_bytes()
    return Weights(
        net="lenet", tag="served", file="lenet.safetensors", hash=f"sha256:{hashlib.sha256(body).hexdigest()}", bytes=len(body),
        licence="CC0-1.0", dataset="none", classes=CLASSES, preset="unit", source="a test",
        urls=(f"{server}/lenet.safetensors",),
    )  # fmt: skip


def with_urls(record, *urls):
    return dataclasses.replace(record, urls=urls)


def test_a_file_is_downloaded_once_into_the_cache(record, saved):
    path = weights.locate(record)
    assert path == cache.cache_dir() / "lenet" / "lenet.safetensors"
    assert path.read_bytes() == saved[1].read_bytes()
    assert weights.locate(record) == path and len(Server.log) == 1
    assert [p.name for p in path.parent.iterdir()] == ["lenet.safetensors"]


def test_an_interrupted_download_goes_on_where_it_stopped(record, server, saved):
    with pytest.raises(WeightsError, match="the connection ended after|bytes read|IncompleteRead"):
        weights.download(with_urls(record, f"{server}/cut/lenet.safetensors"), progress=False)
    part = cache.cache_dir() / "lenet" / "lenet.safetensors.part"
    had = part.stat().st_size
    assert 0 < had < record.bytes
    path = weights.download(record, progress=False)
    assert Server.log[-1][1] == f"bytes={had}-"
    assert path.read_bytes() == saved[1].read_bytes() and not part.exists()


def test_a_server_without_ranges_sends_the_whole_file_again(record, server, saved):
    with pytest.raises(WeightsError):
        weights.download(with_urls(record, f"{server}/cut/lenet.safetensors"), progress=False)
    path = weights.download(with_urls(record, f"{server}/norange/lenet.safetensors"), progress=False)
    assert path.read_bytes() == saved[1].read_bytes()


def test_a_mirror_steps_in_for_a_missing_and_for_a_wrong_file(record, server, saved):
    urls = (f"{server}/gone.safetensors", f"{server}/wrong.safetensors", f"{server}/lenet.safetensors")
    assert weights.download(with_urls(record, *urls), progress=False).read_bytes() == saved[1].read_bytes()


def test_when_nothing_works_the_error_says_what_to_do(record, server):
    urls = (f"{server}/gone.safetensors", f"{server}/wrong.safetensors", "http://127.0.0.1:1/x")
    with pytest.raises(WeightsError, match="404.*wrong file.*refused.*copy the file.*CNN_ZOO_CACHE"):
        weights.download(with_urls(record, *urls), progress=False)
    assert list((cache.cache_dir() / "lenet").iterdir()) == []


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_hashes_are_those_that_the_publisher_states(record, saved, algorithm):
    digits = hashlib.new(algorithm, saved[1].read_bytes()).hexdigest()
    right = dataclasses.replace(record, hash=f"{algorithm}:{digits}")
    assert weights.download(right, progress=False).read_bytes() == saved[1].read_bytes()
    wrong = dataclasses.replace(record, hash=f"{algorithm}:{digits[::-1]}")
    with pytest.raises(WeightsError, match=f"is damaged, or not lenet:served: its {algorithm} is {digits[:12]}"):
        weights.locate(wrong)


def test_the_first_digits_of_a_hash_are_enough_and_the_size_may_be_unknown(record, saved):
    short = dataclasses.replace(record, hash=record.hash[: len("sha256:") + 8], bytes=None)
    assert weights.locate(short).read_bytes() == saved[1].read_bytes()


def test_a_cut_download_of_unknown_size_is_noticed_and_continued(record, server, saved):
    unknown = dataclasses.replace(record, bytes=None)
    with pytest.raises(WeightsError, match="the connection ended after|IncompleteRead"):
        weights.download(with_urls(unknown, f"{server}/cut/lenet.safetensors"), progress=False)
    assert weights.download(unknown, progress=False).read_bytes() == saved[1].read_bytes()
    part = cache.place(record).with_name("lenet.safetensors.part")
    part.write_bytes(saved[1].read_bytes() + b"more")  # a part that is too long is thrown away
    assert weights.download(unknown, progress=False).read_bytes() == saved[1].read_bytes()


def test_a_server_that_states_the_hash_is_believed_and_remembered(record, server, saved, monkeypatch):
    hub = dataclasses.replace(record, hash="hf", bytes=None, urls=(f"{server}/hub/lenet.safetensors",))
    monkeypatch.setattr(Server, "stated", "0" * 64)
    with pytest.raises(WeightsError, match="wrong file .its sha256 is .* instead of 000000000000"):
        weights.download(hub, progress=False)
    with pytest.raises(WeightsError, match="does not state the hash"):
        weights.download(with_urls(hub, f"{server}/lenet.safetensors"), progress=False)
    monkeypatch.setattr(Server, "stated", hashlib.sha256(saved[1].read_bytes()).hexdigest())
    path = weights.download(hub, progress=False)
    assert weights.locate(hub) == path
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    with pytest.raises(WeightsError, match="is damaged"):
        weights.locate(hub)


def test_a_bucket_states_its_md5(record, server, saved):
    bucket = dataclasses.replace(record, hash="gcs", bytes=None, urls=(f"{server}/bucket/lenet.safetensors",))
    path = weights.download(bucket, progress=False)
    assert cache.stated_hash(bucket) == f"md5:{hashlib.md5(saved[1].read_bytes()).hexdigest()}"
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    with pytest.raises(WeightsError, match="is damaged"):
        weights.locate(bucket)


def test_a_server_with_another_file_is_found_out_by_its_size(record, server):
    Server.files["lenet.safetensors"] += b"more"
    with pytest.raises(WeightsError, match="the file there has .* bytes, not"):
        weights.download(record, progress=False)


def test_a_damaged_file_in_the_cache_is_not_used(record):
    path = weights.locate(record)
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    with pytest.raises(WeightsError, match="is damaged.*delete"):
        weights.locate(record)


def test_a_full_disk_is_said_before_the_download(record, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10))
    with pytest.raises(StorageError, match="10 bytes free.*CNN_ZOO_CACHE"):
        weights.download(record, progress=False)


def test_a_file_in_the_way_of_the_cache(record, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CNN_ZOO_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="a part of that path is a file|in the way"):
        weights.download(record, progress=False)
