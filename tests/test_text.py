"""Multi-label texts: films as packaged, FOLDOC and Reuters from files of the right form."""

import gzip

import pytest
import torch

from mtl_utils.datasets import foldoc, movie_genres, reuters
from mtl_utils.datasets.text import encode, words


def test_words_and_encoding():
    assert words("Amélie, 2001: It's-a (Film)") == ["amélie", "2001", "it", "s", "a", "film"]
    rows = encode([["b", "x", "a"], ["a"], []], {"a": 2, "b": 3}, length=2)
    assert rows.tolist() == [[3, 1], [2, 0], [0, 0]]


def test_movie_genres():
    data = movie_genres(n_train=500, n_val=100, n_test=200, length=6, n_words=300)
    assert data.tasks[0] == "Drama" and 10 <= data.n_tasks <= 20
    assert data.train[0].shape == (500, 6) and data.train[0].dtype == torch.int64
    assert 0 <= data.train[0].min() and data.train[0].max() < 300
    labels = torch.stack(data.train[1:], 1)
    assert set(labels.unique().tolist()) == {0.0, 1.0}
    assert bool((labels.sum(1) >= 1).all()) and 1.5 < labels.sum(1).mean() < 2.5
    assert "CC0" in data.source
    again = movie_genres(n_train=500, n_val=100, n_test=200, length=6, n_words=300)
    assert torch.equal(data.test[0], again.test[0])


def test_the_vocabulary_is_made_of_training_titles_only():
    small = movie_genres(n_train=50, n_val=10, n_test=500, n_words=10_000)
    used = set(small.train[0].unique().tolist()) - {0, 1}
    assert set(small.info["vocabulary"].values()) >= used
    assert (small.test[0] == 1).float().mean() > 0.2  # most words of other titles are unknown
    assert not (small.train[0] == 1).any()


def test_people_are_added_to_the_title():
    title = movie_genres(200, 10, 10, text="title", length=12)
    people = movie_genres(200, 10, 10, text="title+people", length=12)
    assert (people.train[0] > 0).sum() > (title.train[0] > 0).sum()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"text: expected one of title, title\+people, got 'plot'"):
        movie_genres(text="plot")
    with pytest.raises(ValueError, match=r"n_train \+ n_val \+ n_test: there are \d+, got"):
        movie_genres(n_train=100_000)
    with pytest.raises(ValueError, match="n_val: expected an integer"):
        movie_genres(n_val=0)


def write_foldoc(path):
    entries = ["\n00-database-info\nThis file is a test\n"]
    for k in range(30):
        label = "language, tool" if k % 3 == 0 else "language"
        entries.append(f"head{k}\n\n   <{label}> word{k} of an\n   entry\n\n   More text.\n")
    entries.append("unlabelled\n\n   nothing here\n")
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(entries))


def test_foldoc(tmp_path, monkeypatch):
    path = tmp_path / "foldoc.dict.dz"
    write_foldoc(path)
    data = foldoc(20, 5, 5, least=5, length=4, path=path)
    assert data.tasks == ("language", "tool")
    labels = torch.cat([torch.stack(s[1:], 1) for s in (data.train, data.val, data.test)])
    assert labels.sum(0).tolist() == [30, 10]
    assert data.train[0].shape == (20, 4)
    assert foldoc(20, 5, 5, least=10, path=path).tasks == ("language", "tool")  # 10 have it
    assert foldoc(20, 5, 5, least=11, path=path).tasks == ("language",)
    monkeypatch.setenv("MTL_DATA_ROOT", str(tmp_path))
    assert foldoc(20, 5, 5, least=5).n_tasks == 2


def test_reuters(tmp_path):
    header = "@relation x\n@attribute Text string\n@attribute class-att {0,1}\n@data\n"
    for split, count in (("train", 12), ("test", 4)):
        for label, positive in (("Corn", 4), ("Grain", 2)):
            lines = [f"'news {k}\\nit\\'s corn',{int(k % positive == 0)}" for k in range(count)]
            path = tmp_path / f"Reuters{label}-{split}.arff"
            path.write_text(header + "\n".join(lines), encoding="utf-8")
    data = reuters(length=5, n_val=2, path=tmp_path)
    assert data.tasks == ("corn", "grain")
    assert [len(s[0]) for s in (data.train, data.val, data.test)] == [10, 2, 4]
    assert data.train[1].tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 1, 0]
    assert data.test[2].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(("load", "how"), [(foldoc, "dict-foldoc"), (reuters, "weka")])
def test_what_is_not_installed_says_how_to_get_it(load, how, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"not found at .*apt install {how}"):
        load(path=tmp_path / "nowhere")
