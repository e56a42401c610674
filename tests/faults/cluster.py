"""Real psdb processes that form a cluster from one configuration file, each in its own network namespace or on loopback, and
with a disk of its own or a directory.

Used by the campaign. Always holds: only processes that were started here are stopped, by their ids.
"""

import os
import shutil
import signal
import subprocess
import time

from pymongo import MongoClient

START_PATIENCE_S = 60
DISK_RESERVE_BYTES = 16 << 20


class Node:
    def __init__(self, number, host, port, peer_port, directory):
        self.number, self.host, self.port, self.peer_port = number, host, port, peer_port
        self.name = f"n{number}"
        self.directory = directory
        self.process = None
        self.log = None


class Cluster:
    def __init__(self, program, directory, count, network=None, disks=None):
        self.program, self.directory, self.network, self.disks = program, directory, network, disks
        self.nodes = [self.plan(number) for number in range(1, count + 1)]
        self.config = os.path.join(directory, "psdb.toml")
        self.write_config(count)

    def plan(self, number):
        directory = os.path.join(self.directory, f"n{number}")
        if self.disks:
            # A directory of its own, so that it can be removed where a disk is mounted.
            directory = os.path.join(self.disks.path(number), "data")
        if self.network:
            return Node(number, self.network.address(number), 27017, 27117, directory)
        return Node(number, "127.0.0.1", 27500 + number, 27600 + number, directory)

    def write_config(self, count):
        lines = ["insecure = true", f"disk_reserve_bytes = {DISK_RESERVE_BYTES}", "cache_bytes = 67108864", "[cluster]"]
        lines += ['name = "faults"', f"replication_factor = {min(count, 3)}"]
        for node in self.nodes:
            lines += ["[[nodes]]", f'name = "{node.name}"', f'listen = "{node.host}:{node.port}"']
            lines += [f'peer = "{node.host}:{node.peer_port}"', f'data = "{node.directory}"']
        with open(self.config, "w") as file:
            file.write("\n".join(lines) + "\n")

    def start(self, number):
        node = self.nodes[number - 1]
        words = [self.program, "start", "--config", self.config, "--node", node.name]
        if self.network:
            words = self.network.command(number, words)
        node.log = open(os.path.join(self.directory, f"{node.name}.log"), "a")
        node.process = subprocess.Popen(words, stdout=node.log, stderr=node.log, stdin=subprocess.DEVNULL)

    def start_all(self):
        for node in self.nodes:
            self.start(node.number)

    def uri(self, numbers=None):
        chosen = [node for node in self.nodes if numbers is None or node.number in numbers]
        return "mongodb://" + ",".join(f"{node.host}:{node.port}" for node in chosen) + "/"

    def pid(self, number):
        # `ip netns exec` becomes the program it runs: the process is psdb itself.
        return self.nodes[number - 1].process.pid

    def signal(self, number, what):
        os.kill(self.pid(number), what)

    def kill(self, number):
        self.signal(number, signal.SIGKILL)
        self.nodes[number - 1].process.wait()

    def stop(self, number):
        self.signal(number, signal.SIGTERM)
        code = self.nodes[number - 1].process.wait(timeout=60)
        if code != 0:
            raise RuntimeError(f"n{number} stopped with {code}")

    def has_ended(self, number):
        return self.nodes[number - 1].process.poll() is not None

    def log_bytes(self, number):
        return os.path.getsize(self.nodes[number - 1].log.name)

    def log_since(self, number, position):
        with open(self.nodes[number - 1].log.name, errors="replace") as log:
            log.seek(position)
            return log.read()

    def wipe(self, number):
        shutil.rmtree(self.nodes[number - 1].directory)

    def stop_all(self):
        for node in self.nodes:
            if node.process and node.process.poll() is None:
                os.kill(node.process.pid, signal.SIGCONT)
                node.process.terminate()
        for node in self.nodes:
            if node.process:
                node.process.wait(timeout=60)


def status(client):
    return client.admin.command("psdbStatus")


def replicas(answer):
    for node in answer["nodes"]:
        for replica in node.get("replicas", []):
            yield node, replica


def primary_of(client, namespace):
    """The number in the name of the node that has the primary of the collection's shard, once there is one."""
    deadline = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < deadline:
        found = [(replica["term"], node["name"]) for node, replica in replicas(status(client))
                 if replica.get("collection") == namespace and replica["role"] == "primary"]
        if found:
            return int(max(found)[1][1:])
        time.sleep(0.02)
    raise RuntimeError(f"{namespace} has no primary")


def await_complete(client, count, patience_s=120):
    """Waits until every shard has `count` voters that have everything that its primary has, near enough."""
    deadline = time.monotonic() + patience_s
    answer = None
    while time.monotonic() < deadline:
        answer = status(client)
        if all(is_complete(answer, shard["shard"], count) for shard in answer["shards"]):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the replicas are not complete: {answer}")


def is_complete(answer, shard, count):
    for _, replica in replicas(answer):
        if replica["shard"] == shard and replica["role"] == "primary":
            members = replica["members"]
            return (sum(member["votes"] for member in members) == count == len(members)
                    and all(member["matched"] + 100 >= replica["committed"] for member in members))
    return False


def connect(uri, **options):
    return MongoClient(uri, serverSelectionTimeoutMS=60000, **options)
