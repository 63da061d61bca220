import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from okng.errors import OkngError
from okng.inspection.verdict.calibration import MIN_FOR_TAIL, Calibration, stand_apart, tail_threshold

CHECK = settings(derandomize=True, deadline=None)
finite = st.floats(-1e6, 1e6)
tied = st.integers(0, 4).map(float)
many_scores = st.lists(finite, min_size=1, max_size=60) | st.lists(tied, min_size=1, max_size=60)
rates = st.sampled_from([0.001, 0.01, 0.05, 0.1, 0.2, 0.25, 1 / 3, 0.5, 0.9]) | st.floats(0.001, 0.999)


def calibrated(scores, rate=0.05, peaks=None, method="split"):
    return Calibration.fit(np.array(scores, np.float64), peaks, method, rate)


@CHECK
@given(many_scores, finite | tied)
def test_p_value_counts_the_held_out_scores_at_least_as_high(scores, score):
    counted = sum(other >= score for other in scores)
    assert calibrated(scores).p_value(score) == (1 + counted) / (len(scores) + 1)


@CHECK
@given(many_scores, finite | tied, rates)
@example([float(i) for i in range(19)], 17.5, 0.05)  # 0.05 * 20 is a hair off 1
@example([float(i) for i in range(99)], 93.5, 0.05)
def test_conformal_verdict_is_p_value_at_most_the_rate(scores, score, rate):
    calibration = calibrated(scores, rate)
    if calibration.basis == "conformal":
        for asked in (score, *scores, *np.nextafter(scores, np.inf)):
            assert calibration.is_ng(asked) == (calibration.p_value(asked) <= rate + 1e-9)
        assert calibration.smallest_rate <= rate + 1e-9
    else:
        assert calibration.smallest_rate > rate
        assert not any(calibration.is_ng(other) for other in scores)


@pytest.mark.parametrize(
    ("draw", "exact"),
    [
        (lambda rng, n: rng.normal(size=n), True),
        (lambda rng, n: rng.pareto(1.0, n), True),
        (lambda rng, n: rng.poisson(2, n), False),  # heavy ties: fewer false alarms than asked, never more
        (lambda rng, n: np.zeros(n), False),
    ],
    ids=["normal", "pareto", "poisson", "constant"],
)
@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (50, 0.1), (99, 0.01), (7, 0.3)])
def test_the_promise_holds_over_draws(draw, exact, n, rate):
    rng = np.random.default_rng(0)
    measured = np.array([(draw(rng, 200) > calibrated(draw(rng, n), rate).threshold).mean() for _ in range(2000)])
    error = measured.std() / np.sqrt(len(measured))
    assert measured.mean() <= rate + 3 * error
    if exact:  # a conformal threshold is not careful beyond need either
        assert measured.mean() >= rate - 1 / (n + 1) - 3 * error


@pytest.mark.parametrize(
    ("n", "rate", "basis"),
    [
        (1, 0.05, "largest"),
        (1, 0.5, "conformal"),
        (18, 0.05, "largest"),
        (19, 0.05, "conformal"),
        (MIN_FOR_TAIL - 1, 0.01, "largest"),
        (MIN_FOR_TAIL, 0.01, "tail"),
        (98, 0.01, "tail"),
        (99, 0.01, "conformal"),
    ],
)
def test_basis_by_number_of_images(n, rate, basis):
    scores = np.random.default_rng(0).gamma(4, size=n)
    calibration = calibrated(scores, rate)
    assert calibration.basis == basis
    if basis == "largest":
        assert calibration.threshold == scores.max()
    if basis == "tail":
        assert calibration.threshold > scores.max()


@pytest.mark.parametrize("shape", [-0.3, -0.1, 0.0, 0.2])
def test_the_tail_fit_finds_the_quantiles_of_a_generalised_pareto_law(shape):
    from scipy.stats import genpareto

    scores = np.sort(genpareto.rvs(shape, loc=3, scale=2, size=50_000, random_state=0))
    for rate in (0.01, 1e-3, 1e-4):
        true = genpareto.ppf(1 - rate, shape, loc=3, scale=2)
        assert tail_threshold(scores, rate) == pytest.approx(true, rel=0.05)


