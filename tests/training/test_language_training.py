"""Language models are trained as the textbook loop trains them, faster; perplexities have their closed forms."""

import copy
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from text_space import lstm_child
from torch import nn
from torch.nn import functional as F

from nas_cluster.core.errors import DataError, Diverged
from nas_cluster.datasets import TextArrays
from nas_cluster.training import softmax_loss as module
from nas_cluster.training.language_model import _Training, perplexity, train_language_model
from nas_cluster.training.language_settings import LanguageSettings
from nas_cluster.training.schedules import Exponential
from nas_cluster.training.softmax_loss import fused_softmax_loss, softmax_loss
from nas_cluster.training.text import NO_TARGET, TextStore


def text_of(n=1000, vocabulary=11, held_out=200):
    ids = np.random.default_rng(0).integers(0, vocabulary, n + 2 * held_out).astype(np.int32)
    words = [f"w{i}" for i in range(vocabulary)]
    return TextArrays(ids[:n], ids[n : n + held_out], ids[n + held_out :], words).check("text")


def store_of(settings, **text):
    data = text_of(**text)
    return data, TextStore(data, settings, "cpu")


def child_of(vocabulary=11, hidden_size=6, **options):
    torch.manual_seed(0)
    return lstm_child(vocabulary, hidden_size, **options)


# -- the loss


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 7, 100])  # at a time, of 7
def test_the_fused_loss_is_the_plain_one(monkeypatch, bias, rows):
    torch.manual_seed(0)
    monkeypatch.setattr(module, "_CHUNK", rows * 13)
    x = torch.randn(7, 5, dtype=torch.float64)
    weight, b = 3 * torch.randn(13, 5, dtype=torch.float64), torch.randn(13, dtype=torch.float64)
    targets = torch.tensor([0, 12, 3, 3, 0, 7, 5])
    results = []
    for loss_of in (lambda x, w, b, t: F.cross_entropy(F.linear(x, w, b), t), fused_softmax_loss):
        leaves = [part.clone().requires_grad_() for part in ((x, weight, b) if bias else (x, weight))]
        loss = loss_of(*leaves, *([] if bias else [None]), targets)
        (2.5 * loss).backward()
        results.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    for plain, fused in zip(*results, strict=True):
        assert torch.allclose(plain, fused, rtol=0, atol=1e-12)


