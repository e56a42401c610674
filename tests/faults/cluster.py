"""Real psdb processes that form a cluster from one configuration file, each in its own network namespace or on loopback, and
with a disk of its own or a directory.

Used by the campaign. Nodes can join later, and leave: `nodes` are those that belong. Always holds: only processes that were
started here are stopped, by their ids.
"""

import os
import shutil
import signal
import subprocess
import time

from pymongo import MongoClient

START_PATIENCE_S = 60
DISK_RESERVE_BYTES = 16 << 20
CACHE_BYTES = 64 << 20
REPLICAS_MAX = 3


class Node:
    def __init__(self, number, host, port, peer_port, directory):
        self.number, self.host, self.port, self.peer_port = number, host, port, peer_port
        self.name = f"n{number}"
        self.directory = directory
        self.process = None
        self.log = None
        # Whether it is told where to join; else it knows that from the configuration file.
        self.joins = False


class Cluster:
    def __init__(self, program, directory, count, network=None, disks=None, routers=0, first_port=27501):
        """`routers` of the `count` nodes, the last ones, hold no data. Two clusters on loopback need ports 200 apart."""
        self.program, self.directory, self.network, self.disks = program, directory, network, disks
        self.first_port, self.storing = first_port, count - routers
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
        return Node(number, "127.0.0.1", self.first_port + number - 1, self.first_port + number + 99, directory)

    def write_config(self, count):
        lines = ["insecure = true", f"disk_reserve_bytes = {DISK_RESERVE_BYTES}", f"cache_bytes = {CACHE_BYTES}", "[cluster]"]
        lines += ['name = "faults"', f"replication_factor = {min(self.storing, REPLICAS_MAX)}"]
        for node in self.nodes:
            lines += ["[[nodes]]", f'name = "{node.name}"', f'listen = "{node.host}:{node.port}"']
            lines += [f'peer = "{node.host}:{node.peer_port}"', f'data = "{node.directory}"']
            if node.number > self.storing:
                lines.append('roles = ["router"]')
        with open(self.config, "w") as file:
            file.write("\n".join(lines) + "\n")

    def node(self, number):
        return next(node for node in self.nodes if node.number == number)

    def numbers(self):
        return [node.number for node in self.nodes]

    def replicas_wanted(self):
        return min(len(self.nodes), REPLICAS_MAX)

    def absent(self):
        """The lowest number that no node of the cluster has."""
        return next(number for number in range(1, len(self.nodes) + 2) if number not in self.numbers())

    def add(self, number):
        """Starts a further node, with nothing on its disk, that joins through any of the others."""
        node = self.plan(number)
        shutil.rmtree(node.directory, ignore_errors=True)
        node.joins = True
        self.nodes.append(node)
        self.start(number)

    def forget(self, number):
        """A node that was stopped and removed from the cluster."""
        self.nodes.remove(self.node(number))

    def start_words(self, node):
        if not node.joins:
            return [self.program, "start", "--config", self.config, "--node", node.name]
        words = [self.program, "start", "--name", node.name, "--data", node.directory, "--insecure"]
        words += ["--listen", f"{node.host}:{node.port}", "--peer-listen", f"{node.host}:{node.peer_port}"]
        words += ["--disk-reserve-bytes", str(DISK_RESERVE_BYTES), "--cache-bytes", str(CACHE_BYTES)]
        for other in self.nodes:
            if other is not node:
                words += ["--join", f"{other.host}:{other.peer_port}"]
        return words

    def start(self, number):
        node = self.node(number)
        words = self.start_words(node)
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
        return self.node(number).process.pid

    def signal(self, number, what):
        os.kill(self.pid(number), what)

    def kill(self, number):
        self.signal(number, signal.SIGKILL)
        self.node(number).process.wait()

    def stop(self, number):
        self.signal(number, signal.SIGTERM)
        code = self.node(number).process.wait(timeout=60)
        if code != 0:
            raise RuntimeError(f"n{number} stopped with {code}")

    def has_ended(self, number):
        return self.node(number).process.poll() is not None

    def log_bytes(self, number):
        return os.path.getsize(self.node(number).log.name)

    def log_since(self, number, position):
        with open(self.node(number).log.name, errors="replace") as log:
            log.seek(position)
            return log.read()

    def wipe(self, number):
        shutil.rmtree(self.node(number).directory)

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


def primaries(answer, namespace):
    """Of each shard of the collection that has a primary: its term, and the number in the name of its node."""
    found = {}
    for node, replica in replicas(answer):
        if replica.get("collection") == namespace and replica["role"] == "primary":
            found[replica["shard"]] = max(found.get(replica["shard"], (0, 0)), (replica["term"], int(node["name"][1:])))
    return found


def await_primaries(client, namespace):
    """The same, once every shard of the collection has one."""
    deadline = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < deadline:
        answer = status(client)
        found = primaries(answer, namespace)
        if found and all(shard["shard"] in found for shard in answer["shards"] if shard["collection"] == namespace):
            return found
        time.sleep(0.02)
    raise RuntimeError(f"{namespace} has no primary")


def primary_of(client, namespace):
    """The number of the node that has the primary of the collection's shard, or of the first that was made of several."""
    return min(await_primaries(client, namespace).items())[1][1]


def await_complete(client, count, patience_s=120):
    """Waits until every shard has `count` voters that have everything that its primary has, near enough."""
    deadline = time.monotonic() + patience_s
    answer = None
    while time.monotonic() < deadline:
        answer = status(client)
        if all(is_complete(answer, shard["shard"], count) for shard in answer["shards"]):
            return
        time.sleep(0.05)
    missing = [shard for shard in answer["shards"] if not is_complete(answer, shard["shard"], count)]
    raise RuntimeError(f"not complete with {count} replicas: {missing} of {answer}")


def is_complete(answer, shard, count):
    """Whether the shard's group is what the catalog has placed, with `count` voters. The catalog's own may have others beside."""
    placed = next(each for each in answer["shards"] if each["shard"] == shard)
    wanted = sorted(replica["replica"] for replica in placed["replicas"])
    for _, replica in replicas(answer):
        if replica["shard"] == shard and replica["role"] == "primary":
            members = replica["members"]
            return (sum(member["votes"] for member in members) == count
                    and (placed["collection"] is None or len(members) == count)
                    and sorted(member["replica"] for member in members) == wanted
                    and all(member["matched"] + 100 >= replica["committed"] for member in members))
    return False


def connect(uri, **options):
    return MongoClient(uri, serverSelectionTimeoutMS=60000, **options)
