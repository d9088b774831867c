"""Radiographs, traffic signs, products and faces, from files in the layout they come in."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from imgcls_jax import datasets
from imgcls_jax.datasets import DATASETS, _files
from imgcls_jax.errors import DataError
from tests.datasets import made


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("seed", range(5))
def test_a_group_stays_together_and_all_groups_are_mixed(seed):
    groups = np.random.default_rng(seed).integers(0, 40, 300)
    order = _files.grouped(groups)
    assert sorted(order) == list(range(300))
    changes = np.flatnonzero(np.diff(groups[order])) + 1
    assert len(changes) + 1 == len(np.unique(groups))  # each group is one run
    for run in np.split(order, changes):
        assert list(run) == sorted(run)
    firsts = groups[order][np.r_[0, changes]]
    assert list(firsts) != sorted(firsts)


def test_no_group_is_no_order():
    assert len(_files.grouped(np.zeros(0, np.int64))) == 0


# ---- ChestX-ray14 -------------------------------------------------------------------------------

PATIENTS = {  # image -> (findings, patient)
    "00000001_000.png": ("Cardiomegaly", 1), "00000001_001.png": ("Cardiomegaly|Emphysema", 1),
    "00000002_000.png": ("No Finding", 2), "00000003_000.png": ("Hernia", 3),
    "00000003_001.png": ("Hernia|Atelectasis", 3), "00000004_000.png": ("Mass", 4)}
IN_TEST = {"00000004_000.png", "00000002_000.png"}


def png(number: int) -> bytes:
    file = io.BytesIO()
    level = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(level).save(file, "PNG")
    return file.getvalue()


def radiographs(folder: str) -> dict[str, bytes]:
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age"
    rows = [f"{name},{found},0,{patient},57" for name, (found, patient) in PATIENTS.items()]
    train = [name for name in PATIENTS if name not in IN_TEST]
    return {"Data_Entry_2017.csv": "\n".join([header, *rows]).encode(),
            "train_val_list.txt": "\n".join(train).encode(),
            "test_list.txt": "\n".join(sorted(IN_TEST)).encode(),
            **{folder.format(i % 3 + 1) + name: png(i) for i, name in enumerate(PATIENTS)}}


@pytest.mark.daily(1)
@pytest.mark.parametrize("folder", ["images_{:03d}/images/", "images/"])
def test_findings_are_read_and_patients_lie_together(folder, tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=4, test=2)
    made.write(tmp_path, radiographs(folder))
    source = DATASETS.get("chest_xray14")(data_dir=str(tmp_path), channels=1)
    order = list(source.classes)
    assert len(order) == 14 and source.kind == "multilabel"
    for split in ("train", "test"):
        read, paths = made.batch(source, split), made.paths(source, split)
        for path, image, label in zip(paths, read["image"], read["label"], strict=True):
            name = path.rsplit("/", 1)[1]
            expected = Image.open(io.BytesIO(png(list(PATIENTS).index(name))))
            np.testing.assert_array_equal(image[..., 0], np.asarray(expected))
            found = set(PATIENTS[name][0].split("|")) - {"No Finding"}
            assert {order[i] for i in np.flatnonzero(label)} == found
        patients = [PATIENTS[path.rsplit("/", 1)[1]][1] for path in paths]
        assert split == "test" or patients[0] == patients[1] != patients[2] == patients[3]


def test_an_unknown_finding_and_a_missing_image_are_named(tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=4, test=2)
    files = radiographs("images/")
    files["Data_Entry_2017.csv"] = files["Data_Entry_2017.csv"].replace(b"Hernia", b"Hernai")
    made.write(tmp_path, files)
    source = DATASETS.get("chest_xray14")(data_dir=str(tmp_path))
    with pytest.raises(DataError, match="00000003_000") as error:
        source.open("train")
    assert error.value.where.endswith("Data_Entry_2017.csv")
    (tmp_path / "images" / "00000004_000.png").unlink()
    with pytest.raises(DataError, match="1 of 2 images are missing, the first 00000004_000"):
        source.open("test")


# ---- traffic signs ------------------------------------------------------------------------------


def ppm(number: int) -> bytes:
    image = np.random.default_rng(number).integers(0, 256, (7 + number, 9, 3), np.uint8)
    return b"P6\n9 %d\n255\n" % (7 + number) + image.tobytes()


def signs() -> tuple[dict, dict, bytes]:
    train = {f"{label:05d}/{track:05d}_{frame:05d}.ppm": ppm(label % 5 + 2 * track + frame)
             for label in (0, 14, 42) for track in range(2) for frame in range(3)}
    train |= {"00014/GT-00014.csv": b"Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"}
    test = {f"{number:05d}.ppm": ppm(number) for number in range(3)}
    truth = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\r\n" + "".join(
        f"{number:05d}.ppm;9;9;1;1;8;8;{label}\r\n" for number, label in enumerate((42, 0, 14)))
    return train, test, truth.encode()


@pytest.mark.parametrize("packed", [False, True])
def test_signs_are_read_and_tracks_lie_together(packed, tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=18, test=3)
    train, test, truth = signs()
    train = {f"GTSRB/Final_Training/Images/{name}": data for name, data in train.items()}
    test = {f"GTSRB/Final_Test/Images/{name}": data for name, data in test.items()}
    made.write(tmp_path, {
        "GTSRB_Final_Training_Images.zip": zipped(train),
        "GTSRB_Final_Test_Images.zip": zipped(test),
        "GTSRB_Final_Test_GT.zip": zipped({"GT-final_test.csv": truth})} if packed else {
        **train, **test, "GTSRB/GT-final_test.csv": truth})
    source = DATASETS.get("gtsrb")(data_dir=str(tmp_path))
    assert source.classes[14] == "Stop" and len(source.classes) == 43
    opened = datasets.split(source, "train")
    labels = opened.labels()
    tracks = [opened.where(i).rsplit("/", 1)[1][:5] for i in range(18)]
    runs = [(label, track) for label, track in zip(labels, tracks, strict=True)]
    assert sorted(set(runs)) == [(label, f"{track:05d}") for label in (0, 14, 42)
                                 for track in range(2)]
    assert all(len(set(runs[i:i + 3])) == 1 for i in range(0, 18, 3))
    opened = datasets.split(source, "test")
    by_name = {opened.where(i).rsplit("/", 1)[1]: (i, int(opened.labels()[i])) for i in range(3)}
    assert {name: label for name, (_, label) in by_name.items()} == {
        "00000.ppm": 42, "00001.ppm": 0, "00002.ppm": 14}
    for name, (i, _) in by_name.items():
        assert opened.read(i)["image"].numpy() == ppm(int(name[:5]))


def test_the_table_without_classes_is_refused(tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=18, test=3)
    _, test, _ = signs()
    made.write(tmp_path, {f"Final_Test/Images/{name}": data for name, data in test.items()} | {
        "GT-final_test.csv": b"Filename;Width;Height\r\n00000.ppm;9;9\r\n"})
    with pytest.raises(DataError, match="ClassId") as error:
        DATASETS.get("gtsrb")(data_dir=str(tmp_path)).open("test")
    assert "GTSRB_Final_Test_GT.zip" in error.value.fix


# ---- faces --------------------------------------------------------------------------------------

PEOPLE = {"Ada_L": 3, "Bo": 1, "Cem_K": 2, "Di": 2}  # the last two are of the test split


def faces() -> dict[str, bytes]:
    images = {f"lfw/{name}/{name}_{i:04d}.jpg": made.jpeg(100 * k + i)
              for k, (name, count) in enumerate(PEOPLE.items()) for i in range(1, count + 1)}
    return {**images, "peopleDevTrain.txt": b"2\nBo\t1\nAda_L\t3\n",
            "peopleDevTest.txt": b"2\nCem_K\t2\nDi\t2\n",
            "pairs.txt": b"1\t2\nAda_L\t1\t3\nCem_K\t1\t2\nAda_L\t2\tBo\t1\nDi\t1\tBo\t1\n",
            "pairsDevTest.txt": b"1\nDi\t1\t2\nCem_K\t2\tDi\t1\n"}


@pytest.mark.daily(1)
@pytest.mark.parametrize("packed", [False, True])
def test_faces_are_split_by_person_and_pairs_are_neighbours(packed, tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=4, test=4, pairs=8, pairs_dev_test=4)
    files = faces()
    if packed:
        images = {name: data for name, data in files.items() if name.startswith("lfw/")}
        files = {name: data for name, data in files.items() if name not in images}
        files["lfw.tgz"] = made.tar(images, "w:gz")
    made.write(tmp_path, files)
    source = DATASETS.get("lfw")(data_dir=str(tmp_path))
    assert source.classes == ("Ada_L", "Bo", "Cem_K", "Di")
    assert sorted(made.batch(source, "train")["label"]) == [0, 0, 0, 1]
    assert sorted(made.batch(source, "test")["label"]) == [2, 2, 3, 3]
    read = made.batch(source, "pairs")
    assert read["label"].tolist() == [0, 0, 2, 2, 0, 1, 3, 1]
    names = [path.rsplit("/", 1)[1] for path in made.paths(source, "pairs")]
    assert names[:2] == ["Ada_L_0001.jpg", "Ada_L_0003.jpg"] and names[6] == "Di_0001.jpg"
    assert made.batch(source, "pairs_dev_test")["label"].tolist() == [3, 3, 2, 3]


def test_a_damaged_list_of_faces_is_named_with_its_line(tmp_path, monkeypatch):
    made.sizes(monkeypatch, train=4, test=4, pairs=8, pairs_dev_test=4)
    made.write(tmp_path, {**faces(), "pairs.txt": b"1\t1\nAda_L\t1\t3\nCem_K 1 2\n"})
    with pytest.raises(DataError) as error:
        DATASETS.get("lfw")(data_dir=str(tmp_path)).open("pairs")
    assert error.value.where.endswith("pairs.txt, line 3")


# ---- products -----------------------------------------------------------------------------------


def products(count: int = 60) -> dict[str, bytes]:
    rows = ["id,gender,baseColour,season,productDisplayName"]
    rows += [f"{i},{'Men' if i % 2 else 'Women'},{'Red' if i % 3 else 'Blue'},"
             f"{'Fall' if i % 20 else ''},A shirt, number {i}" for i in range(count)]
    return {"styles.csv": "\n".join(rows).encode(),
            **{f"images/{i}.jpg": made.jpeg(i) for i in range(count)}}


def test_tags_of_products_are_read(tmp_path):
    files = products()
    del files["images/7.jpg"]
    made.write(tmp_path, files)
    make = DATASETS.get("fashion_products")
    with pytest.warns(UserWarning, match="1 of 60 products have no photograph"):
        source = make(data_dir=str(tmp_path), columns=("gender", "baseColour", "season"),
                      val_fraction=0.25)
    assert source.classes == ("baseColour: Blue", "baseColour: Red", "gender: Men",
                              "gender: Women", "season: Fall")
    assert sum(source.sizes.values()) == 59 and 5 < source.sizes["val"] < 25
    seen = set()
    for split in ("train", "val"):
        read, paths = made.batch(source, split), made.paths(source, split)
        for path, label in zip(paths, read["label"], strict=True):
            i = int(path.rsplit("/", 1)[1][:-4])
            assert label.tolist() == [i % 3 == 0, i % 3 > 0, i % 2, i % 2 == 0, i % 20 > 0]
            seen.add(i)
    assert seen == set(range(60)) - {7}


def test_tags_that_are_rare_or_not_there(tmp_path):
    made.write(tmp_path, products())
    make = DATASETS.get("fashion_products")
    with pytest.raises(DataError, match="'color'"):
        make(data_dir=str(tmp_path), columns=("color",))
    with pytest.raises(DataError, match="no tag has at least 100 products"):
        make(data_dir=str(tmp_path), columns=("gender",), at_least=100)
    source = make(data_dir=str(tmp_path), columns=("gender", "season"), at_least=31)
    assert source.classes == ("season: Fall",)  # 30 are of either gender