def test_the_tail_begins_at_the_eighty_percent_quantile_and_a_tied_one_is_the_largest_score():
    scores = np.sort(np.random.default_rng(0).gamma(4, size=200))
    expected = tail_threshold(scores, 1e-3)
    for place, matters in ((158, False), (159, True)):  # the last below the highest forty
        moved = scores.copy()
        moved[place] = (moved[place - 1] + moved[place]) / 2
        assert (tail_threshold(moved, 1e-3) != expected) == matters
    for tied_scores in (16, 20):  # all of the tail, and the score below it too
        assert tail_threshold(np.array([0.0] * (80 - tied_scores) + [0.1] * tied_scores), 1e-3) == 0.1


@pytest.mark.parametrize("law", ["norm", "expon", "lognorm", "pareto"])
@pytest.mark.parametrize(("n", "rate"), [(40, 0.01), (200, 0.002)])
def test_an_estimate_from_the_tail_is_too_low_on_average_and_bounded_as_it_says(law, n, rate):
    """The rate that a threshold really has, on average over draws of the held-out images."""
    from scipy import stats

    scores = getattr(stats, law)(*{"lognorm": [1.0], "pareto": [2.0]}.get(law, []))
    rng = np.random.default_rng(0)
    estimates = [calibrated(scores.rvs(size=n, random_state=rng), rate) for _ in range(1000)]
    real = scores.sf([each.threshold for each in estimates])
    error = real.std() / np.sqrt(len(real))
    assert estimates[0].basis == "tail"
    assert 1.2 * rate + 3 * error < real.mean() < estimates[0].smallest_rate - 3 * error


def test_the_tail_fit_is_by_unbiased_probability_weighted_moments():
    """Word for word: by plotting positions the few excesses at hand would give other moments."""
    scores = np.sort(np.random.default_rng(3).gamma(4, size=60))
    excesses = [score - scores[47] for score in scores[48:]]  # the highest fifth, ascending
    a0 = sum(excesses) / 12
    a1 = sum((12 - i) / 11 * excess for i, excess in enumerate(excesses, 1)) / 12
    shape, scale = 2 - a0 / (a0 - 2 * a1), 2 * a0 * a1 / (a0 - 2 * a1)
    expected = scores[47] + scale / shape * ((1e-3 * 60 / 12) ** -shape - 1)
    assert tail_threshold(scores, 1e-3) == pytest.approx(expected, rel=1e-9)


def test_the_tail_fit_agrees_with_maximum_likelihood_where_data_abound():
    from scipy.stats import genpareto

    scores = np.sort(np.random.default_rng(0).normal(10, 1, 20_000))
    start = scores[-4001]
    shape, _, scale = genpareto.fit(scores[-4000:] - start, floc=0)
    likely = start + genpareto.ppf(1 - 1e-4 * 5, shape, scale=scale)
    assert tail_threshold(scores, 1e-4) == pytest.approx(likely, rel=0.02)


@pytest.mark.filterwarnings("error")
@CHECK
@given(
    st.lists(finite, min_size=30, max_size=80) | st.lists(tied, min_size=30, max_size=80),
    st.floats(1e-6, 0.012),
)
@example([0.0] * 60 + [0.1] * 20, 0.001)  # all of the tail tied
@example([0.0] * 79 + [1e6], 1e-6)
def test_a_tail_threshold_is_finite_and_no_lower_than_the_largest_score(scores, rate):
    calibration = calibrated(scores, rate)
    assert calibration.basis == "tail"
    assert max(scores) <= calibration.threshold < np.inf


def test_pixel_threshold_keeps_regions_off_the_asked_share_of_ok_images():
    rng = np.random.default_rng(0)
    scores, peaks = rng.normal(size=99), rng.normal(5, 1, 99)
    calibration = calibrated(scores, 0.05, peaks)
    assert (peaks > calibration.pixel_threshold).sum() == 4  # and an unseen image is the fifth in a hundred
    assert calibrated(scores, 0.05).pixel_threshold is None


def test_another_rate_needs_no_fit_and_leaves_the_original_alone():
    scores = np.random.default_rng(0).normal(size=99)
    calibration = calibrated(scores, 0.05, scores + 5)
    other = calibration.at(0.2)
    assert (other.threshold, other.pixel_threshold) == (np.sort(scores)[-20], np.sort(scores)[-20] + 5)
    assert other.false_alarm_rate == 0.2
    assert calibration.at(0.05).to_json() == calibration.to_json()
    assert calibration.false_alarm_rate == 0.05


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, float("nan")])
def test_rates_out_of_range(rate):
    with pytest.raises(OkngError, match="a false-alarm rate lies between 0 and 1"):
        calibrated([1.0, 2.0], rate)


