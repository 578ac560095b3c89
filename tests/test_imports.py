"""Who may import whom: down the road only, heavy packages in their own places, nothing heavy at start.

The imports are read from the sources themselves, those inside functions too, so that an import moved
into a function hides nothing.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# From the top of the road to its ground. A module imports from its own layer or from one below, and
# never in a circle. A name stands for the module and all below it; the longest name that fits counts.
LAYERS = (
    "__main__ cli supervisor drills",
    "client client_budget client_clean client_data client_images client_machines client_money"
    " client_outputs client_stacks",
    "supervise",
    "audit audit_buckets audit_home audit_item",
    "plan execute adopt"
    " machines describing estimate doctor cleaning_machines health health_look gpu_seen"
    " images_bake images_list",
    "cautions",
    "spending",
    "follow carry access rent machine_off images_own images_charged outbox datasets_remote charging capacity"
    " runrecord attempts context",
    "provision provision_steps remote.transfer remote.process remote.agentlink remote.datalink",
    "comparing measured report budget bills bill_formats",
    "compat compat_facts"
    " target jobs stacks offers bundle outputs"
    " ledger billing store store_bills store_charges shares runcost runfiles"
    " datasets datasets_inputs keptdata cleaning cleaning_buckets cleaning_datasets codestore store_clean"
    " trash bucket bucket_outputs datasets_bucket",
    "store_file store_rows store_schema store_sums manifest ignore leaks hashing tomlfile catalog stacks_lock"
    " providers.aws providers.azure sim",
    "providers",
    "server remote",
    "guard records names words config_file locks curves epochs notebook arithmetic keys payload ownpc",
    "providers.base remote.shell",
    "config assets events images",
    "models",
    "errors",
    "agent",  # runs on the machine, where there is no cloudrun
)

# Imported for annotations only, inside `if TYPE_CHECKING:`; they never run.
ANNOTATIONS = {("cloudrun.errors", "cloudrun.models")}

# A heavy package, and the only modules that may name it.
HOMES = {
    "asyncssh": ("cloudrun.server",),
    "azure": ("cloudrun.providers.azure",),
    "boto3": ("cloudrun.providers.aws",),
    "botocore": ("cloudrun.providers.aws",),
    "click": ("cloudrun.cli",),
    "fabric": ("cloudrun.remote.ssh",),
    "invoke": ("cloudrun.remote.ssh",),
    "matplotlib": ("cloudrun.curves.picture",),
    "moto": ("cloudrun.sim",),
    "nbconvert": ("cloudrun.notebook",),
    "nbformat": ("cloudrun.notebook",),
    "numpy": (),
    "paramiko": ("cloudrun.remote.ssh", "cloudrun.remote.hostkey"),
    "jsonschema": ("cloudrun.sim",),
    "pyarrow": ("cloudrun.bill_formats",),
    "pydantic": ("cloudrun.jobs", "cloudrun.stacks"),
    "rich": ("cloudrun.cli",),
    "torch": (),
    "trustme": ("cloudrun.sim",),
    "yaml": ("cloudrun.sim",),
}
NEVER_AT_START = sorted({*HOMES} - {"click"})


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement: where it stands and the dotted name it brings in."""

    module: str
    target: str
    where: str
    annotation: bool = False


def test_every_module_has_a_layer() -> None:
    missing = [name for name in sources(ROOT) if name != "cloudrun" and layer_of(name) is None]
    assert not missing, f"place these in LAYERS, and in docs/architecture.md: {missing}"


def test_imports_point_down() -> None:
    assert upward_imports(ROOT) == []


def test_no_import_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for found in our_imports(ROOT):
        if not found.annotation:
            graph.setdefault(found.module, set()).add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_heavy_packages_stay_at_home() -> None:
    strays = [
        f"{found.where} imports {found.target}"
        for found in imports(ROOT)
        for package, homes in HOMES.items()
        if below(found.target, package) and not any(below(found.module, home) for home in homes)
    ]
    assert strays == []


