"""The shape of the house: who may import whom, what lands in the wheel, how large the repository is."""

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("schemas", "wamdata", "adapt", "cli")  # each may import from itself and from those before it
HEAVY = {"torch", "lerobot", "ray", "peft", "webdataset", "datasets", "decord", "matplotlib", "jinja2", "diffusers"}
LIMIT_MB = 55


def imports(file: Path, *, top_only: bool) -> set[str]:
    """Names of the packages a file imports, inside functions too unless `top_only`."""
    tree = ast.parse(file.read_text())
    nodes = tree.body if top_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    later = set(ROOMS[ROOMS.index(room) + 1 :])
    for file in files(room):
        assert not imports(file, top_only=False) & later, f"{file} imports from a room after it"


@pytest.mark.parametrize("room", ["schemas", "wamdata", "cli"])
def test_nothing_heavy_is_imported_at_the_top(room: str) -> None:
    for file in files(room):
        assert not imports(file, top_only=True) & HEAVY, f"{file} imports something heavy at its top"


def test_only_the_command_line_prints_or_reads_the_environment() -> None:
    for room in ("schemas", "wamdata", "adapt"):
        for file in files(room):
            calls = [n.func for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Call)]
            names = {c.id for c in calls if isinstance(c, ast.Name)} | {
                f"{c.value.id}.{c.attr}"
                for c in calls
                if isinstance(c, ast.Attribute) and isinstance(c.value, ast.Name)
            }
            assert not names & {"print", "input", "os.getenv", "sys.exit", "exit"}, file


def test_nothing_is_unpickled() -> None:
    loaders = set()
    for room in ROOMS:
        for file in files(room):
            text = file.read_text()
            assert "import pickle" not in text and "allow_pickle=True" not in text, file
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and node.module == "pickle":
                    assert [alias.name for alias in node.names] == ["UnpicklingError"], file
                if isinstance(node, ast.ImportFrom) and node.module in ("torch", "torch.serialization"):
                    assert "load" not in {alias.name for alias in node.names}, file
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.serialization.load"):
                    assert {k.arg: ast.unparse(k.value) for k in node.keywords}.get("weights_only") == "True", file
                    loaders.add(str(file.relative_to(ROOT)))
    assert loaders == {"adapt/backbones/dreamzero/legacy.py"}


def test_help_imports_nothing_heavy_and_is_quick() -> None:
    code = (
        "import sys, time\nt = time.perf_counter()\nsys.argv = ['wam', '--help']\nfrom cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(time.perf_counter() - t, [m for m in ('numpy', 'torch', 'ray', 'pydantic') if m in sys.modules])"
    )
    times = []
    for _ in range(3):
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        seconds, modules = ran.stdout.strip().splitlines()[-1].split(" ", 1)
        assert modules == "[]"
        times.append(float(seconds))
    assert min(times) < 0.5


def test_the_wheel_holds_exactly_the_four_packages(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == set(ROOMS)
    packaged = {n for n in names if n.endswith((".py", ".yaml", ".jinja"))}
    wanted = {
        str(f.relative_to(ROOT))
        for room in ROOMS
        for f in (ROOT / room).rglob("*")
        if f.suffix in (".py", ".yaml", ".jinja")
    }
    assert packaged == wanted


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_repository_stays_small() -> None:
    size = sum(f.stat().st_size for f in tracked()) / 1e6
    assert size < LIMIT_MB, f"{size:.0f} MB are tracked"
    for file in tracked():
        if "tests/data" not in str(file):
            assert file.stat().st_size < 500_000, file


def test_the_real_sample_is_at_most_8_mb_with_its_licence_beside_it() -> None:
    sample = ROOT / "tests/data/g1_inspire_v21"
    assert sum(f.stat().st_size for f in sample.rglob("*") if f.is_file()) <= 8_000_000
    assert "MIT License" in (sample / "LICENSE").read_text()
    assert "g1_inspire_v21" in (ROOT / "tests/data/MAKING.md").read_text()


def test_no_tracked_file_names_a_machine_path_or_a_registry_host() -> None:
    pattern = re.compile(r"(^|[^A-Za-z0-9._])/(work|root|home)/|pypi\.org|pythonhosted|registry\.npmjs|deb\.debian")
    for file in tracked():
        if (
            file.suffix in (".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".jinja", "")
            and file.name != "test_house.py"
        ):
            for number, line in enumerate(file.read_text(errors="ignore").splitlines(), start=1):
                assert not pattern.search(line), f"{file}:{number}: {line.strip()[:80]}"
