"""The losses of the study behind notebook 05, against formulas written out."""

import pandas as pd
import pytest
import torch

from experiments import nb05_again, nb05_pair

DATA = nb05_pair.two_tasks(0, even=False)
X, *Y = (t[:20] for t in DATA.train)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nb05_pair.shared(DATA, 4)


def outputs(model):
    f = torch.cat([out[:, :1] for out in model(X)], 1)
    s = torch.cat([out[:, 1:] for out in model(X)], 1)
    return f, s, (f - torch.cat(Y, 1)).square()


def test_true_weights_divide_each_error_by_its_noise(model):
    _, _, squares = outputs(model)
    variance = torch.tensor([[0.01, 4.0 if x[0] > 0 else 0.01] for x in X])
    losses = nb05_pair.losses_of("true weights", "uneven noise", 1)(model, X, *Y)
    torch.testing.assert_close(losses, (squares / variance).mean(0) / 2)
    even = nb05_pair.losses_of("true weights", "even noise", 1)(model, X, *Y)
    torch.testing.assert_close(even[1], squares[:, 1].mean() / (4 + 0.01))


def test_the_likelihood_and_its_cures(model):
    _, s, squares = outputs(model)
    each = 0.5 * (torch.exp(-s) * squares + s)
    free = nb05_pair.losses_of("heteroscedastic", "uneven noise", 1)(model, X, *Y)
    torch.testing.assert_close(free, each.mean(0))
    half = nb05_pair.losses_of("heteroscedastic, beta 0.5", "uneven noise", 1)(model, X, *Y)
    torch.testing.assert_close(half, (each * torch.exp(s / 2)).mean(0))
    warm = nb05_pair.losses_of("heteroscedastic, warm-up", "uneven noise", 2)  # 10 steps
    held = [warm(model, X, *Y) for _ in range(6)]
    torch.testing.assert_close(held[4], squares.mean(0) / 2)
    torch.testing.assert_close(held[5], each.mean(0))


def test_each_contender_trains(model):
    trial = {"rate": 0.01, "weight_decay": 0.1, "own_rate": 0.03, "ratio 1": 1.0}
    for contender in nb05_pair.STUDY.contenders:
        names = [k.name for k in nb05_pair.STUDY.knobs(contender, "even noise", "adamw")]
        chosen = [{name: trial[name] for name in names}]
        how = ("even noise", "adamw", 4, 2, contender.name, chosen, "pick")
        (row,) = nb05_pair.block(*how)
        assert row["failed"] == 0 and row["best"][-1] < row["best"][0]


def test_test_rows_are_clean_and_the_others_are_not():
    noise = nb05_pair.noise_of(DATA.val[0], even=False)
    twin = nb05_pair.RelatedTasks(0.5, n_features=6, n_waves=1, noise=0, seed=0)
    clean = {s: twin.targets(getattr(DATA, s)[0]) for s in ("val", "test")}
    torch.testing.assert_close(torch.cat(DATA.test[1:], 1), clean["test"])
    z = (torch.cat(DATA.val[1:], 1) - clean["val"]) / noise
    torch.testing.assert_close(z.std(0), torch.ones(2, dtype=z.dtype), rtol=0.1, atol=0)


def test_less_noise_is_the_same_draw():
    less = nb05_pair.two_tasks(0, even=False, loud=0.5)
    torch.testing.assert_close(less.test, DATA.test)
    loud = DATA.train[0][:, 0] > 0
    clean = nb05_pair.RelatedTasks(0.5, n_features=6, n_waves=1, noise=0, seed=0)
    truth = clean.targets(DATA.train[0])[:, 1:]
    mine, theirs = less.train[2] - truth, DATA.train[2] - truth
    torch.testing.assert_close(mine[loud], theirs[loud] / 4)
    torch.testing.assert_close(mine[~loud], theirs[~loud])


def test_what_trains_again_are_the_picks_of_the_record():
    configs = nb05_again.configs()
    assert len(configs) == len(nb05_again.SETTINGS) * len(nb05_again.CONTENDERS)
    wide = {c["contender"]: c["trial"] for c in configs if c["setting"] == "64 units"}
    own = {c["contender"]: c["trial"] for c in configs if c["setting"] == "400 epochs, 32 units"}
    assert wide == own and set(wide["uncertainty"]) == {"rate", "weight_decay", "own_rate"}


def test_differences_in_per_cent():
    rows = [
        {"setting": "64 units", "contender": name, "test": [[e, e], [e, e + shift]]}
        for name, e, shift in (("fixed", 2.0, 0.0), ("uncertainty", 1.0, 0.0))
    ]
    (row,) = nb05_again.against(pd.DataFrame(rows), "fixed").to_dict("records")
    assert row == {"setting": "64 units", "contender": "uncertainty"} | dict.fromkeys(
        ("difference", "low", "high"), -50.0
    )