def test_a_threshold_by_hand():
    calibration = calibrated(range(10), 0.2, np.arange(10.0))
    by_hand = calibration.with_threshold(6.5)
    assert (by_hand.threshold, by_hand.basis, by_hand.false_alarm_rate) == (6.5, "manual", 0.3)
    assert by_hand.pixel_threshold == calibration.pixel_threshold
    assert by_hand.is_ng(6.6) and not by_hand.is_ng(6.5)
    assert calibration.with_threshold(6.0).false_alarm_rate == 0.3  # a score at the threshold is OK
    for bad in (float("nan"), float("inf"), "3"):
        with pytest.raises(OkngError, match="a threshold is a finite number"):
            calibration.with_threshold(bad)  # type: ignore[arg-type]


def test_a_score_that_is_not_a_number_never_passes():
    assert calibrated(range(30)).is_ng(float("nan"))
    assert calibrated(range(30)).is_ng(float("inf"))


@pytest.mark.parametrize("scores", [[], [1.0, np.nan], [np.inf], [[1.0, 2.0]]])
def test_scores_it_cannot_be_drawn_from(scores):
    with pytest.raises(OkngError, match="finite scores of at least one held-out OK image"):
        calibrated(scores)
    with pytest.raises(OkngError, match="finite scores of at least one held-out OK image"):
        calibrated([1.0, 2.0], peaks=np.array(scores))


def test_promise():
    """n held-out images, how, the asked rate: what is said of it."""
    for n, method, rate, *sentence in (
        (
            *(40, "split", 0.05, "at most 5% false alarms on average on OK images like the 40 held out (conformal); "),
            "this one threshold, 19 times in 20, up to 11%",
        ),
        (
            *(40, "cross", 0.1, "about 10% false alarms or fewer expected, by 40 cross-fitted OK scores "),
            "(no guarantee: --promise strict gives one from 45 images on)",
        ),
        (
            *(40, "pooled", 0.1, "about 10% false alarms or fewer expected, by 40 cross-fitted OK scores "),
            "(no guarantee: --promise strict gives one from 45 images on)",
        ),
        (
            *(40, "updated", 0.1, "about 10% false alarms or fewer expected, by 40 held-out OK scores, all or some "),
            "from before an update (close, not promised)",
        ),
        (
            *(
                40,
                "split",
                0.001,
                "0.1% false alarms is an estimate from the tail of 40 held-out OK images, on average too low: ",
            ),
            "expect up to the 2.44% that 40 can promise at best; 999 would do",
        ),
        (
            *(
                40,
                "pooled",
                0.01,
                "1% false alarms is an estimate from the tail of 40 cross-fitted OK scores, on average ",
            ),
            "too low: expect up to the 2.44% that 40 reach at best; 99 would do",
        ),
        (
            *(9, "split", 0.05, "threshold is the largest of 9 held-out OK images; "),
            "9 can promise 10% at best, 19 would do for 5%",
        ),
        (
            *(9, "cross", 0.05, "threshold is the largest of 9 cross-fitted OK scores; "),
            "9 reach 10% at best, 19 would do for 5%",  # and promise nothing
        ),
    ):
        assert calibrated(np.arange(n), rate, method=method).promise() == "".join(sentence)


def test_promise_per_group_and_with_dropped_images():
    scores = np.arange(40.0)
    grouped = Calibration.fit(scores, None, "split", 0.05, "group", dropped=2)
    assert grouped.promise() == (
        "at most 5% false alarms on average on OK images of new groups like the 40 held out "
        "(conformal, every group counting the same); this one threshold, 19 times in 20, up to 11%; "
        "2 that stood apart were dropped, so this is about images like the others"
    )
    assert (
        "40 cross-fitted OK scores, one from each group"
        in Calibration.fit(scores, None, "cross", 0.05, "group").promise()
    )
    fields = json.loads(json.dumps(grouped.to_json()))
    assert Calibration.from_json(fields, scores, None).promise() == grouped.promise()
    del fields["unit"], fields["dropped"]  # of older files
    older = Calibration.from_json(fields, scores, None)
    one = Calibration.fit(scores, None, "split", 0.05, dropped=1).promise()
    assert one.endswith("; 1 image that stood apart was dropped, so this is about images like the others")
    assert (older.unit, older.dropped) == ("image", 0) and "dropped" not in older.promise()


