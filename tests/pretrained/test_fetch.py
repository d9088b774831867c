"""Fetching from servers that cut, forget, change and refuse; all on the loopback."""

import contextlib
import dataclasses
import fcntl
import hashlib
import http.server
import re
import threading
import time

import numpy as np
import pytest

from imgcls_jax.errors import CheckpointError, ConfigError, EnvironmentFailure
from imgcls_jax.pretrained import catalogue, fetch
from imgcls_jax.types import Weights

DATA = np.random.default_rng(0).bytes(3_000_000)
SHA = hashlib.sha256(DATA).hexdigest()


@dataclasses.dataclass
class Server:
    """Serves `data` at /f.pth. cuts: bytes after which each of the first answers is cut off."""

    data: bytes = DATA
    cuts: list[int] = dataclasses.field(default_factory=list)
    ranges: bool = True  # whether it knows Range
    etag: str = '"1"'
    statuses: list[int] = dataclasses.field(default_factory=list)  # of the first answers
    before: list = dataclasses.field(default_factory=list)  # called before each of the first
    length: bool = True  # whether answers tell their length
    url: str = ""
    asked: list = dataclasses.field(default_factory=list)  # (Range, If-Range) of each request
    sent: list = dataclasses.field(default_factory=list)  # bytes of the body of each answer

    def weights(self, sha256=SHA):
        return Weights(self.url, "torchvision", 224, 256, "bilinear", None, None, "", sha256)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        now = self.server.now
        if now.before:
            now.before.pop(0)()
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        now.asked.append((wanted, condition))
        if now.statuses:
            self.send_error(now.statuses.pop(0))
            return
        begin = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and now.ranges else 0
        if condition not in (None, now.etag):
            begin = 0
        if begin and begin >= len(now.data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(now.data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = now.data[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(now.data) - 1}/{len(now.data)}")
        if now.length:
            self.send_header("Content-Length", str(len(body)))
        if now.etag:
            self.send_header("ETag", now.etag)
        self.end_headers()
        body = body[:now.cuts.pop(0)] if now.cuts else body
        now.sent.append(len(body))  # first: who has the last byte may look at once
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    """(**what the server does) -> Server, which ends with the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "WAIT", 0.0)
    with contextlib.ExitStack() as stack:
        def start(**facts):
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            server.daemon_threads = True
            server.now = Server(**facts, url=f"http://127.0.0.1:{server.server_port}/a/f.pth")
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return server.now

        yield start


def only(folder):
    """The one file there, by name and content."""
    (path,) = folder.iterdir()
    return path.name, path.read_bytes()


def test_five_cuts_are_resumed_and_no_byte_is_sent_twice(serve, tmp_path):
    server = serve(cuts=[400_000, 1, 700_000, 300_000, 900_000])
    told = []
    path = fetch.get(server.weights(), tmp_path, tell=lambda *now: told.append(now))
    assert path == tmp_path / "f.pth" and only(tmp_path) == ("f.pth", DATA)
    assert server.asked == [(None, None), *((f"bytes={n}-", '"1"') for n in (
        400_000, 400_001, 1_100_001, 1_400_001, 2_300_001))]
    assert sum(server.sent) == len(DATA)
    assert told[-1] == (len(DATA), len(DATA)) and told == sorted(told)
    assert {total for _, total in told} == {len(DATA)}


def test_the_next_run_goes_on_where_an_interrupted_one_was(serve, tmp_path):
    server = serve(cuts=[1_000_000])

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch.get(server.weights(), tmp_path, tell=interrupt)
    kept = (tmp_path / "f.pth.part").stat().st_size
    assert 0 < kept <= 1_000_000 and not (tmp_path / "f.pth").exists()
    fetch.get(server.weights(), tmp_path)
    assert server.asked[1] == (f"bytes={kept}-", '"1"') and only(tmp_path) == ("f.pth", DATA)


def test_without_hash_and_version_nothing_is_resumed(serve, tmp_path):
    server = serve(cuts=[1_000_000], etag="")
    fetch.get(server.weights(""), tmp_path)
    assert server.asked == [(None, None)] * 2 and only(tmp_path) == ("f.pth", DATA)


def test_a_server_that_ignores_ranges_is_read_from_the_start(serve, tmp_path):
    server = serve(cuts=[1_000_000], ranges=False)
    fetch.get(server.weights(), tmp_path)
    assert server.asked[1][0] == "bytes=1000000-" and server.sent == [1_000_000, len(DATA)]
    assert only(tmp_path) == ("f.pth", DATA)


@pytest.mark.parametrize("heeds", [True, False])
def test_a_file_that_changes_in_between_is_read_from_the_start(heeds, serve, tmp_path):
    """Whether the server heeds If-Range or answers with a part of its new file."""
    server = serve(data=b"old" * 1_000_000, cuts=[1_000_000])

    def change():
        server.data, server.etag = DATA, '"2"'

    server.before += [lambda: None, change]
    if not heeds:
        server.before[1] = lambda: (change(), setattr(server, "etag", Lax('"2"')))
    fetch.get(server.weights(""), tmp_path)
    assert server.asked[1] == ("bytes=1000000-", '"1"')
    assert only(tmp_path) == ("f.pth", DATA)


class Lax(str):
    """An ETag that a server takes for equal to any other."""

    __hash__ = str.__hash__

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False


def test_what_an_earlier_run_left_of_another_file_is_fetched_anew(serve, tmp_path):
    server = serve(etag="")
    (tmp_path / "f.pth.part").write_bytes(b"x" * 1_000_000)
    fetch.get(server.weights(), tmp_path)
    assert [asked for asked, _ in server.asked] == ["bytes=1000000-", None]
    assert only(tmp_path) == ("f.pth", DATA)


@pytest.mark.parametrize("left", [DATA, DATA + b"x"], ids=["whole", "too long"])
def test_a_part_that_reaches_the_end_is_checked(left, serve, tmp_path):
    server = serve()
    (tmp_path / "f.pth.part").write_bytes(left)
    fetch.get(server.weights(), tmp_path)
    assert only(tmp_path) == ("f.pth", DATA)
    assert sum(server.sent) == (0 if left == DATA else len(DATA))


def test_a_length_that_is_not_told_is_the_hash_s_to_check(serve, tmp_path):
    server = serve(length=False)
    fetch.get(server.weights(), tmp_path)
    assert only(tmp_path) == ("f.pth", DATA)


@pytest.mark.parametrize("digits", [8, 64])
def test_a_wrong_hash_names_both_and_leaves_nothing(digits, serve, tmp_path):
    server = serve(data=DATA + b"!")
    with pytest.raises(CheckpointError) as caught:
        fetch.get(server.weights(SHA[:digits]), tmp_path)
    found = hashlib.sha256(DATA + b"!").hexdigest()
    assert found in caught.value.what and SHA[:digits] in caught.value.what
    assert caught.value.where == server.url and not list(tmp_path.iterdir())


def test_where_an_md5_is_published_it_is_checked(serve, tmp_path):
    md5 = hashlib.md5(DATA).hexdigest()
    good = dataclasses.replace(serve().weights(""), md5=md5)
    fetch.get(good, tmp_path)
    assert only(tmp_path) == ("f.pth", DATA)
    (tmp_path / "f.pth").write_bytes(b"mine")
    with pytest.raises(CheckpointError, match=f"its md5 is .*, the published one {md5}"):
        fetch.get(good, tmp_path)
    with pytest.raises(CheckpointError, match=f"its md5 is .*, the published one {md5}"):
        fetch.get(dataclasses.replace(good, file=serve(data=b"other").url), tmp_path / "other")


def test_a_file_at_hand_is_checked_and_not_fetched(serve, tmp_path):
    server = serve()
    (tmp_path / "f.pth").write_bytes(DATA)
    assert fetch.get(server.weights(SHA[:8]), tmp_path).read_bytes() == DATA
    assert not server.asked


def test_another_file_in_its_place_is_told_and_left(serve, tmp_path):
    server = serve()
    (tmp_path / "f.pth").write_bytes(b"mine")
    with pytest.raises(CheckpointError) as caught:
        fetch.get(server.weights(), tmp_path)
    assert hashlib.sha256(b"mine").hexdigest() in caught.value.what and SHA in caught.value.what
    assert caught.value.where == str(tmp_path / "f.pth")
    assert only(tmp_path) == ("f.pth", b"mine") and not server.asked


def test_a_refusal_ends_it_at_once(serve, tmp_path):
    server = serve(statuses=[404] * 9)
    with pytest.raises(EnvironmentFailure) as caught:
        fetch.get(server.weights(), tmp_path)
    assert "404" in caught.value.what and len(server.asked) == 1
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_busy_is_asked_again(serve, tmp_path):
    server = serve(statuses=[503, 429, 500])
    fetch.get(server.weights(), tmp_path)
    assert len(server.asked) == 4 and only(tmp_path) == ("f.pth", DATA)


def test_waits_double_and_patience_ends(serve, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(fetch, "WAIT", 1.0)
    monkeypatch.setattr(fetch.time, "sleep", waits.append)
    server = serve(cuts=[5, 5] + [0] * 20)
    with pytest.raises(EnvironmentFailure, match="10 bytes are kept"):
        fetch.get(server.weights(), tmp_path)
    # A cut after new bytes begins the count anew.
    assert waits == [1, 1, 2, 4, 8, 16] and len(server.asked) == 7


def test_a_server_that_never_gets_further_than_before_is_given_up(serve, tmp_path):
    """It ignores Range and cuts at two places in turn: bytes come, but nothing new."""
    server = serve(cuts=[1000, 500] * 50, ranges=False)
    with pytest.raises(EnvironmentFailure):
        fetch.get(server.weights(), tmp_path)
    assert len(server.asked) == fetch.PATIENCE


def test_without_a_connection_the_address_and_the_place_are_told(tmp_path, free_port,
                                                                 monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "WAIT", 0.0)
    monkeypatch.setenv("IMGCLS_WEIGHTS", str(tmp_path / "new"))
    address = f"http://127.0.0.1:{free_port}/f.pth"
    with pytest.raises(EnvironmentFailure) as caught:
        fetch.get(Server(url=address).weights())
    assert caught.value.code == 6
    assert address in str(caught.value) and str(tmp_path / "new" / "f.pth") in str(caught.value)
    assert not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("address", ["http://example.org/f.pth", "file:///etc/passwd",
                                     "ftp://127.0.0.1/f.pth", "http://127.0.0.1.example.org/f"])
def test_no_address_but_https_and_the_loopback(address, tmp_path):
    with pytest.raises(ConfigError):
        fetch.get(Server(url=address).weights(), tmp_path)


def test_a_redirect_keeps_the_range_and_leads_to_no_open_line(serve, tmp_path, monkeypatch):
    server = serve(cuts=[1_000_000])
    away = {"to": server.url}

    def do_GET(self):
        if self.path == "/moved.pth":
            self.send_response(302)
            self.send_header("Location", away["to"])
            self.end_headers()
        else:
            plain(self)

    plain = Handler.do_GET
    monkeypatch.setattr(Handler, "do_GET", do_GET)
    moved = dataclasses.replace(server.weights(), file=server.url.replace("a/f.pth", "moved.pth"))
    fetch.get(moved, tmp_path)
    assert server.asked[1] == ("bytes=1000000-", '"1"') and only(tmp_path) == ("moved.pth", DATA)
    away["to"] = "http://example.org/f.pth"
    with pytest.raises(ConfigError, match="is not https"):
        fetch.get(moved, tmp_path / "other")


def test_a_folder_that_cannot_be_written_is_told(serve, tmp_path):
    server = serve()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentFailure, match="cannot write"):
        fetch.get(server.weights(), tmp_path / "file")
    assert not server.asked


def test_of_several_that_want_a_file_one_fetches(serve, tmp_path, caplog):
    """Locks hold between open files, be they of two processes or of two threads."""
    server, go_on = serve(), threading.Event()
    server.before = [go_on.wait]
    threads = [threading.Thread(target=fetch.get, args=(server.weights(), tmp_path), daemon=True)
               for _ in range(2)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 20
    while "waiting for it" not in caplog.text and time.monotonic() < end:
        time.sleep(0.01)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert "waiting for it" in caplog.text
    assert server.sent == [len(DATA)] and only(tmp_path) == ("f.pth", DATA)


def test_a_download_of_another_process_that_stands_still_is_not_waited_for_for_ever(
        tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "STANDSTILL", 0.3)
    part = tmp_path / "w.part"
    with part.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(EnvironmentFailure, match="stood still") as error, fetch._alone(part):
            pass
    assert error.value.where == str(part)


def test_names_of_files_are_the_published_ones_and_tell_those_of_the_hub_apart(tmp_path):
    def name(weights):
        return fetch.place(catalogue.find(weights)[2], tmp_path).name

    assert name("resnet50/imagenet1k_v2") == "resnet50-11ad3fa6.pth"
    assert name("convnext_tiny/fb_in1k") == "timm--convnext_tiny.fb_in1k--model.safetensors"