def test_the_fused_loss_stands_large_logits():
    x = torch.tensor([[100.0], [-100.0]], requires_grad=True)
    weight = torch.tensor([[30.0], [-30.0]], requires_grad=True)
    loss = fused_softmax_loss(x, weight, None, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == 3000.0  # (0 + 6000) / 2
    assert weight.grad.flatten().tolist() == [50.0, -50.0]


@pytest.mark.parametrize("vocabulary", [module.FUSED_FROM - 1, module.FUSED_FROM])
def test_which_loss_is_used_makes_no_difference(vocabulary):
    torch.manual_seed(0)
    decoder = nn.Linear(4, vocabulary).double()
    features = torch.randn(3, 2, 4, dtype=torch.float64)
    targets = torch.randint(vocabulary, (3, 2))
    expected = F.cross_entropy(decoder(features).flatten(0, 1), targets.flatten())
    assert softmax_loss(features, decoder, targets).item() == pytest.approx(expected.item(), abs=1e-12)


# -- the text


def test_windows_are_read_side_by_side_and_one_after_the_other():
    settings = LanguageSettings(batch_size=3, sequence_length=4)
    data, store = store_of(settings, n=50)
    columns = data.train[:48].reshape(3, 16)
    assert store.windows == 3  # of 16 tokens a column: 12 are read, 12 predicted
    windows = [store.window(number).numpy() for number in range(3)]
    assert np.array_equal(np.concatenate([w[:-1] for w in windows]), columns[:, :12].T)
    assert np.array_equal(np.concatenate([w[1:] for w in windows]), columns[:, 1:13].T)


@pytest.mark.parametrize("held_out", [2, 3, 4, 5, 29, 30, 31, 200])
def test_every_held_out_token_is_predicted_once_from_the_one_before(held_out):
    data, store = store_of(LanguageSettings(batch_size=7, sequence_length=4), held_out=held_out)
    for windows, ids in ((store.validation_windows(), data.validation), (store.test_windows(), data.test)):
        tokens, targets = (torch.cat(parts).t().flatten() for parts in zip(*windows, strict=True))
        predicted = targets != NO_TARGET
        assert np.array_equal(tokens[predicted], ids[:-1])
        assert np.array_equal(targets[predicted], ids[1:])


def test_part_of_the_validation_text():
    data, store = store_of(LanguageSettings(batch_size=1, sequence_length=4, validation_tokens=9))
    assert np.array_equal(torch.cat([t for _, t in store.validation_windows()]).flatten(), data.validation[1:9])
    assert len(torch.cat([t for _, t in store.test_windows()])) == 199


def test_a_text_shorter_than_one_window():
    settings = LanguageSettings(batch_size=20, sequence_length=50)
    store_of(settings, n=1020)
    with pytest.raises(DataError) as caught:
        store_of(settings, n=1019)
    assert str(caught.value) == (
        "the training text has 1,019 tokens, too short for one window of 20 (batch_size) x 50 (sequence_length): "
        "it needs 1,020"
    )


# -- the trainer


def plain_losses(settings, store, model):
    """The textbook loop: F.cross_entropy, clip, torch's own SGD, a synchronisation per step."""
    optimizer = torch.optim.SGD(
        model.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )
    losses = []
    for epoch in range(settings.epochs):
        state = model.initial_state(store.columns)
        for group in optimizer.param_groups:
            group["lr"] = settings.schedule.rate(epoch, settings.epochs, settings.learning_rate)
        for number in range(store.windows):
            window = store.window(number)
            features, state = model(window[:-1], tuple(part.detach() for part in state))
            loss = F.cross_entropy(model.decoder(features).flatten(0, 1), window[1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
            optimizer.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("fused_from", [1, 1000])
def test_fast_and_plain_training_have_equal_losses_in_float64(monkeypatch, fused_from):
    monkeypatch.setattr(module, "FUSED_FROM", fused_from)
    settings = LanguageSettings(
        epochs=4,
        batch_size=4,
        sequence_length=10,
        gradient_clip=0.05,
        momentum=0.5,
        weight_decay=1e-3,
        schedule=Exponential(start=2, factor=0.5),
    )
    _, store = store_of(settings, n=300)
    expected = plain_losses(settings, store, child_of().double())
    training, got = _Training(child_of().double(), store, settings), []
    for epoch in range(4):
        training.start_epoch()
        for number in range(store.windows):
            training.loss_sum.zero_()
            rate = settings.schedule.rate(epoch + number / store.windows, 4, settings.learning_rate)
            training.step(store.window(number), rate)
            got.append(float(training.loss_sum))
    assert len(got) == 28
    assert np.abs(np.array(got) - expected).max() < 1e-9


@pytest.mark.parametrize("length", [1, 7, 64, 199])
def test_windows_with_carried_state_have_the_loss_of_one_long_pass(length):
    model = child_of().double()
    data, store = store_of(LanguageSettings(batch_size=1, sequence_length=length))
    ids = torch.from_numpy(data.validation).long()[:, None]
    features, _ = model(ids[:-1], model.initial_state(1))
    expected = F.cross_entropy(model.decoder(features)[:, 0], ids[1:, 0]).exp().item()
    assert perplexity(model, store.validation_windows()) == pytest.approx(expected, rel=1e-12)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary():
    model = child_of(dropout=0.5)
    nn.init.zeros_(model.decoder.weight)
    nn.init.zeros_(model.decoder.bias)
    _, store = store_of(LanguageSettings(batch_size=3))
    assert perplexity(model, store.validation_windows()) == pytest.approx(11, rel=1e-6)


def test_dropout_is_on_in_training_and_off_in_evaluation():
    model = child_of(dropout=0.5)
    _, store = store_of(LanguageSettings(batch_size=3))
    assert len({perplexity(model, store.validation_windows()) for _ in range(3)}) == 1
    train_language_model(model, store, LanguageSettings(epochs=1, batch_size=3))
    model.train()
    window = store.window(0)[:-1]
    assert not torch.equal(*(model(window, model.initial_state(3))[0] for _ in range(2)))


@pytest.mark.parametrize(
    "optimizer", [{"learning_rate": 5.0}, {"optimizer": "adam", "learning_rate": 0.02}], ids=["sgd", "adam"]
)
def test_a_text_that_follows_from_itself_is_learned(optimizer):
    """After `x a` comes b, after `y a` comes c: only the state knows which."""
    ids = np.tile(np.array([0, 2, 3, 1, 2, 4], np.int32), 200)
    data = TextArrays(ids, ids[:120], ids[:120], list("xyabc")).check("text")
    settings = LanguageSettings(epochs=20, batch_size=4, sequence_length=12, **optimizer)
    model = child_of(vocabulary=5, hidden_size=12)
    result = train_language_model(model, TextStore(data, settings, "cpu"), settings)
    assert result.curve[-1] < 1.05
    assert result.losses[-1] < 0.05 < result.losses[0]
    assert len(result.curve) == len(result.losses) == 20


def test_equal_seeds_give_equal_results():
    settings = LanguageSettings(epochs=2, batch_size=4, sequence_length=10)

    def run(seed):
        torch.manual_seed(seed)
        model = lstm_child(11, 6, dropout=0.3)
        result = train_language_model(model, store_of(settings)[1], settings)
        return result.losses + result.curve

    assert run(1) == run(1) != run(2)


def test_training_starts_again_at_the_beginning_of_the_text():
    """Without learning, every epoch has the same loss; it would not, were the state of the text's end kept."""
    settings = LanguageSettings(epochs=3, batch_size=4, sequence_length=10, learning_rate=1e-30)
    assert len(set(train_language_model(child_of(), store_of(settings)[1], settings).losses)) == 1


def test_a_loss_that_is_not_finite_is_reported():
    settings = LanguageSettings(epochs=3, batch_size=4, sequence_length=10, learning_rate=1e38, gradient_clip=None)
    with pytest.raises(Diverged, match="the training loss is (nan|inf) in epoch 1"):
        train_language_model(child_of(), store_of(settings)[1], settings)


@pytest.mark.parametrize("value", [math.nan, 1e4, math.inf])
def test_a_perplexity_that_is_no_number_is_reported(value):
    model = child_of()
    nn.init.constant_(model.decoder.bias, 0.0)
    model.decoder.bias.data[0] = value
    with pytest.raises(Diverged, match="the loss on held-out text is"):
        perplexity(model, store_of(LanguageSettings(batch_size=2))[1].validation_windows())


def test_momentum_is_not_for_adam():
    with pytest.raises(ValidationError, match="momentum is for optimizer sgd"):
        LanguageSettings(optimizer="adam", momentum=0.9)


def test_the_exponential_schedule_has_its_closed_form():
    """ENAS: 20, times 0.96 each epoch from epoch 15. Zaremba et al. 2014, medium: after 6 epochs, by 1.2."""
    enas = Exponential(start=15, factor=0.96)
    rates = {0: 20, 14.99: 20, 15: 19.2, 15.5: 19.2, 16: 18.432, 149: 20 * 0.96**135}
    assert {t: enas.rate(t, 150, 20.0) for t in rates} == pytest.approx(rates)
    medium = Exponential(start=6, factor=1 / 1.2)
    assert [medium.rate(t, 39, 1.0) for t in (0, 5, 6, 7, 38)] == pytest.approx([1, 1, 1 / 1.2, 1 / 1.44, 1.2**-33])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("optimizer", [{}, {"optimizer": "adam", "learning_rate": 0.01}])
def test_a_captured_graph_has_the_losses_of_eager_steps(monkeypatch, optimizer):
    settings = LanguageSettings(epochs=3, batch_size=4, sequence_length=10, **optimizer)
    model = child_of()
    store = TextStore(text_of(), settings, "cuda")
    captured = train_language_model(copy.deepcopy(model), store, settings)
    monkeypatch.setattr("nas_cluster.training.step._WARM_UP_STEPS", -1)
    eager = train_language_model(copy.deepcopy(model), store, settings)
    assert (captured.path, eager.path) == ("cuda_graph", "eager")
    assert captured.losses == pytest.approx(eager.losses, abs=1e-5)
