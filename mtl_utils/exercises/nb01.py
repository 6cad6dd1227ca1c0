"""Exercises of notebook 01."""

from mtl_utils.exercises import Exercise

NOISE = 4 / 50  # sigma^2 / n of 01.1
DELTA = 0.2
POOLED = (NOISE / 2 + DELTA**2 / 4) / NOISE
SHARE = NOISE / (2 * NOISE + DELTA**2)


def _towards_mean(y1: float, y2: float, lam: float) -> list[float]:
    a = lam / (2 + 2 * lam)
    return [(1 - a) * y1 + a * y2, (1 - a) * y2 + a * y1]


EXERCISES = {
    "01.1": Exercise(
        answer=[POOLED, SHARE],
        hint="Pooling halves the variance and adds a bias: formula (1). And (3) gives the share.",
        formula="Put a = 1/2 and a = 0 into (1), with sigma^2 / n = 0.08, and divide.",
        praise="pooling saves 37.5 % of the error, and the best share, 0.4, comes close to pooling",
        mistakes=(
            ([0.5, SHARE], "0.5 is the variance alone. Pooling also has a bias."),
            (
                [(NOISE / 2 + DELTA**2) / NOISE, SHARE],
                "The bias is a delta = delta / 2, and it is squared.",
            ),
            ([POOLED, 0.5], "Half is best where the tasks do not differ. Use (3)."),
            ([POOLED, 4 / (2 * 4 + DELTA**2)], "The variance of a mean is sigma^2 / n."),
        ),
    ),
    "01.2": Exercise(
        answer=2 * 4 / DELTA**2,
        hint="Where are both sides of (2) equal?",
        formula="delta^2 = 2 sigma^2 / n; solve for n.",
        praise="with more than 200 measurements of your own, the other task only adds bias",
        mistakes=(
            (2 * 4 / DELTA**2 - 1, "There it still gains, by a little."),
            (4 / DELTA**2, "There is a factor of 2 in (2)."),
            (2 * 4 / DELTA, "delta is squared in (2)."),
            (2 * 16 / DELTA**2, "The variance is 4 already; do not square it."),
        ),
    ),
    "01.3": Exercise(
        answer=lambda lr: 5 * lr,
        at=((0.01,), (0.3,)),
        hint="What else changes in the trunk's step when there are five tasks in place of one?",
        formula="The trunk gets the sum of five equal gradients, a step five times as long.",
        praise="if the gain is gone after that, it was the learning rate",
        mistakes=(
            (lambda lr: lr, "At the same rate the trunk of the five tasks still moves further."),
            (lambda lr: lr / 5, "Turn it round: the single task has to catch up with the five."),
            (lambda lr: 25 * lr, "The gradients add; their length grows by 5, not by 5^2."),
        ),
    ),
    "01.4": Exercise(
        answer=_towards_mean,
        at=((1.0, 4.0, 0.7), (0.0, 1.0, 0.0), (2.0, -1.0, 1e6)),
        hint="First the share, from lambda. Then each estimate takes that share of the other mean.",
        formula="a = lam / (2 + 2 lam); w1 = (1 - a) y1 + a y2, and w2 with the means exchanged.",
        praise="0 leaves the tasks alone, and a huge lambda pools them",
        mistakes=(
            (
                lambda y1, y2, lam: [_towards_mean(y1, y2, lam)[0]] * 2,
                "The second estimate takes a share of the first mean.",
            ),
            (
                lambda y1, y2, lam: [
                    (y1 + lam * y2) / (1 + lam),
                    (y2 + lam * y1) / (1 + lam),
                ],
                "That share goes to 1, which would exchange the two means. It ends at 1/2.",
            ),
        ),
    ),
    "01.5": Exercise(
        answer=0.4**2 / 4,
        hint="Which part of (1) is left when the variance is gone?",
        formula="With a = 1/2 the squared bias is delta^2 / 4.",
        praise="more data make the variance vanish; the bias stays",
        mistakes=(
            (0.0, "The variance goes to 0, the bias stays."),
            (0.4**2, "The bias is half of the difference."),
            (0.4 / 2, "That is the bias; the error has it squared."),
        ),
    ),
}
