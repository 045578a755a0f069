"""The Wasserstein distance against a linear program, closed forms and its own laws."""

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import eye_array, kron, vstack
from scipy.spatial.distance import cdist

from inscl.core import distance, simplex, transport
from inscl.core.distance import coupling, wasserstein
from inscl.errors import DataError


def linear_program(x, y, p=None, q=None):
    """The transport problem solved by SciPy's HiGHS: shares no code with the library."""
    n, m = len(x), len(y)
    p = np.ones(n) if p is None else np.asarray(p, dtype=float)
    q = np.ones(m) if q is None else np.asarray(q, dtype=float)
    sums = vstack([kron(eye_array(n), np.ones((1, m))), kron(np.ones((1, n)), eye_array(m))])
    masses = np.r_[p / p.sum(), q / q.sum()]
    # One condition follows from the others; without it rounding cannot make the problem infeasible.
    return linprog(cdist(x, y, "cosine").ravel(), A_eq=sums.tocsr()[:-1], b_eq=masses[:-1]).fun


def clustered(rng, n, spread=0.5, d=32):
    centres = rng.normal(size=(8, d))
    return centres[rng.integers(8, size=n)] + spread * rng.normal(size=(n, d))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 6), (5, 1), (2, 2), (7, 4), (30, 41), (60, 60)])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_a_linear_program(rng, n, m, weighted):
    for _ in range(5):
        x, y = rng.normal(size=(n, 6)), rng.normal(size=(m, 6))
        p, q = (rng.integers(1, 50, n), rng.random(m) + 0.01) if weighted else (None, None)
        assert wasserstein(x, y, p, q) == pytest.approx(linear_program(x, y, p, q), abs=1e-9)


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
def test_agrees_on_degenerate_problems(seed, n, m, d):
    """Small integer coordinates and weights: repeated rows, opposite rows, ties and zero weights."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-1, 2, (n, d)), rng.integers(-1, 2, (m, d))
    x[~x.any(axis=1), 0], y[~y.any(axis=1), 0] = 1, -1
    p, q = rng.integers(0, 3, n), rng.integers(0, 3, m)
    p[0], q[-1] = 1, 1
    value = wasserstein(x, y, p, q)
    assert value == pytest.approx(linear_program(x, y, p, q), abs=1e-9)
    assert 0 <= value <= 2
    moved = coupling(x, y, p, q)
    assert moved.min() >= 0
    assert moved.sum(1) == pytest.approx(p / p.sum(), abs=1e-12)
    assert moved.sum(0) == pytest.approx(q / q.sum(), abs=1e-12)
    assert (moved * cdist(x, y, "cosine")).sum() == pytest.approx(value, abs=1e-9)


def test_laws(rng):
    x, y = clustered(rng, 20), clustered(rng, 30)
    p, q = rng.integers(1, 9, 20), rng.integers(1, 9, 30)
    value = wasserstein(x, y, p, q)
    assert wasserstein(y, x, q, p) == pytest.approx(value, abs=1e-12)  # symmetric
    order = rng.permutation(20)
    assert wasserstein(x[order], y, p[order], q) == pytest.approx(value, abs=1e-12)  # order is nothing
    assert wasserstein(x * 1e200, y / 1e200, p * 1e300, q) == pytest.approx(value, abs=1e-12)  # nor is scale
    assert wasserstein(np.repeat(x, p, axis=0), y, None, q) == pytest.approx(value, abs=1e-12)  # weight = copies
    assert wasserstein(np.r_[x, y[:3]], y, np.r_[p, [0, 0, 0]], q) == pytest.approx(value, abs=1e-12)
    assert wasserstein(x, x, p, p) == pytest.approx(0, abs=1e-12)
    assert wasserstein(x, -x[:1]) == pytest.approx((2 - cdist(x, x[:1], "cosine")).mean(), abs=1e-12)


def test_float16_costs_are_exact(rng):
    """Products and sums of unit float16 rows fit float64, so no order of summation can change a bit."""
    x, y = (rng.normal(size=(n, 384)) for n in (25, 30))
    x, y = ((z / np.linalg.norm(z, axis=1, keepdims=True)).astype(np.float16) for z in (x, y))
    shuffled = rng.permutation(384)
    assert wasserstein(x, y) == wasserstein(x[:, shuffled], y[:, shuffled])
    assert wasserstein(x, y) == pytest.approx(linear_program(x.astype(float), y.astype(float)), abs=1e-9)


def test_arguments_stay_as_they_were(rng):
    x, y, p = rng.normal(size=(5, 3)), rng.normal(size=(4, 3)), np.arange(5.0)
    before = x.copy(), y.copy(), p.copy()
    wasserstein(x, y, p)
    for now, then in zip((x, y, p), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.fixture
def small_parts(monkeypatch):
    """Nothing is small enough to be solved at once."""
    monkeypatch.setattr(distance, "_EXACT_SIZE", 100)
    monkeypatch.setattr(distance, "PAIRS", 7)
    monkeypatch.setattr(transport, "SAMPLE", 10)
    monkeypatch.setattr(transport, "TILE", 300)


@pytest.mark.parametrize(("n", "m", "spread"), [(60, 80, 0.1), (60, 80, 1.0), (300, 200, 0.5), (300, 30, 3.0)])
def test_the_approximation_is_within_one_per_cent(request, monkeypatch, rng, n, m, spread):
    x, y = clustered(rng, n, spread), clustered(rng, m, spread)
    p, q = rng.random(n), rng.integers(0, 9, m)
    exact = wasserstein(x, y, p, q)
    request.getfixturevalue("small_parts")
    monkeypatch.setattr(distance, "least_cost", None)  # the bounds must meet without it
    value = wasserstein(x, y, p, q)
    assert value == pytest.approx(exact, rel=0.01)
    assert value >= exact - 1e-12
    assert wasserstein(x, y, p, q) == value


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.integers(11, 40), st.integers(11, 40), st.integers(1, 3))
def test_degenerate_problems_beyond_the_exact_size(small_parts, seed, n, m, d):
    """Repeated rows, ties and zero weights, as above; without a tolerance the bounds meet at the exact distance."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(-1, 2, (n, d)), rng.integers(-1, 2, (m, d))
    x[~x.any(axis=1), 0], y[~y.any(axis=1), 0] = 1, -1
    p, q = rng.integers(0, 3, n), rng.zipf(1.5, m).clip(max=10**6)
    p[0] = 1
    exact = linear_program(x, y, p, q)
    with pytest.MonkeyPatch.context() as patch:
        assert exact - 1e-9 <= wasserstein(x, y, p, q) <= 1.01 * exact + 1e-9
        patch.setattr(distance, "_TOLERANCE", 0)
        assert wasserstein(x, y, p, q) == pytest.approx(exact, abs=1e-9)


