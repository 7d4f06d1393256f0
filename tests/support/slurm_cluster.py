"""A Slurm cluster of this machine alone, in a folder: slurmctld and a slurmd for each node, Debian's slurm-wlm.

What is put back into the queue waits there for two minutes. With less (AuthInfo=cred_expire) a late message to a node
that comes back has killed the step that was started there anew.
"""

import contextlib
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess

from tiny_study import wait_until

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
_DEADLINE = 60  # seconds


def missing():
    """Return why there can be no cluster here, "" if there can."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"needs {', '.join(lacking)} (Debian: slurm-wlm)" if lacking else ""


class Node:
    """A slurmd that believes to be a machine; whoever it runs is its descendant."""

    def __init__(self, name, folder, port):
        self.name = name
        self.port = port
        self._folder = folder
        self._process = None

    def start(self):
        command = ["slurmd", "-D", "-N", self.name, "-f", str(self._folder / "slurm.conf")]
        with open(self._folder / f"{self.name}.out", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def lose_power(self):
        """Kill everything on the node at once, first who could still tell the controller."""
        self._process.kill()
        self._process.wait()
        parents = _parents()
        tasks = [pid for pid in parents if f"SLURMD_NODENAME={self.name}" in _environment(pid)]
        keepers = {parents[pid] for pid in tasks if _name(parents[pid]).startswith("slurmstepd")}
        for pid in (*keepers, *tasks):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def unplug(self):
        """Kill slurmd alone: for the cluster the node is down, but what runs there goes on."""
        self._process.kill()
        self._process.wait()

    def stop(self):
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(_DEADLINE)


def _parents():
    """{process: its parent} of this machine."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found[int(pid)] = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def _environment(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return []


def _name(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text()
    return ""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def slurm_cluster(folder, nodes=2):
    """A running cluster, as {name: Node}; commands find it by SLURM_CONF in os.environ."""
    controller, *ports = free_ports(1 + nodes)
    machines = {f"node{i}": Node(f"node{i}", folder, port) for i, port in enumerate(ports)}
    host = socket.gethostname()
    lines = [
        "ClusterName=kseg",
        f"SlurmctldHost={host}(127.0.0.1)",
        f"SlurmctldPort={controller}",
        f"SlurmUser={getpass.getuser()}",
        f"SlurmdUser={getpass.getuser()}",
        # No munge: nobody else is on this cluster.
        "AuthType=auth/none",
        "CredType=cred/none",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/%n.pid",
        f"SlurmctldLogFile={folder}/slurmctld.log",
        f"SlurmdLogFile={folder}/%n.log",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "MpiDefault=none",
        "SwitchType=switch/none",
        "ReturnToService=2",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        # Quick: a node that is silent for ten seconds is down.
        "SlurmdTimeout=10",
        "KillWait=30",
        "SchedulerParameters=sched_interval=2,bf_interval=2,requeue_delay=1",
        *(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={node.port} CPUs=1 State=UNKNOWN"
            for name, node in machines.items()
        ),
        f"PartitionName=streets Nodes={','.join(machines)} Default=YES MaxTime=INFINITE State=UP",
    ]
    for name in ("state", *(f"spool-{name}" for name in machines)):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text("\n".join(lines) + "\n")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    with open(folder / "slurmctld.out", "ab") as log:
        master = subprocess.Popen(["slurmctld", "-D", "-f", str(folder / "slurm.conf")], stdout=log, stderr=log)
    try:
        for node in machines.values():
            node.start()
        wait_until(lambda: len(idle()) == nodes, f"{nodes} idle nodes; see {folder}")
        yield machines
    finally:
        subprocess.run(["scancel", "--user", getpass.getuser()], check=False)
        for node in machines.values():
            node.stop()
        master.terminate()
        master.wait(_DEADLINE)
        own = f"SLURM_CONF={folder / 'slurm.conf'}"
        for pid in _parents():  # steps of a node that was unplugged have nobody to end them
            if own in _environment(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before


def idle():
    done = subprocess.run(["sinfo", "-h", "-N", "-o", "%N %t"], capture_output=True, text=True, check=False)
    return [line.split()[0] for line in done.stdout.splitlines() if line.split()[1] == "idle"]
