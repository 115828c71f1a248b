"""Text becomes the published streams of tokens; whatever is wrong with it is said in one line."""

import os
from pathlib import Path

import numpy as np
import pytest
from dataset_files import TEXTS, text_files

from nas_cluster.core.errors import DataError
from nas_cluster.datasets import TextArrays, resident
from nas_cluster.datasets.penn_treebank import PennTreebank
from nas_cluster.datasets.python_docs import PythonDocs
from nas_cluster.datasets.text_files import TextFiles

PTB = os.environ.get("NAS_CLUSTER_PTB")
needs_ptb = pytest.mark.skipif(not PTB, reason="NAS_CLUSTER_PTB names no folder of ptb.{train,valid,test}.txt")


def tokens(data, part):
    return [data.vocabulary[i] for i in getattr(data, part)]


def said(dataset):
    with pytest.raises(DataError) as caught:
        dataset.load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_words_and_line_ends(example):
    for kind in ("text_files", "penn_treebank"):
        data = example(kind).load()
        assert tokens(data, "train") == ["the", "cat", "sat", "<eos>", "on", "the", "mat", "<eos>"]
        assert tokens(data, "test") == ["on", "the", "mat", "<eos>"]
        assert list(data.vocabulary) == ["the", "<eos>", "cat", "sat", "on", "mat"]  # by frequency, then as they occur


def test_characters_are_all_of_them(tmp_path):
    data = TextFiles(level="character", **text_files(tmp_path, validation="  a\r\n\r\nt", test="\tt")).load()
    assert tokens(data, "train") == [*"the cat sat", "<eos>", *"on the mat", "<eos>"]
    assert tokens(data, "validation") == [" ", " ", "a", "<eos>", "<eos>", "t", "<eos>"]
    assert tokens(data, "test") == ["<unk>", "t", "<eos>"]


def test_the_spaces_around_penn_treebanks_lines_are_no_characters(example):
    dataset = example("penn_treebank").model_copy(update={"level": "character"})
    assert tokens(dataset.load(), "validation") == [*"the cat", "<eos>"]


def test_words_that_the_training_text_lacks_become_unk(tmp_path):
    data = TextFiles(**text_files(tmp_path, test="the dog sat on the dog\n")).load()
    assert tokens(data, "test") == ["the", "<unk>", "sat", "on", "the", "<unk>", "<eos>"]
    assert (len(data.vocabulary), data.vocabulary[-1]) == (7, "<unk>")
    known = TextFiles(**text_files(tmp_path, train="the <unk> <unk> sat on\n", test="the dog\n")).load()
    assert list(known.vocabulary) == ["<unk>", "the", "sat", "on", "<eos>"]
    assert tokens(known, "test") == ["the", "<unk>", "<eos>"]


@pytest.mark.parametrize(
    ("train", "most", "kept"),
    [
        ("a a a b b c", 3, "a"),
        ("a a a b b c", 4, "a b"),
        ("a a a b b c", 5, "a b c"),  # all of them: no <unk> is needed
        ("<unk> <unk> a a a b", 3, "a"),
        ("<unk> <unk> a a a b", 4, "a b"),
    ],
)
def test_the_largest_vocabulary_keeps_the_most_frequent_words(tmp_path, train, most, kept):
    data = TextFiles(max_vocabulary=most, **text_files(tmp_path, train=train, validation="a", test="a")).load()
    expected = [word if word in kept.split() else "<unk>" for word in train.split()]
    assert tokens(data, "train") == [*expected, "<eos>"]
    assert set(data.vocabulary) == {*expected, "<eos>"}
    assert len(data.vocabulary) <= most


def test_a_limit_shortens_the_training_text_and_nothing_else(example):
    whole = example("text_files")
    part, data = whole.model_copy(update={"limit": 3}).load(), whole.load()
    assert tokens(part, "train") == ["the", "cat", "sat"]
    assert list(part.vocabulary) == list(data.vocabulary)
    assert np.array_equal(part.validation, data.validation)
    assert np.array_equal(whole.model_copy(update={"limit": 10**9}).load().train, data.train)


def test_the_cache_gives_back_the_vocabulary(example, cache):
    dataset = example("text_files")
    first, second = resident(dataset), resident(dataset)
    assert isinstance(second, TextArrays)
    assert isinstance(second.train, np.memmap)
    assert list(first.vocabulary) == list(second.vocabulary) == list(dataset.load().vocabulary)
    other = dataset.model_copy(update={"level": "character"})
    assert len(resident(other).vocabulary) != len(second.vocabulary)
    Path(dataset.train).write_text("another text than before\n")
    assert "another" in resident(dataset).vocabulary