def test_agent_needs_only_the_standard_library() -> None:
    foreign = [
        found.where
        for found in imports(ROOT)
        if below(found.module, "cloudrun.agent")
        and found.target.partition(".")[0] not in sys.stdlib_module_names
    ]
    assert foreign == []


def test_jobs_and_cloudrun_never_import_each_other() -> None:
    job_sources = list((ROOT / "jobs").rglob("*.py"))
    assert job_sources
    of_jobs = [
        found.where
        for path in job_sources
        for found in imports_of(path, "jobs", ROOT)
        if below(found.target, "cloudrun")
    ]
    of_ours = [found.where for found in imports(ROOT) if below(found.target, "jobs")]
    assert of_jobs + of_ours == []


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["status"], ["status", "--json"]])
def test_nothing_heavy_at_start(arguments: list[str], tmp_path: Path) -> None:
    loaded = modules_after(arguments, tmp_path)
    assert "cloudrun.cli" in loaded
    assert [name for name in NEVER_AT_START if name in loaded] == []


def test_nothing_heavy_with_the_package(tmp_path: Path) -> None:
    loaded = loaded_by("import cloudrun", tmp_path)
    assert [name for name in HOMES if name in loaded] == []


def test_the_check_sees_an_upward_import_inside_a_function(tmp_path: Path) -> None:
    package = tmp_path / "cloudrun"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").touch()
    (package / "store.py").write_text("def late():\n    from cloudrun import cli\n    return cli\n")
    assert upward_imports(tmp_path) == ["cloudrun/store.py:2: cloudrun.store imports cloudrun.cli"]


def sources(root: Path) -> dict[str, Path]:
    """Every module of cloudrun below root, by its dotted name."""
    found = {}
    for path in sorted((root / "cloudrun").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> Iterator[Import]:
    for module, path in sources(root).items():
        yield from imports_of(path, module, root)


def our_imports(root: Path) -> Iterator[Import]:
    """Imports of one module of cloudrun by another."""
    known = sources(root)
    for found in imports(root):
        target = found.target
        while target not in known and "." in target:  # a name out of a module: the module counts
            target = target.rpartition(".")[0]
        if target in known and target not in ("cloudrun", found.module):
            yield Import(found.module, target, found.where, found.annotation)


@cache
def imports_of(path: Path, module: str, root: Path) -> list[Import]:
    tree = ast.parse(path.read_bytes(), str(path))
    quiet = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test).endswith("TYPE_CHECKING")
        for node in ast.walk(block)
    }
    return [
        Import(module, target, f"{path.relative_to(root)}:{node.lineno}", id(node) in quiet)
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for target in targets(node)
    ]


def targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    assert node.level == 0, "relative imports hide where a name comes from"
    return [f"{node.module}.{name.name}" for name in node.names]


def upward_imports(root: Path) -> list[str]:
    found = []
    for item in our_imports(root):
        above, below_it = layer_of(item.module), layer_of(item.target)
        if item.module == "cloudrun" or above is None or below_it is None or below_it >= above:
            continue
        if not (item.annotation and (item.module, item.target) in ANNOTATIONS):
            found.append(f"{item.where}: {item.module} imports {item.target}")
    return found


def layer_of(module: str) -> int | None:
    """The index of the module's layer, 0 on top; the longest name that fits decides."""
    fitting = [
        (len(name), level)
        for level, names in enumerate(LAYERS)
        for name in names.split()
        if below(module, f"cloudrun.{name}")
    ]
    return max(fitting)[1] if fitting else None


def below(module: str, name: str) -> bool:
    return module == name or module.startswith(name + ".")


def modules_after(arguments: list[str], home: Path) -> set[str]:
    return loaded_by(
        f"import sys; sys.argv = ['cloudrun', *{arguments!r}]\n"
        "from cloudrun.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code",
        home,
    )


def loaded_by(code: str, home: Path) -> set[str]:
    """Names of the modules that a fresh interpreter holds after running the code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint('\\nLOADED', *sys.modules)"],
        cwd=ROOT,
        env=os.environ | {"CLOUDRUN_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED")[2].split())
