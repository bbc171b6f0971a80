"""What `launch` prints is what SLURM's shell and Kubernetes' schema accept, and what it runs."""

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from resnets.errors import FolderInUse, StillInUse
from resnets.run_files import CONFIG
from resnets.runs.launch import Launch, repeated_words
from resnets.runs.refusals import MARK, note_refusal
from tests.in_process import call
from tests.processes import several

SCHEMAS = Path(__file__).parents[1] / "fixtures" / "schemas"
TRAIN = ("my photos", "--recipe", "imagenet", "--output", "the run", "--epochs", "3")


def printed(system: str, *flags: object, words: tuple[str, ...] = TRAIN) -> str:
    done = call("launch", *words, "--on", system, "--print", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def jobset(*flags: object) -> Any:
    yaml = pytest.importorskip("yaml", reason="the extra serve is not installed")
    document = yaml.safe_load(printed("kubernetes", *flags))
    schema = gzip.decompress((SCHEMAS / "jobset-v1alpha2.json.gz").read_bytes())
    jsonschema.validate(document, json.loads(schema))
    return document


@pytest.fixture
def tools(tmp_path: Path) -> Callable[..., None]:
    """Writes programs into a folder that stand for those of a cluster."""

    def write(**scripts: str) -> None:
        for name, script in scripts.items():
            file = tmp_path / "bin" / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"#!/usr/bin/env bash\n{script}\n", encoding="utf-8")
            file.chmod(0o755)

    return write


def environment(tmp_path: Path) -> dict[str, str]:
    """Of a job of SLURM with the programs of `tools`."""
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURM_NODEID": "0"}
    job |= {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_PER_TASK": "4"}
    return {**os.environ, **job, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


HOSTS = 'if [ "$1" = show ]; then printf "n1\\nn2\\n"; else echo "$*" >> queued; fi'
WORDS = 'printf "%s\\n" "$@" > words'


def test_a_node_runs_torchrun_with_the_first_host_and_the_words_as_they_were_typed(
    tmp_path: Path, tools: Callable[..., None]
) -> None:
    words = (*TRAIN, "--group-by", 'it\'s $HOME `x` "y"')
    tools(scontrol=HOSTS, srun='shift 2; exec "$@"', torchrun='exec "${@: -3}"', python=WORDS)
    script = printed("slurm", "--nodes", 2, "--gpus", 4, words=words)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment(tmp_path), check=False
    )
    assert done.returncode == 0
    called = (tmp_path / "words").read_text("utf-8").splitlines()
    assert called[:3] == ["-m", "resnets", "train"]
    assert set(called[3:]) == set(words)
    tools(torchrun=WORDS)
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(tmp_path), check=True)
    flags = (tmp_path / "words").read_text("utf-8")
    assert "--nnodes=2\n--nproc-per-node=4\n" in flags
    assert "--rdzv-endpoint=n1:2" in flags
    assert "is_host=1" in flags


def test_a_job_that_is_started_again_resumes_its_run(
    tmp_path: Path, tools: Callable[..., None]
) -> None:
    tools(scontrol=HOSTS, srun='shift 2; exec "$@"', torchrun='exec "${@: -3}"', python=WORDS)
    (tmp_path / "the run").mkdir()
    (tmp_path / "the run" / "config.toml").touch()
    script = printed("slurm")
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(tmp_path), check=True)
    called = (tmp_path / "words").read_text("utf-8").splitlines()
    assert called[:5] == ["-m", "resnets", "train", "--resume", "the run"]
    assert set(called[5:]) == set(TRAIN)
    assert repeated_words(called[3:]) == called[5:]


def test_before_its_time_is_over_a_job_ends_its_processes_and_is_queued_again(
    tmp_path: Path, tools: Callable[..., None]
) -> None:
    ends = 'trap "echo saved > saved; exit 143" TERM; touch began; while true; do sleep 0.05; done'
    tools(scontrol=HOSTS, srun=ends)
    script = printed("slurm", "--time-limit", "2h")
    assert "--signal=B:USR1@" in script
    assert "--time=120\n" in script
    assert "--requeue\n" in script
    with subprocess.Popen(
        ["bash", "-c", script], cwd=tmp_path, env=environment(tmp_path)
    ) as process:
        while not (tmp_path / "began").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(timeout=60) != 0
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "queued").read_text("utf-8") == "requeue 7\n"