@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (40, 0.05), (40, 0.9), (500, 0.01), (2000, 0.3)])
def test_what_one_threshold_may_reach(n, rate):
    from scipy.stats import beta

    calibration, k = calibrated(np.arange(n), rate), int(rate * (n + 1) + 1e-9)
    assert calibration.may_reach == pytest.approx(beta.ppf(0.95, k, n + 1 - k), abs=1e-9)


def test_nineteen_of_twenty_thresholds_stay_below_what_is_said():
    rng = np.random.default_rng(0)
    fits = [calibrated(rng.uniform(size=40), 0.05) for _ in range(2000)]
    rates = np.array([1 - fit.threshold for fit in fits])  # of uniform scores
    assert np.mean(rates) < 0.05 and 0.93 < np.mean(rates < fits[0].may_reach) < 0.97
    assert np.mean(rates > 0.05) > 0.3  # "at most" is about the average alone


def test_new_scores_bring_their_own_unit():
    old = Calibration.fit(np.arange(30.0), None, "split", 0.1, "group", dropped=1)
    renewed, mixed = old.updated(np.arange(9.0), None), old.updated(np.arange(3.0), None)
    assert (renewed.unit, renewed.dropped, mixed.unit, mixed.dropped) == ("image", 0, "group", 1)


@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True), (False, False)])
def test_old_and_new_peaks_count_where_there_are_both(before, after):
    old = calibrated(np.arange(30.0), 0.1, np.arange(30.0) if before else None)
    mixed = old.updated(np.arange(3.0), np.arange(100.0, 103) if after else None)
    assert mixed.method == "updated" and len(mixed.scores) == 33
    if before and after:
        assert mixed.peaks.tolist() == [*range(30), 100, 101, 102] and mixed.pixel_threshold == 100
    else:
        assert mixed.peaks is None and mixed.pixel_threshold is None


def test_what_stands_apart():
    rng = np.random.default_rng(0)
    cries = [stand_apart(rng.gamma(9, size=n)).any() for n in (10, 20, 100) for _ in range(400)]
    assert np.mean(cries) < 0.02
    scores = rng.normal(3, 0.3, 20)
    scores[[4, 7]] = 65.7, 12
    assert np.flatnonzero(stand_apart(scores)).tolist() == [4, 7]
    assert not stand_apart(np.array([1.0, 1, 1, 60])).any()  # too few to compare
    assert stand_apart(np.array([1.0] * 19 + [5])).tolist() == [False] * 19 + [True]  # most are tied
    assert not stand_apart(np.zeros(30)).any() and not stand_apart(-scores).any()


def test_promise_by_hand():
    by_hand = calibrated(np.arange(40)).with_threshold(34.5)
    assert by_hand.promise() == "threshold set by hand; 12.5% of 40 held-out OK images lie above it"


@CHECK
@given(st.floats(1e-6, 0.5))
def test_the_number_of_images_that_would_do_does(rate):
    sentence = calibrated([1.0], rate).promise()
    if "would do" in sentence:
        needed = int(sentence.split("at best, ")[1].split()[0])
        assert calibrated(np.zeros(needed), rate).basis == "conformal"
        assert calibrated(np.zeros(needed - 1), rate).basis != "conformal"


@pytest.mark.parametrize("peaks", [None, np.array([3.0, 1.0, 2.0])])
def test_json_round_trip(peaks):
    calibration = calibrated([0.3, 0.1, 0.2], 0.3, peaks)
    fields = json.loads(json.dumps(calibration.to_json()))
    back = Calibration.from_json(fields, calibration.scores, calibration.peaks)
    assert back.to_json() == calibration.to_json()
    np.testing.assert_array_equal(back.scores, calibration.scores)
    assert back.p_value(0.2) == calibration.p_value(0.2)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": None},
        {"threshold": float("nan")},
        {"threshold": 10**400},
        {"false_alarm_rate": 7},
        {"pixel_threshold": None},
        {"pixel_threshold": float("inf")},
    ],
)
def test_json_that_makes_no_sense(change):
    fields = calibrated([1.0, 2.0], peaks=np.array([1.0, 2.0])).to_json()
    with pytest.raises(OkngError, match="calibration makes no sense; fit the model again"):
        Calibration.from_json(fields | change, np.array([1.0]), np.array([1.0]))


@pytest.mark.parametrize("fields", [None, [], {}, "x"])
def test_json_of_another_shape(fields):
    with pytest.raises(OkngError, match="fit the model again"):
        Calibration.from_json(fields, np.array([1.0]), None)
    with pytest.raises(OkngError, match="fit the model again"):
        Calibration.from_json(calibrated([1.0]).to_json(), np.empty(0), None)
