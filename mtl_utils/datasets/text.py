"""Multi-label text: film titles and their genres; FOLDOC and Reuters where they are installed."""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch

from mtl_utils.datasets.base import MultiTaskData, as_float, check_count

PAD, UNKNOWN = 0, 1
FOLDOC_FILE = "/usr/share/dictd/foldoc.dict.dz"
REUTERS_FOLDER = "/usr/share/doc/weka/examples"
TEXTS = ("title", "title+people")


def words(text: str) -> list[str]:
    """Lower-case words of a text; letters of any script and digits."""
    return re.findall(r"[^\W_]+", text.lower())


def encode(texts: Sequence[list[str]], vocabulary: dict[str, int], length: int) -> torch.Tensor:
    """Word numbers, [N, length], int64: cut or padded with 0; 1 for words not in the vocabulary."""
    rows = np.zeros((len(texts), length), np.int64)
    for row, text in zip(rows, texts, strict=True):
        numbers = [vocabulary.get(word, UNKNOWN) for word in text[:length]]
        row[: len(numbers)] = numbers
    return torch.from_numpy(rows)


def multi_label(
    name: str,
    texts: Sequence[str],
    labels: Sequence[Sequence[str]],
    sizes: tuple[int, int, int],
    *,
    least: int,
    length: int,
    n_words: int,
    seed: int,
    source: str,
) -> MultiTaskData:
    """Documents with any number of labels as K binary tasks, one a label.

    The vocabulary is made of the training texts only.

    Args:
        name: of the data set.
        texts: one a document.
        labels: of each document.
        sizes: rows in train, val and test.
        least: labels with fewer documents are left out, and documents without a label with them.
        length: words of a text that are kept.
        n_words: size of the vocabulary, the most frequent words; padding and unknown included.
        seed: of the split.
        source: where the data come from.

    Returns:
        inputs [N, length], int64; K targets [N], 0 or 1; `info["vocabulary"]`: word -> number.
    """
    for split, size in zip(("n_train", "n_val", "n_test"), sizes, strict=True):
        check_count(split, size)
    counts = Counter(label for found in labels for label in found)
    tasks = tuple(label for label, count in counts.most_common() if count >= least)
    kept = [i for i, found in enumerate(labels) if set(found) & set(tasks)]
    if sum(sizes) > len(kept):
        raise ValueError(f"n_train + n_val + n_test: there are {len(kept)}, got {sum(sizes)}")
    order = np.random.default_rng(seed).permutation(kept)[: sum(sizes)]
    split_words = [words(texts[i]) for i in order]
    matrix = np.array([[task in labels[i] for task in tasks] for i in order], float)
    frequent = Counter(word for text in split_words[: sizes[0]] for word in text)
    vocabulary = {word: k + 2 for k, (word, _) in enumerate(frequent.most_common(n_words - 2))}
    inputs = encode(split_words, vocabulary, length)

    def part(first: int, count: int) -> tuple[torch.Tensor, ...]:
        rows = slice(first, first + count)
        return (inputs[rows], *(as_float(matrix[rows, k]) for k in range(len(tasks))))

    n_train, n_val, n_test = sizes
    return MultiTaskData(
        name,
        tasks,
        train=part(0, n_train),
        val=part(n_train, n_val),
        test=part(n_train + n_val, n_test),
        source=source,
        info={"vocabulary": vocabulary},
    )


@cache
def _films() -> tuple[list[str], list[str], list[list[str]]]:
    """Titles, people and genres of the films that have a genre."""
    spec = importlib.util.find_spec("bokeh_sampledata")  # found, not imported
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "movie_genres: the films come with bokeh_sampledata: "
            'pip install "mtl-loss-weighting[notebooks]"'
        )
    path = Path(spec.origin).parent / "_data" / "movies.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        query = 'SELECT Title, Director, "Cast", Genre FROM omdb ORDER BY ID'
        rows = [row for row in database.execute(query) if row[3]]
    titles = [row[0] for row in rows]
    people = [f"{row[1] or ''} {row[2] or ''}" for row in rows]
    return titles, people, [row[3].split(", ") for row in rows]


def movie_genres(
    n_train: int = 4_000,
    n_val: int = 1_000,
    n_test: int = 2_000,
    text: str = "title",
    least: int = 800,
    length: int = 10,
    n_words: int = 4_000,
    seed: int = 0,
) -> MultiTaskData:
    """Genres of a film from its title: a multi-label task, about two genres a film.

    A title alone says little, so that the ceiling is low; "title+people" adds director and cast.

    Args:
        n_train, n_val, n_test: films in each split.
        text: "title" or "title+people".
        least: genres with fewer films are left out.
        length: words that are kept of a text.
        n_words: size of the vocabulary.
        seed: of the split.

    Returns:
        inputs [N, length], int64 word numbers; a target [N] of 0 and 1 for each genre.

    Source: 17,029 films of Wikidata (CC0), packaged by bokeh_sampledata.
    """
    if text not in TEXTS:
        raise ValueError(f"text: expected one of {', '.join(TEXTS)}, got {text!r}")
    titles, people, genres = _films()
    texts = titles
    if text == "title+people":
        texts = [f"{title} {names}" for title, names in zip(titles, people, strict=True)]
    return multi_label(
        "movie genres",
        texts,
        genres,
        (n_train, n_val, n_test),
        least=least,
        length=length,
        n_words=n_words,
        seed=seed,
        source="films of Wikidata (CC0), packaged by bokeh_sampledata",
    )


