"""Names from files in what a person reads: a terminal must show them, and obey none of them."""

import json
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgcls_jax.__main__ import main
from imgcls_jax.cli import predict
from imgcls_jax.errors import DataError, printable
from imgcls_jax.training.log import Log

CLEAR, TITLE, TURNED, CSI = "\x1b[2J", "\x1b]0;owned\x07", "\u202egnp", "\x9b2J"
NASTY = f"a{CLEAR}{TITLE}{TURNED}{CSI}\x7f\u2028\r"


def obeyed(text: str) -> set[str]:
    """What a terminal would obey, or not show."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}


@pytest.mark.parametrize("name, shown", [
    (CLEAR, r"\x1b[2J"), (TITLE, r"\x1b]0;owned\x07"), (TURNED, r"\u202egnp"), (CSI, r"\x9b2J"),
    ("\udcff.jpg", r"\udcff.jpg"), ("two\nlines", r"two\nlines"), ("\U000e0041", r"\U000e0041"),
    ("é花 \u3000ü\xa0", "é花 \u3000ü\xa0"), ("क्\u200dष", "क्\u200dष"),
    ("👩\u200d🔬", "👩\u200d🔬")])
def test_a_name_is_shown_and_not_obeyed(name, shown):
    assert printable(name) == shown


def test_an_error_keeps_its_own_lines_and_no_other():
    text = str(DataError(f"one\n  two {CLEAR}", where=f"{NASTY}\nfix:   run this", fix="mend it"))
    assert len(text.splitlines()) == 4 and text.splitlines()[2].startswith("where: a\\x1b")
    assert not obeyed(text)


@pytest.mark.parametrize("form", ["table", "csv", "json", "jsonl"])
@pytest.mark.parametrize("ok", [True, False])
def test_predict(capsys, form, ok):
    hit = {"id": 0, "label": NASTY, "prob": 0.5}
    row = {"file": f"{NASTY}.jpg", "ok": ok, "topk": [hit] * ok, "error": None if ok else NASTY}
    assert list(predict.show([row], form, 1)) == [row]
    out = capsys.readouterr().out
    assert not obeyed(out.replace("\r\n", "\n")) and r"[2J" in out
    if form.startswith("json"):
        assert json.loads(out) in (row, [row])


@pytest.fixture
def photos(tmp_path) -> Path:
    for name in (NASTY, "b"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for i in range(3):
            Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "photos" / NASTY / f"{NASTY}.jpg").write_bytes(b"no image")
    return tmp_path / "photos"


def test_data_check(capsys, photos):
    assert main(["data", "check", str(photos)]) == 3
    out, err = capsys.readouterr()
    assert r"\x1b[2J" in out and not obeyed(out + err)


def test_a_manifest_that_names_them(capsys, tmp_path):
    rows = [{"path": "x.png", "label": f"{NASTY}{i}", "split": split}
            for i, split in enumerate(("train", "val"))]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["data", "check", str(tmp_path / "m.jsonl")]) == 3
    out, err = capsys.readouterr()
    assert "x1b" in out and not obeyed(out + err)


def test_a_warning(capsys, monkeypatch):
    monkeypatch.setattr("imgcls_jax.cli._command._dispatch",
                        lambda *words: warnings.warn(NASTY, stacklevel=1))
    main(["check"])
    assert not obeyed(capsys.readouterr().err)


def test_the_log_of_a_run(capsys, tmp_path):
    log = Log(tmp_path, step=0, total=1)
    log.line(f"step 1: recall of {NASTY} 0.5")
    log.close()
    said = capsys.readouterr().out + (tmp_path / "train.log").read_text()
    assert said.count(r"\x1b[2J") == 2 and not obeyed(said)