def test_relative_paths_start_at_the_current_folder(example, monkeypatch):
    dataset = example("text_files")
    monkeypatch.chdir(Path(dataset.train).parent)
    relative = TextFiles(**{name: f"{name}.txt" for name in TEXTS})
    assert relative.identity() == dataset.identity()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (b"", "train.txt: is empty"),
        (b" \n\n ", "train.txt: is empty"),
        (b"word word\nword\n", "train.txt: the only word is 'word'; a language model needs two or more"),
        (b"<unk> <unk>\n", "train.txt: there is no word but <unk>"),
        (b"good\xff\n", "train.txt: is not UTF-8 text (byte 4: invalid start byte); convert it first"),
    ],
)
def test_texts_that_cannot_be_used(tmp_path, train, message):
    assert message in said(TextFiles(**text_files(tmp_path, train=train)))


def test_a_held_out_text_must_not_be_empty_either(tmp_path):
    assert "test.txt: is empty" in said(TextFiles(**text_files(tmp_path, test="")))


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("train must be int32 (N), two tokens or more, is int64 (3,)", {"train": np.arange(3)}),
        ("test must be int32 (N), two tokens or more, is int32 (1,)", {"test": np.zeros(1, np.int32)}),
        ("validation has token 3; the vocabulary has 0 to 2", {"validation": np.arange(4, dtype=np.int32)}),
        ("train has token -1", {"train": np.arange(-1, 2, dtype=np.int32)}),
        ("the vocabulary must be two different tokens or more, is 1 of them", {"vocabulary": ["a"]}),
        ("the vocabulary must be two different tokens or more", {"vocabulary": ["a", "a"]}),
    ],
)
def test_arrays_that_are_no_text(message, changes):
    ids = np.arange(3, dtype=np.int32)
    whole = {"train": ids, "validation": ids, "test": ids, "vocabulary": ["a", "b", "c"]}
    TextArrays(**whole).check("it")
    with pytest.raises(DataError) as caught:
        TextArrays(**whole | changes).check("it")
    assert str(caught.value).startswith(f"it: {message}")


def test_files_that_are_not_there(example, tmp_path):
    text = example("text_files")
    typo = text.model_copy(update={"train": text.train.replace("train", "trian")})
    assert said(typo) == f"dataset.train: no file {typo.train}; did you mean 'train.txt'?"
    folder = text.model_copy(update={"validation": str(tmp_path)})
    assert said(folder) == f"dataset.validation: {tmp_path} is a folder, a file is needed"
    with pytest.raises(DataError, match=r"dataset\.train: no file"):
        resident(typo)
    ptb = PennTreebank(root=str(tmp_path / "file"))
    assert said(ptb) == f"dataset.root: no folder {tmp_path / 'file'}; did you mean 'files'?"
    ptb = PennTreebank(root=str(Path(text.train).parent))
    assert said(ptb).startswith(f"dataset.root: no file {ptb.folder / 'ptb.train.txt'}")
    assert "is a file, a folder is needed" in said(PennTreebank(root=text.train))


def test_pythons_own_text_is_split_by_topic():
    from pydoc_data.topics import topics

    word = PythonDocs(level="word").load()
    parts = [set(tokens(word, part)) for part in ("train", "validation", "test")]
    total = sum(len(getattr(word, part)) for part in ("train", "validation", "test"))
    lines = sum(text.strip("\n").count("\n") + 1 for text in topics.values())
    assert total == sum(len(text.split()) for text in topics.values()) + lines
    assert all(len(words) > 100 for words in parts)
    assert 40 < len(PythonDocs().load().vocabulary) < 300


@needs_ptb
def test_penn_treebank_has_its_published_sizes():
    """Mikolov et al. 2010 (words) and 2012 (characters)."""
    words, characters = (PennTreebank(root=PTB, level=level).load() for level in ("word", "character"))
    assert (len(words.train), len(words.validation), len(words.test)) == (929_589, 73_760, 82_430)
    assert len(words.vocabulary) == 10_000
    assert (len(characters.train), len(characters.validation), len(characters.test)) == (5_017_482, 393_042, 442_423)
    assert len(characters.vocabulary) == 50
    assert tokens(words, "train")[:3] == ["aer", "banknote", "berlitz"]