def test_shellcheck_finds_nothing_in_the_script(tmp_path: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    file = tmp_path / "job.sh"
    file.write_text(printed("slurm", "--nodes", 3, "--time-limit", "24h"), encoding="utf-8")
    command = ["shellcheck", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_kubernetes_takes_the_jobset() -> None:
    document = jobset("--nodes", 16, "--gpus", 8)
    (replicated,) = document["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (16, 16, "Indexed")
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert pod["securityContext"]["runAsNonRoot"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    name = document["metadata"]["name"]
    assert f"--rdzv-endpoint={name}-node-0-0.{name}:29500" in container["command"][-1]
    assert (
        subprocess.run(["bash", "-n", "-c", container["command"][-1]], check=False).returncode == 0
    )


def test_a_jobset_without_gpus_has_one_process_a_node_and_no_limit() -> None:
    (container,) = jobset("--gpus", 0)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"][
        "spec"
    ]["containers"]
    assert "limits" not in container["resources"]
    assert "--nproc-per-node=1 " in container["command"][-1]


def test_the_schema_refuses_what_jobset_would() -> None:
    document = jobset()
    document["spec"]["replicatedJobs"][0]["template"]["spec"]["paralelism"] = 2
    schema = json.loads(gzip.decompress((SCHEMAS / "jobset-v1alpha2.json.gz").read_bytes()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


SLURM, HERE = ("--on", "slurm", "--print"), ("photos", "--output", "run")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("photos", *SLURM), "--output"),
        (("--output", "run", *SLURM), "no data"),
        ((*HERE, "--lrr", "3", *SLURM), "--lrr"),
        ((*HERE, "--network", "resnet21", *SLURM), "resnet21"),
        ((*HERE, "--epochs", "x", *SLURM), "epochs"),
        ((*HERE, "--on", "slurm"), "--print"),
        ((*HERE, "--resume", "run", *SLURM), "--resume"),
        ((*HERE, "--overwrite", *SLURM), "--overwrite: leave it out"),
        ((*HERE, "--overwrite", "--rehearse", "2"), "--overwrite: leave it out"),
        ((*HERE, "--batch-size", "3", *SLURM), "batch size 3: it must be at least 8"),
        ((*HERE, "--batch-size", "15", *SLURM, "--nodes", "2"), "batch size 15"),
        ((*HERE, "--batch-size", "3", "--rehearse", "4"), "batch size 3: it must be at least 4"),
        ((*HERE, "--device", "cuda:1", *SLURM), "--device cuda:1"),
        ((*HERE, "--device", "mps", "--rehearse", "2"), "--device mps"),
        ((*HERE, "--folds", "5", *SLURM), "--folds"),
        ((*HERE, "--freeze", "all", "--from", "a.pt", "--rehearse", "2"), "--freeze all"),
        ((*HERE, "--device", "gpu", *SLURM, "--gpus", "1"), "--device gpu"),
        ((*HERE, *SLURM, "--nodes", "0"), "--nodes"),
        ((*HERE, "--on", "kubernetes", "--print", "--time-limit", "1h"), "--time-limit"),
        ((*HERE, *SLURM, "--rehearse", "2"), "--rehearse"),
        ((*HERE, "--rehearse", "0"), "--rehearse 0"),
        (
            (*HERE, *SLURM, "--time-limit", "30s"),
            "--time-limit 30s",
        ),  # less than SLURM's signal needs
        ((*HERE, *SLURM, "--time-limit", "3m"), "--time-limit 3m"),
        ((*HERE, *SLURM, "--time-limit", "soon"), "--time-limit 'soon'"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_printed(
    words: tuple[str, ...], reason: str
) -> None:
    done = call("launch", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


def test_a_time_limit_is_rounded_up_to_minutes_and_that_is_told() -> None:
    done = call("launch", *HERE, *SLURM, "--nodes", 2, "--time-limit", "301s")
    assert "#SBATCH --time=6\n" in done.stdout
    assert "301s" in done.stderr
    done = call("launch", *HERE, *SLURM, "--nodes", 2, "--time-limit", "5m")
    assert "#SBATCH --time=5\n" in done.stdout
    assert "--time-limit" not in done.stderr


def test_a_pod_runs_what_a_node_runs() -> None:
    """The worker stands on lines of its own in both files, and YAML puts them together again."""
    yaml = pytest.importorskip("yaml", reason="the extra serve is not installed")
    words = ("photos", "--group-by", 'it\'s  $(x) "y" \\n')
    worker = Launch([*words, "--output", "a b"], Path("a b")).worker()
    done = call("launch", *words, "--output", "a b", *POD)
    pod = yaml.safe_load(done.stdout)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    (value,) = (
        item["value"]
        for item in pod["spec"]["containers"][0]["env"]
        if item["name"] == "RESNETS_WORKER"
    )
    assert value.replace("$$(", "$(") == worker
    assert subprocess.run(["bash", "-n", "-c", worker], check=False).returncode == 0


# what Kubeflow Trainer sets in each pod of a TrainJob for torchrun: pkg/constants/constants.go
KUBEFLOW = {
    "PET_NNODES": "16",
    "PET_NPROC_PER_NODE": "8",
    "PET_NODE_RANK": "3",
    "PET_MASTER_ADDR": "resnets-node-0-0.resnets",
    "PET_MASTER_PORT": "29400",
}


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod of Kubeflow Trainer."""
    for name, value in KUBEFLOW.items():
        monkeypatch.setenv(name, value)


def understood(words: list[str]) -> Any:
    """What torchrun's own parser makes of its command line."""
    from torch.distributed.run import get_args_parser

    return get_args_parser().parse_args(words)


def documented(language: str, within: str) -> str:
    """The block of the page that is in a language and contains a text."""
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "launch.md").read_text("utf-8")
    blocks = re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if within in block)
    return str(block)


@pytest.mark.usefixtures("kubeflow")
def test_flags_of_a_pod_and_of_a_rehearsal_come_before_what_kubeflow_sets(
    tmp_path: Path, tools: Callable[..., None]
) -> None:
    yaml = pytest.importorskip("yaml", reason="the extra serve is not installed")
    tools(torchrun=WORDS)
    pod = yaml.safe_load(printed("kubernetes", "--nodes", 2, "--gpus", 4))
    (container,) = pod["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
        "containers"
    ]
    own = environment(tmp_path) | {"JOB_COMPLETION_INDEX": "0", "RESNETS_WORKER": "true"}
    subprocess.run(container["command"], cwd=tmp_path, env=own, check=True)
    job = understood((tmp_path / "words").read_text("utf-8").splitlines())
    assert (job.nnodes, job.nproc_per_node, job.rdzv_backend) == ("2", "4", "c10d")
    words = Launch(["photos", "--output", "run"], Path("run")).rehearsal(2)
    rehearsal = understood(words[words.index("--standalone") :])
    assert (rehearsal.nnodes, rehearsal.nproc_per_node) == ("1", "2")


@pytest.mark.usefixtures("kubeflow")
def test_kubeflow_takes_the_trainjob_of_the_docs_and_torchrun_its_numbers() -> None:
    yaml = pytest.importorskip("yaml", reason="the extra serve is not installed")
    document = yaml.safe_load(documented("yaml", "kind: TrainJob"))
    schema = json.loads(gzip.decompress((SCHEMAS / "trainjob-v1alpha1.json.gz").read_bytes()))
    jsonschema.validate(document, schema)
    command = document["spec"]["trainer"]["command"]
    assert command[0] == "torchrun"
    job = understood(command[1:])
    assert (job.nnodes, job.nproc_per_node, job.node_rank) == ("16", "8", 3)
    assert (job.master_addr, job.master_port) == ("resnets-node-0-0.resnets", 29400)
    document["spec"]["trainer"]["numNode"] = 16
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def test_skypilots_variables_reach_torchrun(tmp_path: Path, tools: Callable[..., None]) -> None:
    yaml = pytest.importorskip("yaml", reason="the extra serve is not installed")
    script = yaml.safe_load(documented("yaml", "SKYPILOT"))["run"]
    tools(torchrun=WORDS)
    sky = {"NUM_NODES": "2", "NUM_GPUS_PER_NODE": "8", "NODE_RANK": "1", "NODE_IPS": "a.b\nc.d"}
    own = environment(tmp_path) | {f"SKYPILOT_{name}": value for name, value in sky.items()}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=own, check=True)
    job = understood((tmp_path / "words").read_text("utf-8").splitlines())
    assert (job.nnodes, job.nproc_per_node, job.node_rank) == ("2", "8", 1)
    assert job.master_addr == "a.b"
    assert job.training_script_args[:2] == ["train", "photos"]


def test_a_batch_with_an_image_for_each_process_is_printed() -> None:
    words = ("/data/photos", "--output", "run", *POD, "--nodes", 2)
    for count, device in (("16", "cuda"), ("auto", "cpu")):
        done = call("launch", *words, "--batch-size", count, "--device", device)
        assert done.returncode == 0, done.stderr
    done = call("launch", *words, "--gpus", 1, "--batch-size", 2, "--device", "cuda:0")
    assert done.returncode == 0, done.stderr


POD = ("--on", "kubernetes", "--print")


@pytest.mark.parametrize("output", ["/scratch/run", "../run", "/data/../run", "/tmp/run"])
def test_a_pod_needs_a_folder_on_its_volume(output: str) -> None:
    done = call("launch", "photos", "--output", output, *POD)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--output {output}: not on the volume" in done.stderr


def test_paths_of_this_machine_that_a_pod_does_not_have_are_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("batch_size = 64\n", encoding="utf-8")
    pod = (*POD, "--nodes", "2", "--image", "own")
    words = ("photos", "--output", "/data/runs/a", "--other", "../others", *pod)
    done = call("launch", *words, "--recipe", tmp_path / "mine.toml", f"--from={tmp_path}/a.pt")
    assert done.returncode == 0, done.stderr
    paths = [line.split(": not on the volume")[0] for line in done.stderr.splitlines()]
    assert paths == ["../others", f"{tmp_path}/mine.toml", f"{tmp_path}/a.pt"]
    assert not call("launch", "/data/photos", "--output", "run", *pod).stderr


def test_a_job_for_one_machine_is_told_to_be_one() -> None:
    for gpus, what in ((8, "1 machine with 8 GPUs"), (0, "1 machine without a GPU")):
        done = call("launch", "/data/photos", "--output", "run", *POD, "--gpus", gpus)
        assert done.returncode == 0, done.stderr
        assert what in done.stderr


def test_a_job_is_refused_for_what_this_machine_can_tell(tmp_path: Path) -> None:
    """A folder without images, and one of other files; data elsewhere are only mentioned."""
    for name in ("junk", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("notes")
    for words, reason in (
        (("junk", "--output", "run"), "junk"),
        (("digits", "--output", "mine"), "mine: holds files"),
        (("digits", "--output", "run", "--max-error", "3"), "--max-error"),
        (("digits", "--output", "run", "--checkpoint-every", "x"), "--checkpoint-every"),
    ):
        for way in (SLURM, ("--rehearse", "2")):
            done = call("launch", *words, *way, cwd=tmp_path)
            assert (done.returncode in (1, 2), done.stdout) == (True, ""), done.stderr
            assert reason in done.stderr
            assert done.stderr.count("\n") == 1
    done = call("launch", "elsewhere", "--output", "run", "--rehearse", "2", cwd=tmp_path)
    assert (done.returncode, "elsewhere: no such" in done.stderr) == (2, True), done.stderr
    done = call("launch", "elsewhere", "--output", "run", *SLURM, cwd=tmp_path)
    assert (done.returncode, "elsewhere: not on this machine" in done.stderr) == (0, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_was_refused_is_not_tried_again_by_the_same_job(
    tmp_path: Path, tools: Callable[..., None]
) -> None:
    """By the next attempt of torchrun; a new job tries again, and so does one that only waited."""
    tools(
        scontrol=HOSTS,
        srun='shift 2; exec "$@"',
        torchrun='TORCHELASTIC_RUN_ID=r TORCHELASTIC_RESTART_COUNT=$ATTEMPT exec "${@: -3}"',
        python=f'{sys.executable} "$@"; code=$?; echo tried >> tried; exit $code',
    )
    words = ("digits", "--network", "resnet14", "--output", "run", "--device", "cuda:77")
    script = printed("slurm", "--gpus", 1, words=words)
    place = {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}

    def tried(attempt: int) -> tuple[int, int]:
        own = environment(tmp_path) | place | {"ATTEMPT": str(attempt)}
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=own, check=False)
        return done.returncode, (tmp_path / "tried").read_text().count("tried")

    assert [tried(0), tried(1), tried(2), tried(0)] == [(2, 1), (2, 1), (2, 1), (2, 2)]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    run = tmp_path_factory.mktemp("begun") / "run"
    done = call("train", *SHORT, "--output", run)
    assert done.returncode == 0, done.stderr
    return run


SHORT = ("digits", "--network", "resnet14", "--image-size", "8", "--steps", "2", "--no-report")


@pytest.fixture
def user(begun: Path) -> Iterator[int]:
    """The id of another process that uses the folder of the run."""
    program = "import sys; from pathlib import Path; from resnets.locks import lock; "
    program += "lock(Path(sys.argv[1])); print('here', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, begun], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate()


def test_a_run_in_use_is_refused_once_by_all_processes_together(
    begun: Path, user: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None takes another one for lost, and no advice is given that would fail again."""
    monkeypatch.setenv(MARK, str(tmp_path / "refused"))
    words = ("--resume", begun, *SHORT, "--output", begun)
    for run in (call, several):
        done = run("train", *words)
        assert done.returncode == 2, done.stderr
        line = done.stderr.strip().splitlines()[0].split("resnets train: ")[1]
        assert line.startswith(f"{begun}: in use by another process ({user} on ")
        assert f"kill {user}" in line
        assert not done.stderr.replace(f"resnets train: {line}", "").strip()
        assert (tmp_path / "refused").exists()  # so torchrun does not start it again
        (tmp_path / "refused").unlink()


def test_a_rehearsal_of_a_run_in_use_is_refused_before_it_starts(begun: Path, user: int) -> None:
    done = call("launch", *SHORT, "--output", begun, "--rehearse", 2)
    assert done.returncode == 2
    assert f"({user} on " in done.stderr


def test_what_an_earlier_attempt_of_the_job_still_uses_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK, str(tmp_path / "refused"))
    note_refusal(StillInUse("run: in use"))
    assert not (tmp_path / "refused").exists()
    note_refusal(FolderInUse("run: in use"))
    assert (tmp_path / "refused").exists()


def test_a_job_that_is_started_again_goes_on_by_the_same_words(begun: Path) -> None:
    done = call("train", "--resume", begun, *SHORT, "--output", begun)
    assert done.returncode == 0, done.stderr


def test_a_job_of_an_earlier_version_goes_on_with_its_run(begun: Path, tmp_path: Path) -> None:
    """The first version repeated no words, and later ones kept no digest of them in the run."""
    assert call("train", "--resume", begun).returncode == 0
    shutil.copytree(begun, tmp_path / "run")
    config = tmp_path / "run" / CONFIG
    lines = config.read_text("utf-8").splitlines(keepends=True)
    config.write_text("".join(line for line in lines if not line.startswith("asked =")), "utf-8")
    assert len(config.read_text("utf-8").splitlines()) == len(lines) - 1
    done = call("train", "--resume", config.parent, *SHORT, "--output", config.parent)
    assert done.returncode == 0, done.stderr


def test_what_other_words_changed_is_told_by_their_flags_alone(begun: Path) -> None:
    """Not what the run has chosen itself; in a job, and before one is printed."""
    words = ("other", *SHORT[1:], "--no-nesterov", "--label-smoothing", "0.3", "--output", begun)
    for done in (call("launch", *words, *SLURM), call("train", "--resume", begun, *words)):
        assert done.returncode == 2
        (inside,) = re.findall(r"other words began \((.*?)\)", done.stderr)
        parts = [part.partition(" is ")[0] for part in inside.split("; ")]
        assert parts == ["DATA", "--label-smoothing", "--nesterov"]
        assert "None" not in inside


def test_a_rehearsal_says_which_flags_of_a_job_it_takes_no_heed_of(tmp_path: Path) -> None:
    words = ("elsewhere", "--output", "run", "--rehearse", 1, "--nodes", 3, "--time-limit", "1h")
    done = call("launch", *words, cwd=tmp_path)
    assert done.returncode == 2  # for other reasons
    (line,) = [line for line in done.stderr.splitlines() if "--nodes" in line]
    assert "--time-limit" in line
    assert "--gpus" not in line


def test_an_image_of_a_container_is_told_where_it_has_no_effect_or_is_missing() -> None:
    for flags, is_told in (
        (("--on", "slurm"), False),
        (("--on", "slurm", "--image", "own"), True),
        (("--on", "kubernetes"), True),
        (("--on", "kubernetes", "--image", "own"), False),
    ):
        done = call("launch", *TRAIN, *flags, "--print")
        assert (done.returncode, "--image" in done.stderr) == (0, is_told)


@pytest.mark.parametrize(
    ("flags", "command"),
    [
        (("--on", "torchrun"), "torchrun --nproc-per-node"),
        (("--on=ray",), "predict MODEL IMAGES --on ray"),
    ],
)
def test_other_systems_are_answered_with_their_command(
    flags: tuple[str, ...], command: str
) -> None:
    done = call("launch", *TRAIN, *flags, "--print")
    assert (done.returncode, command in done.stderr) == (2, True)


def test_a_run_that_is_resumed_by_hand_goes_on_without_the_words_that_began_it(
    begun: Path,
) -> None:
    """By hand only what shall change is typed: nothing that is left out is compared."""
    for typed in (("photos",), ("photos", "--output", "run", "--epochs", "3")):
        assert repeated_words(["--resume", "run", *typed]) is None
    done = call("train", "--resume", begun, "--output", begun)
    assert done.returncode == 0, done.stderr


def test_another_output_beside_resume_is_refused(begun: Path, tmp_path: Path) -> None:
    done = call("train", "--resume", begun, *SHORT, "--output", tmp_path / "other")
    assert done.returncode == 2
    assert "stays in its folder" in done.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ("digits", "--network", "resnet20", *SHORT[3:]),
            "--network is resnet14 there, not resnet20",
        ),
        ((*SHORT[:-3], "--no-report"), "that other words began"),  # the run had --steps
        (("other", *SHORT[1:]), "DATA is digits there, not other"),
        ((*SHORT, "--recipe", "paper"), "--batch-size is 64 there, not 128"),
    ],
)
def test_a_job_does_not_go_on_with_the_run_of_other_words(
    words: tuple[str, ...], reason: str, begun: Path
) -> None:
    done = call("train", "--resume", begun, *words, "--output", begun)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "another --output" in done.stderr


@pytest.mark.soak
def test_a_rehearsal_that_is_refused_ends_with_the_reason_alone(tmp_path: Path) -> None:
    """For something that only the processes find out."""
    words = ("digits", "--network", "resnet14", "--output", "run", "--other", "missing")
    command = [sys.executable, "-m", "resnets", "launch", *words, "--rehearse", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.strip("* ")]
    lines = [line for line in lines if "OMP_NUM_THREADS" not in line]  # of torchrun itself
    assert "--steps" in lines.pop(0)  # how to make it shorter
    assert 1 <= len(lines) <= 2, done.stderr  # of each process; one may end before the other speaks
    assert all(line.startswith("resnets train:") and "missing" in line for line in lines)


@pytest.mark.slow
@pytest.mark.soak  # the signals below begin one in each run of the tests
def test_a_rehearsal_trains_in_two_processes_here(tmp_path: Path) -> None:
    words = ("digits", "--network", "resnet14", "--epochs", "1", "--image-size", "8", "--no-report")
    command = [sys.executable, "-m", "resnets", "launch", *words, "--output", "run"]
    done = subprocess.run(
        [*command, "--rehearse", "2"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert "32 images of each process" in done.stdout  # of 64 in a step


HEEDS_SIGNALS = (  # the tests may ignore them, as in the background and under nohup
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_a_rehearsal_saves_and_ends_its_processes(
    number: signal.Signals, tmp_path: Path
) -> None:
    """All of them: the pipe ends only when the last one has. SIGHUP is ignored, as by nohup."""
    words = ("digits", "--network", "resnet14", "--epochs", "60", "--image-size", "8")
    command = [sys.executable, "-m", "resnets", "launch", *words, "--no-report", "--output", "run"]
    keeps = ["/bin/sh", "-c", "trap '' HUP; exec \"$@\"", "-"] if number == signal.SIGTERM else []
    with subprocess.Popen(
        [sys.executable, "-c", HEEDS_SIGNALS, *keeps, *command, "--rehearse", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        while "epoch" not in process.stdout.readline():
            assert process.poll() is None
        if keeps:
            process.send_signal(signal.SIGHUP)
            assert "epoch" in process.stdout.readline()
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"Stopped by {number.name} and saved after step" in output
    assert "To continue: " in output
    assert list((tmp_path / "run" / "checkpoints").iterdir())
