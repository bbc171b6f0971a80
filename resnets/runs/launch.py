"""Training on many machines: what SLURM or Kubernetes needs to start it, and a rehearsal here.

On each machine torchrun starts one process for each GPU. Whatever starts the training again, be it
torchrun, SLURM or Kubernetes, runs the same words: a run that has begun is resumed.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from resnets.errors import UsageError
from resnets.json_text import to_json
from resnets.model_file import CONFIG

System = Literal["slurm", "kubernetes"]

_PORT = 29500  # of the rendezvous in a pod, where no other job is
_USER = 1000  # that of the Dockerfile
_SAVE_SECONDS = 120  # between the signal that saves a checkpoint and the end
_DATA = "/data"  # the working directory in a container
_APART = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"  # each attempt gets a store of its own
_SHARED_MIB = 2048  # shared memory of each process, through which its data workers send batches


@dataclass(frozen=True)
class Launch:
    """A training that is to be started on many machines.

    Attributes:
        words: of `resnets train`.
        folder: of the run, which every machine can reach.
        nodes: machines.
        gpus: of each machine, with a process each; 0: one process on the CPU.
        cpus: cores of each process.
        max_restarts: how often torchrun starts all processes again after one has died.
        minutes: time limit; None: that of the system.
        image: of the container.
    """

    words: Sequence[str]
    folder: Path
    nodes: int = 1
    gpus: int = 8
    cpus: int = 8
    max_restarts: int = 3
    minutes: int | None = None
    image: str = "resnets"

    def __post_init__(self) -> None:
        """Refuse what no system can run.

        Raises:
            UsageError: a number is too small, or a word has a line break.
        """
        for name, least in (("nodes", 1), ("gpus", 0), ("cpus", 1), ("max_restarts", 0)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {getattr(self, name)}: it must be at least {least}")
        if any("\n" in word for word in [*self.words, str(self.folder), self.image]):
            raise UsageError("a word has a line break; leave it out")

    @property
    def processes(self) -> int:
        """Of each machine."""
        return self.gpus or 1

    @property
    def name(self) -> str:
        """A name for the job, of small letters, digits and dashes (RFC 1123).

        The names of pods are longer and may have at most 63 characters.
        """
        word = re.sub("[^a-z0-9]+", "-", self.folder.name.lower()).strip("-")
        return f"resnets-{word}"[:40].rstrip("-")

    def worker(self, python: str = "python") -> str:
        """What each process runs, in the language of the shell: begin the run, or resume it.

        No process sees a run that another one has just begun: the first process writes the run's
        folder after all of them have met. Listing the folder first makes NFS look at the server.
        """
        folder, train = shlex.quote(str(self.folder)), [python, "-m", "resnets", "train"]
        resume = shlex.join([*train, "--resume", str(self.folder)])
        return (
            f"ls {folder} >/dev/null 2>&1; if [ -e {folder}/{CONFIG} ]; then exec {resume}; "
            f"else exec {shlex.join([*train, *self.words])}; fi"
        )

    def rehearsal(self, processes: int) -> list[str]:
        """The command that runs the same on this machine, as so many processes.

        Raises:
            UsageError: `processes` is less than 1.
        """
        if processes < 1:
            raise UsageError(f"--rehearse {processes}: it must be at least 1")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        flags = [f"--nproc-per-node={processes}", f"--max-restarts={self.max_restarts}"]
        return [*torchrun, *flags, "--no-python", "bash", "-c", self.worker(sys.executable)]


def launch_file(system: System, launch: Launch) -> str:
    """The text of a file for a system, with comments that say how to use it.

    Raises:
        UsageError: a time limit is given where the system has none.
    """
    if system == "slurm":
        return _slurm(launch)
    if launch.minutes is not None:
        raise UsageError("--time-limit is for slurm: a JobSet runs until it is finished")
    return _jobset(launch)


def _slurm(launch: Launch) -> str:
    """A batch script (sbatch(1), srun(1), scontrol(1)); torchrun finds the first node.

    sbatch's --signal reaches only this script (B:), so that it can queue the job again; srun does
    not take over --cpus-per-task from sbatch (since 22.05).
    """
    wanted = [
        f"--job-name={launch.name}",
        f"--nodes={launch.nodes}",
        "--ntasks-per-node=1",
        *([f"--gpus-per-node={launch.gpus}"] if launch.gpus else []),
        f"--cpus-per-task={launch.cpus * launch.processes}",
        *([f"--time={launch.minutes}"] if launch.minutes else []),
        "--output=%x-%j.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{_SAVE_SECONDS}",
    ]
    directives = "\n".join(f"#SBATCH {flag}" for flag in wanted)
    return f"""\
#!/usr/bin/env bash
# sbatch FILE, in the folder from which the paths below lead to data that every node can read.
# Partition, account and memory are your cluster's: add their #SBATCH lines.
{directives}
set -euo pipefail

