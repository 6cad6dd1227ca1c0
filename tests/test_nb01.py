"""The studies behind notebook 01."""

import pytest
import torch
from torch import nn

from experiments import nb01_helpers, nb01_sharing
from mtl_utils.models import HardSharing, SeparateModels


def test_each_task_has_rows_of_its_own_and_clean_test_rows():
    data = nb01_sharing.pair(3, 0.9)
    x, y1, y2 = data.test
    assert x.shape == (1000, 2, 10)
    clean = nb01_sharing.RelatedTasks(0.9, 10, 1, 0.0, seed=3)
    torch.testing.assert_close(y1[:, 0], clean.targets(x[:, 0])[:, 0])
    torch.testing.assert_close(y2[:, 0], clean.targets(x[:, 1])[:, 1])
    left = data.train[1][:, 0] - clean.targets(data.train[0][:, 0])[:, 0]
    assert 0.4 < left.std() < 0.6


def test_errors_are_of_each_task_on_its_own_rows():
    torch.manual_seed(0)
    model, (x, y1, y2) = nb01_sharing.shared(None, 4), nb01_sharing.pair(0, 0.5).val
    first = (model(x[:, 0])[0] - y1).square().mean()
    second = (model(x[:, 1])[1] - y2).square().mean()
    torch.testing.assert_close(nb01_sharing.errors(model, x, y1, y2), torch.stack([first, second]))


def test_cross_stitch_has_both_others_as_special_cases():
    torch.manual_seed(0)
    net, x = nb01_sharing.CrossStitch(4), torch.randn(5, 10)
    net.moved.data = torch.eye(2) - net.start
    pairs = zip(net.trunks, net.heads, strict=True)
    apart = SeparateModels([nn.Sequential(*pair) for pair in pairs])
    torch.testing.assert_close(net(x), apart(x))
    net.moved.data = torch.tensor([[1.0, 0.0], [1.0, 0.0]]) - net.start
    torch.testing.assert_close(net(x), HardSharing(net.trunks[0], net.heads)(x))


def test_the_speed_of_the_matrix_is_a_learning_rate_under_adam():
    matrices = []
    for speed, rate in ((10.0, 0.01), (1.0, 0.1)):
        torch.manual_seed(0)
        net = nb01_sharing.CrossStitch(4, speed)
        optimizer = torch.optim.Adam([net.moved], lr=rate, eps=1e-14)
        torch.manual_seed(1)
        for _ in range(5):
            optimizer.zero_grad()
            nb01_sharing.errors(net, *nb01_sharing.pair(0, 0.5).train).sum().backward()
            optimizer.step()
        matrices.append(net.alpha.detach())
    torch.testing.assert_close(*matrices)


@pytest.mark.parametrize("study", [nb01_sharing, nb01_helpers], ids=["sharing", "helpers"])
def test_each_contender_trains(study):
    trial = {"rate": 0.01, "weight_decay": 0.1, "ratio 1": 1.0}
    for contender in study.STUDY.contenders:
        for data in list(study.STUDY.data)[:1]:
            names = [k.name for k in study.STUDY.knobs(contender, data, "adamw")]
            chosen = [{name: trial[name] for name in names}]
            (row,) = study.block(data, "adamw", 4, 2, contender.name, chosen, "pick")
            assert row["failed"] == 0 and row["best"][-1] < row["best"][0]


def test_helpers_know_what_they_should():
    for name, make in nb01_helpers.DATA.items():
        x, y, helper = make(0).train
        n = 500 if "eaves" in name else 100
        assert (len(x), y.shape, helper.shape) == (n, (n, 1), (n, 1)), name
    x, y, helper = nb01_helpers.DATA["eavesdropping: the same direction"](0).test
    fitted = torch.linalg.lstsq(x, helper).solution  # the helper is linear but for its noise
    u = nb01_helpers.directions(0, 10, 2)[:, 0]
    assert torch.cosine_similarity(fitted[:, 0], u, dim=0) > 0.99
    torch.testing.assert_close(y, 2**0.5 * torch.sin(3 * x @ u[:, None]))
    _, _, noise = nb01_helpers.DATA["amplification: noise"](0).test
    assert 1.4 < noise.std() < 1.6


def test_the_helper_counts_nowhere():
    data = nb01_helpers.DATA["amplification: a stranger"](0)
    torch.manual_seed(0)
    model = nb01_helpers.shared(data, 4)
    x, y, helper = data.val
    found = nb01_helpers.of_the_main_task(model, x, y, helper)
    expected = (model(x)[0] - y).square().mean() / y.var()
    torch.testing.assert_close(found, expected.expand(2))
