"""taskw, the Taskfile and docker/run, with stand-ins for the interpreters, installers and docker that they call."""

import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STAGES = ["check", "train", "extract", "samples", "visualize", "report", "all", "status"]
METRICS = {"roar": "roar", "kar": "kar", "diffroar": "diffroar", "lerf": "lerf,morf"}
METRICS |= {"gan-test": "gan_test", "pixel-perturb": "pixel_perturb", "diffid": "diffid", "degradation": "degradation"}
REFERENCE = {"train-cls": "train", "extract-attribution-maps": "extract", "evaluate-attribution-maps-roar": "roar"}
"""The targets of the reference system, and those of efface that run the same stage."""
OTHERS = [
    "demo",
    "convert",
    "compare",
    "prune",
    "measure",
    "build-docker",
    "bash-docker",
    "docker",
    "test",
    "test-long",
    "test-all",
    "lint",
    "format",
    "bench",
    "docs",
    "docs-serve",
    "clean",
]


@pytest.fixture(scope="session")
def task():
    """The binary beside this interpreter, or the caller's own."""
    found = shutil.which("task", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip("task is not installed")

    def run(*words, **env):
        done = subprocess.run(
            [found, "--color=false", *words],
            cwd=ROOT,
            env=_clean(**env),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout + done.stderr

    return run


@pytest.fixture
def tools(tmp_path):
    """A folder that is the whole PATH: the plain commands, and the stand-ins that a test adds."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ["awk", "cat", "cksum", "cp", "df", "dirname", "grep", "id", "mkdir", "mv", "rm", "sed", "sh"]:
        (folder / name).symlink_to(shutil.which(name))

    def add(name, script):
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return folder

    return add


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "check out"  # with a blank, as some have
    folder.mkdir()
    for name in [
        "taskw",
        "pyproject.toml",
        "requirements.txt",
        "requirements-cuda.txt",
        "requirements-dev.txt",
        "requirements-docs.txt",
        "requirements-overrides.txt",
    ]:
        shutil.copy(ROOT / name, folder)
    return folder


def test_every_target_is_there_and_says_what_it_does(task):
    listed = {item["name"]: item for item in json.loads(task("--list-all", "--json"))["tasks"]}
    assert set(listed) == {*STAGES, *METRICS, *REFERENCE, *OTHERS, "default"}
    assert all(item["desc"] for name, item in listed.items() if name != "default")
    assert not any(item["aliases"] for item in listed.values())


def test_targets_call_efface_with_the_study_and_the_words(task):
    expected = {name: f"efface {name} 'my study.yml' 'fit.epochs=1' 'fractions=[0.1, 0.5]'" for name in STAGES}
    for name, metrics in METRICS.items():
        expected[name] = f"efface measure 'my study.yml' --metrics {metrics} 'fit.epochs=1' 'fractions=[0.1, 0.5]'"
    expected["measure"] = "efface measure 'my study.yml' 'fit.epochs=1' 'fractions=[0.1, 0.5]'"
    expected["demo"] = "efface demo 'fit.epochs=1' 'fractions=[0.1, 0.5]'"
    expected |= {target: expected[name] for target, name in REFERENCE.items()}
    said = task("--dry", *expected, "CONFIG=my study.yml", "--", "fit.epochs=1", "fractions=[0.1, 0.5]")
    assert [line.split("] ", 1)[1] for line in said.splitlines()] == list(expected.values())


def test_study_has_a_default_and_measure_takes_metrics(task):
    assert "efface check configs/digits.yml" in task("--dry", "check")
    assert "efface measure configs/digits.yml --metrics roar,kar" in task("--dry", "measure", "METRICS=roar,kar")


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "called"),
    [
        ("train-cls", "efface train configs/cifar10_resnet8.yml"),
        ("extract-attribution-maps", "efface extract configs/cifar10_resnet8.yml"),
        ("evaluate-attribution-maps-roar", "efface measure configs/cifar10_resnet8.yml --metrics roar"),
        ("lerf", "efface measure configs/imagenet_resnet50.yml --metrics lerf,morf"),
        ("roar", "efface measure configs/digits.yml --metrics roar"),
        ("train", "efface train configs/digits.yml"),
    ],
)
def test_bare_targets_of_the_reference_system_have_its_studies(task, target, called):
    assert task("--dry", target).strip().endswith(f"] {called}")
    own = called.replace(called.split()[2], "'my study.yml'")
    assert task("--dry", target, "CONFIG=my study.yml").strip().endswith(f"] {own}")
    (listed,) = (item for item in json.loads(task("--list-all", "--json"))["tasks"] if item["name"] == target)
    named = re.findall(r"configs/\w+\.yml", listed["desc"])
    assert named in ([], [called.split()[2]])
    assert (named == []) == ("digits" in called)


def test_test_lints_first_and_hands_its_words_to_pytest(task):
    lines = task("--dry", "test", "--", "-k", "a or b").splitlines()
    assert [line.split("] ", 1)[1] for line in lines] == [
        "ruff format --check",
        "ruff check",
        "mypy",
        "pytest -n auto --maxprocesses 4 --dist worksteal -k 'a or b'",
    ]


def test_the_two_tiers_are_all_tests_and_ci_runs_both(task):
    assert (
        task("--dry", "test-long", "--", "-x")
        .strip()
        .endswith("pytest -m long -n auto --maxprocesses 4 --dist worksteal -x")
    )
    lines = [line.split("] ", 1)[1] for line in task("--dry", "test-all").strip().splitlines()]
    assert lines[:3] == ["ruff format --check", "ruff check", "mypy"]
    workers = ["-n", "auto", "--maxprocesses", "4", "--dist", "worksteal"]
    assert [line.split() for line in lines[3:]] == [
        ["pytest", *workers],
        ["pytest", "-m", "long", *workers],
    ]
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["addopts"].endswith("-m 'not long'")
    said = (ROOT / ".ci/run").read_text().splitlines()
    assert said.index("./taskw test") < said.index("./taskw test-long")
    assert "./taskw test " in (ROOT / "README.md").read_text()


def test_clean_spares_runs_data_and_environment(task):
    said = task("--dry", "clean")
    assert not any(word in said for word in ["runs", "data", ".venv", " . "])


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        (None, "no Python was found"),
        ("echo 3.9", "python3 is Python 3.9, but efface needs 3.11, 3.12 or 3.13"),
        ("echo 3.14", "python3 is Python 3.14, but efface needs 3.11, 3.12 or 3.13"),
        ('case "$2" in *ensurepip*) exit 1;; esac; echo 3.12', "python3 has no venv module"),
    ],
)
def test_taskw_without_a_fit_python_says_one_sentence(checkout, tools, python, sentence):
    path = tools("unused", "")
    if python:
        tools("python3", python)
    said = _taskw(checkout, path, fails=True)
    assert len(said) == 1
    assert sentence in said[0]
    assert "PYTHON=" in said[0]
    assert not (checkout / ".venv").exists()


def test_taskw_names_the_python_that_was_asked_for(checkout, tools):
    said = _taskw(checkout, tools("python3", "echo 3.12"), PYTHON="/no/such/python", fails=True)
    assert len(said) == 1
    assert "no Python was found at /no/such/python; install Python 3.11" in said[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("error: No space left on device (os error 28)", "the disk is full"),
        ("error: dns error: failed to lookup address", "a package could not be downloaded; check the network"),
        ("error: something else", "a package could not be installed"),
    ],
)
def test_taskw_names_the_cause_and_starts_again(checkout, tools, words, sentence):
    path = _python(tools, uv=f"echo '{words}' >&2; exit 2")
    said = _taskw(checkout, path, fails=True)
    assert [line for line in said if sentence in line] == said[-1:]
    assert str(checkout / ".venv/taskw.log") in said[-1]
    assert words in (checkout / ".venv/taskw.log").read_text()
    assert not (checkout / ".venv/.taskw-run").exists()
    _python(tools)
    assert "setting up" in _taskw(checkout, path)[0]


def test_taskw_sets_up_once_and_for_tests_a_little_more(checkout, tools):
    path = _python(tools)
    assert _taskw(checkout, path, "roar", "CONFIG=b c", "--", "test")[-1] == "task --exit-code|roar|CONFIG=b c|--|test|"
    tools("python3", "exit 1")  # neither it nor an installer is asked again
    assert _taskw(checkout, path, "roar") == ["task --exit-code|roar|"]
    _python(tools)
    assert "requirements-dev.txt" in _taskw(checkout, path, "test")[0]
    assert _taskw(checkout, path, "lint") == ["task --exit-code|lint|"]
    with (checkout / "requirements.txt").open("a") as file:
        file.write("# changed\n")
    said = _taskw(checkout, path, "roar")
    assert len(said) == 2
    assert "installing requirements.txt" in said[0]


@pytest.mark.parametrize(
    "words",
    [["config=x.yml"], ["CONFIG=x.yml", "fit.epochs=3"], ["seed=2"], ["Base_Image=y"], ["CON=y"], ["=y"]],
    ids=" ".join,
)
def test_taskw_refuses_words_that_task_would_ignore(checkout, tools, words):
    said = _taskw(checkout, _python(tools), "check", *words, fails=True)[-1]
    assert said.startswith(f"taskw: '{words[-1]}' stands before --, where check reads only CONFIG, in capital letters")
    assert said.endswith("as in -- fit.epochs=2. Nothing was started")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["demo", "CONFIG=x.yml"], "'CONFIG=x.yml' stands before --, where demo reads no variables"),
        (["METRICS=kar", "roar"], "'METRICS=kar' stands before --, where roar reads only CONFIG, in capital"),
        (["compare", "CONFIG=x.yml", "--", "runs/a"], "where compare reads no variables"),
        (
            ["train", "status", "CONFIG=x.yml", "GPUS=none"],
            "'GPUS=none' stands before --, where train, status reads only",
        ),
        (
            ["docker", "CONFIG=x.yml", "--", "roar"],
            "where docker reads only IMAGE DATA_DIR GPUS SHM_SIZE DOCKER_FLAGS,",
        ),
        (["--list", "CONFIG=x.yml"], "where a call without a target reads no variables"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_taskw_refuses_a_variable_that_the_target_does_not_read(checkout, tools, words, sentence):
    said = _taskw(checkout, _python(tools), *words, fails=True)
    assert len(said) == 1
    assert sentence in said[0]
    assert not (checkout / ".venv").exists()


def test_taskw_lets_through_what_one_of_the_targets_reads(checkout, tools):
    path = _python(tools)
    words = ["train", "measure", "METRICS=roar, kar", "CONFIG=b c", "--", "fit.epochs=2"]
    assert _taskw(checkout, path, *words)[-1] == f"task --exit-code|{'|'.join(words)}|"
    unknown = ["rore", "METRICS=kar"]
    assert _taskw(checkout, path, *unknown) == ["task --exit-code|rore|METRICS=kar|"]  # Task names the right target


def test_taskw_knows_the_variables_of_each_target():
    (table,) = re.findall(r"^variables_of\(\) \{.*?^\}$", (ROOT / "taskw").read_text(), re.MULTILINE | re.DOTALL)
    taskfile = yaml.safe_load((ROOT / "Taskfile.yml").read_text())
    targets = taskfile["tasks"]
    names = [name for target, said in targets.items() for name in [target, *said.get("aliases", [])]]
    loop = f'{table}\nfor name; do echo "$name" $(variables_of "$name" || echo unknown); done'
    told = subprocess.run(["sh", "-c", loop, "sh", *names], capture_output=True, text=True, check=True).stdout
    known = {name: set(variables) for name, *variables in map(str.split, told.splitlines())}
    named = set(re.findall(r"[a-z][a-z-]+(?= \||\))", re.sub(r"#.*|\$\(.*?\)", "", table).split(" in\n")[1]))
    assert named == set(names)
    for target, said in targets.items():
        used = _variables(said, targets, taskfile["vars"])
        for name in [target, *said.get("aliases", [])]:
            assert known[name] == used, name


def test_taskw_keeps_what_works_when_tests_cannot_be_installed(checkout, tools):
    path = _python(tools, uv="case $* in *-dev.txt) echo 'network was disabled'; exit 1;; esac")
    _taskw(checkout, path, "roar")
    assert "check the network" in _taskw(checkout, path, "test", fails=True)[-1]
    assert _taskw(checkout, path, "roar") == ["task --exit-code|roar|"]


def test_taskw_starts_from_nothing_after_a_cut(checkout, tools):
    path = _python(tools)
    _taskw(checkout, path)
    (checkout / ".venv/.taskw-busy").touch()
    (checkout / ".venv/half").touch()
    assert "setting up" in _taskw(checkout, path)[0]
    assert not (checkout / ".venv/half").exists()


def test_taskw_leaves_a_foreign_environment_alone(checkout, tools):
    (checkout / ".venv").mkdir()
    said = _taskw(checkout, _python(tools), fails=True)
    assert said == [f"taskw: {checkout}/.venv was not made by taskw; remove this folder, or run task from it yourself"]


def test_container_gets_user_folders_and_words(tools, tmp_path):
    data = tmp_path / "my data"
    data.mkdir()
    flags = _docker_run(tools, "roar", "CONFIG=a b.yml", DATA_DIR=str(data), DOCKER_FLAGS="--network=host --read-only")
    assert flags[-3:] == ["efface", "roar", "CONFIG=a b.yml"]
    assert {f"{os.getuid()}:{os.getgid()}", f"{tmp_path}:/workspace", f"{data}:/data:ro", "8g"} <= set(flags)
    assert {"--network=host", "--read-only"} <= set(flags)
    assert not {"--tty", "--gpus"} & set(flags)


@pytest.mark.parametrize(
    ("runtimes", "gpus", "expected"),
    [("runc", "", None), ("nvidia", "", "all"), ("nvidia", "none", None), ("runc", "device=0", "device=0")],
)
def test_gpus_are_asked_for_where_a_runtime_has_them(tools, runtimes, gpus, expected):
    flags = _docker_run(tools, "demo", runtimes=runtimes, GPUS=gpus)
    assert (flags[flags.index("--gpus") + 1] if "--gpus" in flags else None) == expected


def test_card_without_toolkit_is_one_line(tools):
    tools("nvidia-smi", "echo GPU 0")
    flags, said = _docker_run(tools, "demo", said=True)
    assert "--gpus" not in flags
    assert len(said.splitlines()) == 1
    assert "NVIDIA container toolkit" in said


def test_terminal_only_where_there_is_one(tools):
    flags = _docker_run(tools, "--shell", terminal=True)
    assert {"--tty", "--interactive"} <= set(flags)
    assert flags[flags.index("--entrypoint") + 1 :] == ["bash", "efface"]


@pytest.mark.parametrize(
    ("docker", "env", "sentence"),
    [
        ("exit 1", {}, "the Docker daemon cannot be reached"),
        ("[ $1 != image ]", {}, "there is no image 'efface'; build it with: task build-docker"),
        ("exit 0", {"DATA_DIR": "/no/such"}, "DATA_DIR: there is no folder '/no/such'"),
    ],
)
def test_container_that_cannot_run_says_one_sentence(tools, docker, env, sentence):
    path = tools("docker", docker)
    done = subprocess.run(
        [ROOT / "docker/run", "demo"], env=_clean(PATH=path, **env), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert sentence in done.stderr


def _variables(said, targets, named):
    """The variables of the user that a target and the targets that it calls read."""
    text = json.dumps({key: value for key, value in said.items() if key != "desc"})
    for name in ("STUDY", "FILE", "ROAR_STUDY", "LERF_STUDY"):
        text = text.replace(f".{name}", named[name])
    called = [step["task"] for step in said.get("cmds", []) if isinstance(step, dict)]
    used = set(re.findall(r"\.([A-Z][A-Z_]*)", text)).union(
        *(_variables(targets[name], targets, named) for name in called)
    )
    return used - {"CLI_ARGS", "TASK_EXE", "ROOT_TASKFILE"}  # Task's own


def _clean(**env):
    """The caller's surroundings without the variables that the tools read."""
    read = {"CONFIG", "METRICS", "PYTHON", "IMAGE", "BASE_IMAGE", "DATA_DIR", "GPUS", "SHM_SIZE", "DOCKER_FLAGS"}
    kept = {name: value for name, value in os.environ.items() if name not in read}
    return kept | {name: str(value) for name, value in env.items()}


def _python(tools, uv="exit 0"):
    """A Python 3.12 whose `-m venv` makes a folder with a uv that does as told and a task that prints its words."""
    tools("stand-in-uv", uv)
    tools("stand-in-task", 'printf "task "; printf "%s|" "$@"; echo')
    return tools(
        "python3",
        """case "$*" in
*version_info*) echo 3.12 ;;
"-m venv .venv")
    mkdir .venv/bin
    cp "$0" .venv/bin/python
    cp "${0%/*}/stand-in-uv" .venv/bin/uv
    cp "${0%/*}/stand-in-task" .venv/bin/task ;;
esac""",
    )


def _taskw(checkout, path, *words, fails=False, **env):
    """What it says, line by line; called from another folder."""
    done = subprocess.run(
        [checkout / "taskw", *words], cwd="/", env=_clean(PATH=path, **env), capture_output=True, text=True, check=False
    )
    assert (done.returncode != 0) is fails, done.stderr
    return (done.stderr + done.stdout).splitlines()


def _docker_run(tools, *words, runtimes="runc", terminal=False, said=False, **env):
    """The words that docker would get, and what docker/run says to the user."""
    path = tools(
        "docker",
        f"""case $1 in
info) echo '{{"Runtimes": {{"{runtimes}": {{}}}}}}' ;;
run) for word; do printf '%s\\n' "$word"; done >"${{0%/*}}/../words" ;;
esac""",
    )
    main, end = pty.openpty()
    streams = {"stdin": end, "stdout": end} if terminal else {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    done = subprocess.run(
        [ROOT / "docker/run", *words],
        cwd=path.parent,
        env=_clean(PATH=path, **env),
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        **streams,
    )
    os.close(main)
    os.close(end)
    flags = (path.parent / "words").read_text().splitlines()
    return (flags, done.stderr) if said else flags