def foldoc(
    n_train: int = 5_000,
    n_val: int = 800,
    n_test: int = 1_500,
    least: int = 50,
    length: int = 48,
    n_words: int = 8_000,
    seed: int = 0,
    path: str | Path | None = None,
) -> MultiTaskData:
    """Subject labels of entries in the Free On-line Dictionary of Computing, 1.2 an entry.

    Args:
        n_train, n_val, n_test, least, length, n_words, seed: as in `movie_genres`.
        path: the dictionary file; default $MTL_DATA_ROOT/foldoc.dict.dz, then where Debian's
            package dict-foldoc puts it.

    Raises:
        FileNotFoundError: it is not installed; the message says how to get it.

    Source: FOLDOC (GFDL).
    """
    file = _find("foldoc", "foldoc.dict.dz", FOLDOC_FILE, path, "apt install dict-foldoc")
    with gzip.open(file, "rt", encoding="utf-8", errors="replace") as lines:
        text = lines.read()
    texts, labels = [], []
    # After its head word, an entry with labels reads "   <programming, tool> ...", paragraph by
    # paragraph; the next entry's head word stands at the margin.
    for entry in re.split(r"\n\n   (?=<)", text)[1:]:
        match = re.match(r"<([^<>]+)>(.*)", entry, re.DOTALL)
        if match is None:
            continue
        paragraphs = re.split(r"\n\n(?=\S)", match[2])[0]
        labels.append([label.strip() for label in match[1].replace("\n", " ").split(",")])
        texts.append(paragraphs)
    return multi_label(
        "FOLDOC",
        texts,
        labels,
        (n_train, n_val, n_test),
        least=least,
        length=length,
        n_words=n_words,
        seed=seed,
        source="Free On-line Dictionary of Computing (GFDL)",
    )


def reuters(
    length: int = 100, n_words: int = 8_000, n_val: int = 300, path: str | Path | None = None
) -> MultiTaskData:
    """News of Reuters-21578 with two rare labels, corn and grain, in the split of Weka's files.

    Args:
        length, n_words: as in `movie_genres`.
        n_val: documents taken from the end of the training file.
        path: the folder with ReutersCorn-train.arff and its fellows; default $MTL_DATA_ROOT, then
            where Debian's package weka puts them.

    Raises:
        FileNotFoundError: they are not installed; the message says how to get them.

    Source: Reuters-21578, as shipped with Weka (GPL-2).
    """
    first = _find(
        "reuters", "ReutersCorn-train.arff", f"{REUTERS_FOLDER}/ReutersCorn-train.arff", path,
        "apt install weka",
    )  # fmt: skip
    parts = {}
    for split in ("train", "test"):
        texts, corn = _arff(first.with_name(f"ReutersCorn-{split}.arff"))
        same_texts, grain = _arff(first.with_name(f"ReutersGrain-{split}.arff"))
        if texts != same_texts:
            raise ValueError(f"reuters: the corn and grain files of {split} hold other documents")
        parts[split] = ([words(text) for text in texts], corn, grain)
    n_train = len(parts["train"][0]) - n_val
    frequent = Counter(word for text in parts["train"][0][:n_train] for word in text)
    vocabulary = {word: k + 2 for k, (word, _) in enumerate(frequent.most_common(n_words - 2))}

    def tensors(split: str, rows: slice) -> tuple[torch.Tensor, ...]:
        texts, *targets = parts[split]
        return (encode(texts[rows], vocabulary, length), *(as_float(t[rows]) for t in targets))

    return MultiTaskData(
        "Reuters",
        ("corn", "grain"),
        train=tensors("train", slice(0, n_train)),
        val=tensors("train", slice(n_train, None)),
        test=tensors("test", slice(None)),
        source="Reuters-21578, shipped with Weka",
        info={"vocabulary": vocabulary},
    )


def _find(data: str, file: str, default: str, path: str | Path | None, how: str) -> Path:
    """The file of a data set that is not a Python package, or an error that says how to get it."""
    candidates = [Path(default)]
    if "MTL_DATA_ROOT" in os.environ:
        candidates.insert(0, Path(os.environ["MTL_DATA_ROOT"]) / file)
    if path is not None:
        given = Path(path)
        candidates = [given / file if given.is_dir() else given]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    places = " or ".join(map(str, candidates))
    raise FileNotFoundError(f"{data}: not found at {places}; on Debian: {how}")


def _arff(path: Path) -> tuple[list[str], list[float]]:
    """Texts and 0/1 classes of one of Weka's Reuters files: lines of 'text',class."""
    texts, classes = [], []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.match(r"'(.*)',\s*([01])\s*$", line)
        if match:
            texts.append(match[1].replace("\\n", " ").replace("\\'", "'"))
            classes.append(float(match[2]))
    return texts, classes
