"""A Kubernetes cluster of one node for a test, on a private host: the node's binfmt_misc is its own.

API server, controller manager, scheduler, kubelet and etcd are real, and so are containerd and runc.  There is no
network but between the node and its pods: images are imported.

In a user namespace a kubelet may not write some of the kernel's settings, so files that have the values which it wants
cover them.  /dev/null covers /dev/kmsg, where the kubelet looks for messages about memory.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from binfmtd.model.stand_in import is_stand_in
from support.cli import Result
from support.instance import CONTROL_FILES, MOUNT_POINT
from support.kubernetes_programs import PATH, PLUGINS
from support.private_host import HIERARCHIES, PrivateHost
from support.waiting import wait_until

ADDRESS = "10.99.0.1"
NODE = "node1"
PAUSE = "k8s.gcr.io/pause:3.2"
READY_SECONDS = 180
_SERVER = f"https://{ADDRESS}:6443"
_CONTAINERD = "/run/containerd/containerd.sock"
_ETCD = "http://127.0.0.1:2379"
_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")
_USERS = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}
# Pods have propagated mounts, which takes shared mounts on the node, as systemd makes them.
_PREPARE = f"""
set -e
mkdir -p /run/sysctl
cover() {{ echo "$2" >/run/sysctl/$1; mount --bind /run/sysctl/$1 /proc/sys/$(echo $1 | tr . /); }}
cover vm.overcommit_memory 1
cover kernel.panic 10
cover kernel.panic_on_oops 1
mount --bind /dev/null /dev/kmsg
mount --make-rshared /
ip link add kube0 type bridge
ip address add {ADDRESS}/24 dev kube0
ip link set kube0 up
ip route add default dev kube0
sysctl -qw net.ipv4.ip_forward=1
"""


class Cluster(PrivateHost):
    """One cluster, from its start to ``close``; ``directory`` has its files and logs, ``data`` containerd's images."""

    cgroups = HIERARCHIES
    groups = tuple((controller, name) for controller in _CONTROLLERS for name in ("kubepods", "k8s.io"))

    def __init__(self, directory: Path, programs: Path, data: Path) -> None:
        self._programs = programs
        self._data = data
        self._running: dict[str, subprocess.Popen[Any]] = {}
        data.mkdir(parents=True, exist_ok=True)
        super().__init__(directory, [data], mounted=False)  # a mount below another would keep the entries alive
        try:
            self._configure()
            prepared = self.run("sh", "-c", _PREPARE)
            assert prepared.status == 0, prepared.stderr
            self.mount()
            self._start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything, the node's containers with it."""
        super().close()
        for process in self._running.values():
            process.wait(60)

    # Programs

    def _start(self) -> None:
        self.start_node()
        self._begin("etcd", "etcd", f"--data-dir={self.directory}/etcd", f"--listen-client-urls={_ETCD}",
                    f"--advertise-client-urls={_ETCD}", "--listen-peer-urls=http://127.0.0.1:2380")  # fmt: skip
        keys = self.directory / "keys"
        self._begin(
            "apiserver",
            "kube-apiserver",
            f"--etcd-servers={_ETCD}",
            "--bind-address=0.0.0.0",
            f"--advertise-address={ADDRESS}",
            f"--cert-dir={self.directory}/apiserver",
            f"--token-auth-file={keys}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-cluster-ip-range=10.97.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={keys}/accounts.key",
            f"--service-account-signing-key-file={keys}/accounts.key",
            "--allow-privileged=true",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={keys}/client.crt",
            f"--kubelet-client-key={keys}/client.key",
        )
        wait_until(lambda: self.kubectl("get", "--raw=/readyz").status == 0, READY_SECONDS, "the API server")
        self._begin(
            "controller-manager",
            "kube-controller-manager",
            f"--kubeconfig={self.directory}/controller-manager.conf",
            f"--service-account-private-key-file={keys}/accounts.key",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            f"--cert-dir={self.directory}/controller-manager",
        )
        self._begin(
            "scheduler",
            "kube-scheduler",
            f"--kubeconfig={self.directory}/scheduler.conf",
            "--leader-elect=false",
            f"--cert-dir={self.directory}/scheduler",
        )
        ready = ["wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=5s"]
        wait_until(lambda: self.kubectl(*ready).status == 0, READY_SECONDS, "a ready node")
        account = ["get", "serviceaccount", "default"]
        wait_until(lambda: self.kubectl(*account).status == 0, READY_SECONDS, "the default service account")

    def _begin(self, name: str, program: str, *arguments: str) -> None:
        path = next(p for p in (self._programs / part / program for part in PATH) if p.exists())
        self._running[name] = self.start_logged(name, [str(path), *arguments])

    def _end(self, name: str) -> None:
        """End a program, as a service manager does; it runs below nsenter, which passes no signal on."""
        process = self._running.pop(name)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        subprocess.run(["kill", *children], check=True)
        process.wait(60)

    def start_node(self) -> None:
        """Start containerd and the kubelet."""
        command = ["containerd", f"--config={self.directory}/containerd.toml"]
        self._running["containerd"] = self.start_logged("containerd", command)
        wait_until(lambda: self.ctr("version").status == 0, READY_SECONDS, "containerd")
        self.start_kubelet()

    def start_kubelet(self) -> None:
        """Start the kubelet."""
        self._begin(
            "kubelet",
            "kubelet",
            f"--config={self.directory}/kubelet.json",
            f"--kubeconfig={self.directory}/kubelet.conf",
            "--container-runtime=remote",
            f"--container-runtime-endpoint=unix://{_CONTAINERD}",
            f"--image-service-endpoint=unix://{_CONTAINERD}",
            f"--root-dir={self.directory}/kubelet",
            f"--cert-dir={self.directory}/kubelet-certificates",
            f"--hostname-override={NODE}",
            f"--node-ip={ADDRESS}",
            "--v=2",
        )

    def stop_kubelet(self) -> None:
        """Stop the kubelet; its containers run on."""
        self._end("kubelet")

    def stop_containerd(self) -> None:
        """Stop containerd; its containers run on."""
        self._end("containerd")

    # Configuration

    def _configure(self) -> None:
        keys = self.directory / "keys"
        keys.mkdir()
        lines = [f'token-{name},{user},{name},"{group}"' for name, (user, group) in _USERS.items()]
        (keys / "tokens.csv").write_text("".join(f"{line}\n" for line in lines))
        openssl = ["openssl", "genrsa", "-out", str(keys / "accounts.key"), "2048"]
        subprocess.run(openssl, check=True, capture_output=True)
        openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "365"]
        openssl += ["-keyout", str(keys / "client.key"), "-out", str(keys / "client.crt")]
        openssl += ["-subj", "/CN=kubelet-client/O=system:masters"]
        subprocess.run(openssl, check=True, capture_output=True)
        for name in _USERS:
            self._write(f"{name}.conf", _kubeconfig(f"token-{name}"))
        self._write("kubelet.json", self._kubelet_config())
        (self.directory / "containerd.toml").write_text(self._containerd_config())
        (self.directory / "cni").mkdir()
        addresses = {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": "10.98.0.0/24"}]]}
        bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "ipam": addresses}
        self._write("cni/10-pods.conflist", {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]})

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        (self.directory / name).write_text(json.dumps(document))

    def _kubelet_config(self) -> dict[str, Any]:
        """Return a config that differs from the defaults only in what this machine needs."""
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "resolvConf": "/etc/resolv.conf",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "volumePluginDir": str(self.directory / "volume-plugins"),
        }

    def _containerd_config(self) -> str:
        return f"""
version = 2
root = "{self._data}"
state = "/run/containerd"
[grpc]
  address = "{_CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{self._programs / PLUGINS}"
    conf_dir = "{self.directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
[plugins."io.containerd.internal.v1.opt"]
  path = "{self._data}/opt"
"""

    # Commands

    def ctr(self, *arguments: str) -> Result:
        """Run containerd's own client, in the namespace of Kubernetes."""
        return self.run("ctr", f"--address={_CONTAINERD}", "--namespace=k8s.io", *arguments)

    def import_images(self, archive: Path) -> None:
        """Import what ``docker save`` has written."""
        done = self.ctr("image", "import", str(archive))
        assert done.status == 0, done.stderr

    def kubectl(self, *arguments: str, directory: Path | None = None) -> Result:
        """Run kubectl as the administrator, whatever its exit status."""
        return self.shell('exec kubectl "$@"', *arguments, directory=directory)

    def checked(self, *arguments: str, directory: Path | None = None) -> Result:
        """Run kubectl; AssertionError with its messages if it fails."""
        done = self.kubectl(*arguments, directory=directory)
        assert done.status == 0, f"kubectl {' '.join(arguments)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    def shell(self, script: str, *arguments: str, directory: Path | None = None) -> Result:
        """Run a script on the node, as its administrator."""
        path = ":".join([*(str(self._programs / part) for part in PATH), os.environ["PATH"], "/usr/sbin", "/sbin"])
        settings = [f"PATH={path}", f"KUBECONFIG={self.directory}/admin.conf"]
        return self.run("env", *settings, "sh", "-c", script, "sh", *arguments, directory=directory)

    def get(self, *arguments: str) -> Any:
        """Return an object of the API."""
        return json.loads(self.checked("get", *arguments, "--output=json").stdout)

    # The node

    def entries(self) -> set[str]:
        """Return the entries of the node's instance, without stand-ins; none if it is not mounted."""
        names = self.run("ls", MOUNT_POINT).stdout.split()
        return {name for name in names if name not in CONTROL_FILES and not is_stand_in(name)}

    def write(self, name: str, text: str) -> str:
        """Write to a file of the node's binfmt_misc, as its root; return the shell's message."""
        return self.run("sh", "-c", f"echo {text} >{MOUNT_POINT}/{name}").stderr

    def mount(self) -> None:
        """Mount binfmt_misc at its usual place."""
        done = self.run("mount", "-t", "binfmt_misc", "binfmt_misc", MOUNT_POINT)
        assert done.status == 0, done.stderr

    def unmount(self) -> None:
        """Unmount binfmt_misc from its usual place."""
        done = self.run("umount", MOUNT_POINT)
        assert done.status == 0, done.stderr

    def unmount_everywhere(self) -> None:
        """Unmount binfmt_misc from each place; the last unmount removes all entries."""
        while mount_points := self.mount_points():
            done = self.run("umount", mount_points[-1])
            assert done.status == 0, done.stderr

    def is_mounted(self) -> bool:
        """Return True if binfmt_misc is mounted at its usual place."""
        return MOUNT_POINT in self.mount_points()

    def mount_points(self) -> list[str]:
        """Return where the node has binfmt_misc mounted."""
        lines = self.run("cat", "/proc/self/mountinfo").stdout.splitlines()
        return [line.split()[4] for line in lines if " - binfmt_misc " in line]

    def clean(self) -> None:
        """Remove all of binfmtd from cluster and node, and mount an instance with no entries."""
        self.checked("uncordon", NODE)
        self.checked("delete", "jobs,pods", "--all", "--wait=true", "--timeout=120s")
        ours = ["--namespace=binfmtd", "--all", "--wait=true", "--timeout=120s"]
        self.checked("delete", "daemonsets,configmaps", *ours)
        self.checked("delete", "pods", *ours)
        self.unmount_everywhere()
        self.run("rm", "-rf", "/run/binfmtd", "/etc/kubernetes/node-feature-discovery")
        self.mount()
        self.write("status", "-1")


def _kubeconfig(token: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": _SERVER, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