# What each process runs: the job may be started again at any time, so a run is resumed.
RESNETS_WORKER=$(cat <<'END'
{launch.worker()}
END
)
# What each node runs. The first one hosts the rendezvous; its name need not be the one that
# `hostname` prints, so it is told that it is the host.
node=$(cat <<'END'
[ "$SLURM_NODEID" = 0 ] && host=1 || host=0
exec torchrun --nnodes="$SLURM_NNODES" --nproc-per-node={launch.processes} \\
  --max-restarts={launch.max_restarts} --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" \\
  --rdzv-endpoint="$RESNETS_RENDEZVOUS" --rdzv-conf="is_host=$host" \\
  --no-python bash -c "$RESNETS_WORKER"
END
)
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
RESNETS_RENDEZVOUS="${{hosts%%$'\\n'*}}:$((20000 + SLURM_JOB_ID % 10000))"
export RESNETS_WORKER RESNETS_RENDEZVOUS
export {_APART}=1 # else the others wait for a first node that is lost

# {_SAVE_SECONDS} seconds before the time is over: save a checkpoint, and queue the job again.
again=no
save_and_queue() {{
  again=yes
  kill -TERM "$step"
}}
trap save_and_queue USR1

srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" bash -c "$node" &
step=$!
code=0
wait "$step" || code=$?
if [ "$again" = yes ]; then
  wait "$step" || true # the signal ended the first wait
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def _jobset(launch: Launch) -> str:
    """A JobSet of Kubernetes (jobset.x-k8s.io/v1alpha2), whose pods have names in the DNS."""
    name = launch.name
    script = (
        '[ "$JOB_COMPLETION_INDEX" = 0 ] && host=1 || host=0; exec torchrun '
        f"--nnodes={launch.nodes} --nproc-per-node={launch.processes} "
        f"--max-restarts={launch.max_restarts} --rdzv-backend=c10d --rdzv-id={name} "
        f"--rdzv-endpoint={name}-node-0-0.{name}:{_PORT} --rdzv-conf=is_host=$host "
        '--no-python bash -c "$RESNETS_WORKER"'
    )
    gpus = f"\n                  nvidia.com/gpu: {launch.gpus}" if launch.gpus else ""
    limits = f"\n                limits:{gpus}" if gpus else ""
    return f"""\
# kubectl apply --filename FILE, in a cluster with JobSet (jobset.sigs.k8s.io), with the image of
# the Dockerfile in a registry of yours. The volume claim resnets-data (ReadWriteMany for several
# nodes) holds the data and the run; paths of the command lead from its root.
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
spec:
  failurePolicy:
    maxRestarts: {launch.max_restarts}
  replicatedJobs:
    - name: node
      replicas: 1
      template:
        spec:
          parallelism: {launch.nodes}
          completions: {launch.nodes}
          completionMode: Indexed
          backoffLimit: 0 # the JobSet starts all nodes again, not one
          template:
            spec:
              restartPolicy: Never
              automountServiceAccountToken: false
              terminationGracePeriodSeconds: {_SAVE_SECONDS} # to save a checkpoint
              securityContext:
                runAsNonRoot: true
                runAsUser: {_USER}
                runAsGroup: {_USER}
                fsGroup: {_USER}
                seccompProfile:
                  type: RuntimeDefault
              containers:
                - name: train
                  image: {to_json(launch.image)}
                  workingDir: {_DATA}
                  # flags come before PET_* variables, which Kubeflow sets for torchrun
                  command: ["bash", "-c", {to_json(script)}]
                  env:
                    - name: RESNETS_WORKER
                      value: {to_json(launch.worker().replace("$(", "$$("))}
                    - name: HOME
                      value: /tmp
                    - name: {_APART} # else the others wait for a first node that is lost
                      value: "1"
                  ports:
                    - containerPort: {_PORT}
                  resources:
                    requests:
                      cpu: {to_json(str(launch.cpus * launch.processes))}{_indented(limits)}
                  securityContext:
                    allowPrivilegeEscalation: false
                    readOnlyRootFilesystem: true
                    capabilities:
                      drop: ["ALL"]
                  volumeMounts:
                    - name: data
                      mountPath: {_DATA}
                    - name: temporary
                      mountPath: /tmp
                    - name: shared-memory
                      mountPath: /dev/shm
              volumes:
                - name: data
                  persistentVolumeClaim:
                    claimName: resnets-data
                - name: temporary
                  emptyDir: {{}}
                - name: shared-memory # 64 MiB otherwise, too little for data workers
                  emptyDir:
                    medium: Memory
                    sizeLimit: {_SHARED_MIB * launch.processes}Mi
"""


def _indented(lines: str) -> str:
    """Lines with four more spaces each."""
    return lines.replace("\n", "\n    ")