def test_the_bounds_enclose_the_exact_distance_for_any_plan(monkeypatch, rng):
    x, y = clustered(rng, 12), clustered(rng, 9)
    costs, p, q = distance._CosineCosts(x, y), np.full(12, 1 / 12), np.full(9, 1 / 9)
    exact = linear_program(x, y)
    monkeypatch.setattr(transport, "TILE", 30)
    for _ in range(200):
        sweep = transport._sweep(costs, p, q, transport.Potentials(None, rng.normal(size=9)))
        assert sweep.low <= exact + 1e-12
        assert (sweep.f[:, None] + sweep.g <= costs.block() + 1e-12).all()
        routes = transport._any_coupling(rng.normal(size=12), rng.normal(size=9), p, q)
        assert transport._couple(costs, p, q, routes)[0] >= exact - 1e-12


def test_beyond_memory_and_patience_there_is_one_clear_line(monkeypatch):
    x = np.ones((70_000, 2), np.float16)
    with pytest.raises(DataError, match=r"70,000 and 70,000 distinct instructions; .* 4,000,000,000 pairs\. Use"):
        wasserstein(x, x)


def test_a_coupling_beyond_the_exact_size_is_refused(monkeypatch, rng):
    monkeypatch.setattr(distance, "_EXACT_SIZE", 11)
    assert coupling(rng.normal(size=(11, 2)), rng.normal(size=(1, 2))).shape == (11, 1)
    with pytest.raises(DataError, match="at most 11 pairs, got 4 and 3 rows"):
        coupling(rng.normal(size=(4, 2)), rng.normal(size=(3, 2)))


