"""The study behind notebook 11."""

import pytest
import torch

from experiments import nb11_loss_trend as nb11


@pytest.fixture(scope="module")
def data():
    return nb11.plus_minus(0)


def test_each_training_row_has_a_validation_row_beside_it(data):
    for train, val in zip(data.train, data.val, strict=True):
        assert train.shape == (1000, 2, *val.shape[1:])
        torch.testing.assert_close(train[:, 1], val)
    assert set(data.train[1].unique().tolist()) == {-1.0, 1.0}
    assert set(nb11.zero_one(0).val[2].unique().tolist()) == {0.0, 1.0}


def test_losses_read_the_training_half_and_steering_the_other(data):
    torch.manual_seed(0)
    model, study = nb11.shared(data, 4), nb11.study_of("attributes, squared error")
    batch = [t[:20] for t in data.train]
    for which, found in enumerate(
        (study.losses(model, *batch), study.observe(model, *batch)["val_losses"])
    ):
        x, *labels = (t[:, which] for t in batch)
        outputs = torch.cat(model(x), 1)
        torch.testing.assert_close(found, (outputs - torch.cat(labels, 1)).square().mean(0))


def test_an_output_above_0_is_a_yes_for_both_kinds_of_labels(data):
    torch.manual_seed(0)
    model = nb11.shared(data, 4)
    one, other = (nb11.wrong(model, *d.val) for d in (data, nb11.zero_one(0)))
    torch.testing.assert_close(one, other)


def test_a_window_of_one_pass_sees_each_validation_row_once():
    assert nb11.STEPS * nb11.BATCH == nb11.VAL == nb11.TRAIN


@pytest.mark.parametrize("name", list(nb11.LOSSES))
def test_each_contender_trains(name):
    trial = {"rate": 0.01, "window": 2.0, "ratio 1": 1.0, "ratio 2": 1.0}
    for contender in nb11.STUDY.contenders:
        names = [k.name for k in nb11.STUDY.knobs(contender, name, "adam")]
        chosen = [{name: trial[name] for name in names}]
        (row,) = nb11.block(name, "adam", 4, 2, contender.name, chosen, "report")
        assert row["failed"] == 0 and row["best"][-1] < row["best"][0]
        assert sum(row["weights"]) == pytest.approx(3, rel=1e-3)