@pytest.mark.parametrize("shift", [0.0, 1e-5, 1e-2])
def test_nearly_equal_sets_beyond_the_exact_size(request, rng, shift):
    x = clustered(rng, 40)
    y = x + shift * rng.normal(size=x.shape)
    exact = wasserstein(x, y)
    request.getfixturevalue("small_parts")
    assert wasserstein(x, y) == pytest.approx(exact, rel=0.01, abs=1e-15)


def test_where_the_bounds_may_not_meet_the_rounds_end_at_the_exact_distance(request, monkeypatch, rng):
    x, y = clustered(rng, 40), clustered(rng, 30)
    exact = wasserstein(x, y)
    request.getfixturevalue("small_parts")
    monkeypatch.setattr(distance, "_TOLERANCE", -1)
    assert wasserstein(x, y) == pytest.approx(exact, abs=1e-12)


def test_a_result_that_is_not_optimal_is_never_returned(monkeypatch, rng):
    monkeypatch.setattr(simplex, "_MAX_PIVOTS", 1)
    with pytest.warns(UserWarning, match="numItermax"), pytest.raises(RuntimeError, match="no optimum"):
        wasserstein(clustered(rng, 40), clustered(rng, 30))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"a": np.empty((0, 3))}, r"`a` must have at least one row"),
        ({"b": []}, r"`b` must be a matrix"),
        ({"a": [1.0, 2.0, 3.0]}, r"`a` must be a matrix"),
        ({"b": [[1.0, 0.0]]}, r"same dimension, got 3 and 2"),
        ({"a": [[1.0, 0.0, 0.0], [1.0, np.nan, 0.0]]}, r"`a` must be finite.* first in row 1"),
        ({"b": [[np.inf, 0.0, 0.0]]}, r"`b` must be finite.* 1 of 1 rows"),
        (
            {"a": [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]},
            r"`a` must not have zero-norm rows, got 1 of 2, first row 1",
        ),
        ({"weights_a": [1.0, -1.0]}, r"`weights_a` must be finite and non-negative"),
        ({"weights_a": [1.0, np.nan]}, r"`weights_a` must be finite"),
        ({"weights_b": [0.0]}, r"`weights_b` must not be all zero"),
        ({"weights_a": [1.0]}, r"`weights_a` must have one weight per row"),
    ],
)
def test_errors_name_the_argument(changed, message):
    arguments = {"a": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], "b": [[0.0, 0.0, 1.0]]} | changed
    with pytest.raises(ValueError, match=message):
        wasserstein(**arguments)


def test_small_tasks_take_about_a_millisecond(rng):
    """A stream of 16 tasks needs 120 distances; this bound is loose, for busy machines."""
    pairs = [(clustered(rng, 90, d=384), clustered(rng, 90, d=384)) for _ in range(10)]
    wasserstein(*pairs[0])
    start = time.perf_counter()
    for x, y in pairs:
        wasserstein(x, y)
    assert (time.perf_counter() - start) / len(pairs) < 0.05


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_solver_comes_without_the_rest_of_its_library():
    """`import ot` alone takes 2 s of SciPy and scikit-learn."""
    run(
        "import sys; from inscl.core.distance import wasserstein;"
        "wasserstein([[1, 0], [0, 1]], [[1, 1], [1, 2]]);"
        "heavy = {'ot', 'scipy', 'sklearn', 'torch', 'jax', 'tensorflow', 'cupy'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )


@pytest.mark.parametrize("first", ["import ot; import ot.lp", "import inscl.core.simplex as s; s._solver()"])
def test_the_library_gives_the_same_bits_before_and_after(first):
    run(
        "import os; os.environ['POT_BACKEND_DISABLE_PYTORCH'] = '1'\n"
        f"{first}\n"
        "import numpy as np\n"
        "from inscl.core.simplex import least_cost\n"
        "rng = np.random.default_rng(0)\n"
        "for n, m in [(3, 5), (60, 40), (200, 300)]:\n"
        "    p, q, cost = rng.random(n), rng.random(m), rng.random((n, m))\n"
        "    p, q = p / p.sum(), q / q.sum()\n"
        "    ours = least_cost(p, q, cost)\n"
        "    import ot\n"
        "    assert ours == ot.emd2(p, q, cost, numItermax=10**9)\n"
        "assert ot.emd2_1d([0.0, 1.0], [2.0, 3.0], metric='euclidean') == 2.0\n"
    )
