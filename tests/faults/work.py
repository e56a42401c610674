"""Work that an administrator does on a cluster: shards are split, merged and moved, and nodes are added and drained.

Used by the campaign, which lets a fault happen in the middle of it. A kind of work is a class: `prepare` brings the cluster to
where the work can begin, without a fault; `state` says how far the work is; `ask` does the next step of it, and may fail; `undo`
leaves as many nodes as there were. Always holds: nothing is asked for before it was looked whether it has been done.
"""

import threading
import time

from pymongo.errors import OperationFailure, PyMongoError

from cluster import await_complete, await_primaries, connect, primaries, status
from shards import chunks, cut_evenly, held_by, is_resharding, placed_on

PATIENCE_S = 180
# A request that takes longer is given up and looked after.
REQUEST_S = 10
POLL_S = 0.1
NODE_NOT_FOUND = 74
IDLE, BUSY, DONE = "idle", "busy", "done"


class Work:
    """What all kinds have in common. `shard` is the one that is concerned, `usual_s` how long the work takes, roughly."""

    needs_node = False
    usual_s = 0.5

    def __init__(self, cluster, namespace, draw):
        self.cluster, self.namespace, self.draw = cluster, namespace, draw
        # Requests go to every router, that of the faulted node too: then they fail, or are not answered.
        self.client = patient(cluster)
        self.healed = threading.Event()
        self.took_s, self.refusals, self.shard, self.failure = 0, [], None, None

    def prepare(self):
        """Chooses a shard of equal ones, where nothing else is to be done."""
        cut_evenly(self.client, self.namespace)
        self.chunk = self.draw.choice(chunks(self.client, self.namespace))
        self.shard = self.chunk["psdbShard"]

    def state(self):
        raise NotImplementedError

    def ask(self):
        raise NotImplementedError

    def undo(self):
        """Nothing, for most."""

    def carry_out(self):
        """All of the work, as often as it takes; what it met and how long it took is noted."""
        began = time.monotonic()
        try:
            while (state := self.look()) != DONE:
                if time.monotonic() - began > PATIENCE_S:
                    raise RuntimeError(f"not done after {PATIENCE_S} s: {self.refusals[-3:]}")
                if state == IDLE:
                    self.step()
                time.sleep(POLL_S)
        except Exception as error:  # Whatever it is, the round is to tell it.
            self.failure = repr(error)
        self.took_s = time.monotonic() - began

    def look(self):
        try:
            return self.state()
        except PyMongoError as error:
            self.refusals.append(f"look: {error}"[:300])
            return BUSY

    def step(self):
        try:
            self.ask()
        except PyMongoError as error:
            self.refusals.append(f"{type(error).__name__}: {error}"[:300])

    def cut_state(self, gone):
        """How far a cut is after which these shards are gone."""
        if is_resharding(self.client, self.namespace):
            return BUSY
        return IDLE if gone <= {chunk["psdbShard"] for chunk in chunks(self.client, self.namespace)} else DONE


class Split(Work):
    """A shard becomes two."""

    def state(self):
        return self.cut_state({self.shard})

    def ask(self):
        self.client.admin.command({"split": self.namespace, "bounds": [self.chunk["min"], self.chunk["max"]]})


class Merge(Work):
    """Two neighbours become one shard."""

    def prepare(self):
        cut_evenly(self.client, self.namespace)
        found = chunks(self.client, self.namespace)
        first = self.draw.randrange(len(found) - 1)
        self.both = found[first:first + 2]
        self.shard = self.draw.choice(self.both)["psdbShard"]

    def state(self):
        return self.cut_state({chunk["psdbShard"] for chunk in self.both})

    def ask(self):
        bounds = [self.both[0]["min"], self.both[1]["max"]]
        self.client.admin.command({"mergeChunks": self.namespace, "bounds": bounds})


class Move(Work):
    """A shard's primary goes to another node; with it a replica, where there are more nodes than replicas of a shard."""

    usual_s = 0.2

    def prepare(self):
        super().prepare()
        self.to, self.is_answered = None, False

    def state(self):
        # The balancer may take it back later.
        primary = primaries(status(self.client), self.namespace).get(self.shard, (0, 0))[1]
        return DONE if self.is_answered or primary == self.to else IDLE

    def ask(self):
        if self.to is None:
            # Not earlier: until now the balancer may have moved it.
            primary = await_primaries(self.client, self.namespace)[self.shard][1]
            self.to = self.draw.choice([number for number in self.cluster.numbers() if number != primary])
        command = {"moveChunk": self.namespace, "bounds": [self.chunk["min"], self.chunk["max"]], "to": f"n{self.to}"}
        self.client.admin.command(command)
        self.is_answered = True


class Add(Work):
    """A node joins, and gets replicas of its own."""

    needs_node = True
    usual_s = 3

    def prepare(self):
        super().prepare()
        self.number, self.is_started = self.cluster.absent(), False

    def state(self):
        if not self.is_started:
            return IDLE
        answer = status(self.client)
        there = [node for node in answer["nodes"] if node["name"] == f"n{self.number}" and node["health"] == "up"]
        return DONE if there and held_by(answer, f"n{self.number}", self.namespace) else BUSY

    def ask(self):
        self.is_started = True
        self.cluster.add(self.number)

    def undo(self):
        """The node that was added is drained, without a fault."""
        leaves = Drain(self.cluster, self.namespace, self.draw, self.number)
        leaves.healed.set()
        leaves.carry_out()
        leaves.client.close()
        if leaves.failure:
            raise RuntimeError(f"n{self.number} cannot be drained: {leaves.failure}")


class Drain(Work):
    """A node is drained, stopped, and removed."""

    needs_node = True
    usual_s = 3

    def __init__(self, cluster, namespace, draw, number=None):
        super().__init__(cluster, namespace, draw)
        self.number, self.is_asked, self.is_stopped = number, False, False

    def prepare(self):
        """A further node joins, without a fault, and one of all is chosen."""
        comes = Add(self.cluster, self.namespace, self.draw)
        comes.prepare()
        comes.carry_out()
        comes.client.close()
        if comes.failure:
            raise RuntimeError(f"n{comes.number} cannot be added: {comes.failure}")
        await_complete(self.client, self.cluster.replicas_wanted())
        super().prepare()
        self.number = self.draw.choice(self.cluster.numbers())

    def state(self):
        if not self.is_asked:
            return IDLE
        try:
            progress = self.client.admin.command({"psdbNode": 1, "progress": f"n{self.number}"})
        except OperationFailure as error:
            if error.code == NODE_NOT_FOUND and self.is_stopped:
                self.cluster.forget(self.number)
                return DONE
            raise
        if progress["state"] == "removed":
            self.cluster.forget(self.number)
            return DONE
        if progress["state"] == "inUse":
            return IDLE
        is_empty = progress["replicas"] == 0 and not progress["votesInCatalog"]
        # Whoever was told by a fault to look for another router shall not meet a second node that goes.
        return IDLE if is_empty and self.healed.is_set() else BUSY

    def ask(self):
        if not self.is_asked or self.progress_state() == "inUse":
            self.client.admin.command({"psdbNode": 1, "drain": f"n{self.number}"})
            self.is_asked = True
            return
        if not self.is_stopped:
            others = [number for number in self.cluster.numbers() if number != self.number]
            self.client = patient(self.cluster, others)
            if placed := placed_on(status(self.client), f"n{self.number}"):
                raise RuntimeError(f"n{self.number} is said to be empty, and {placed} replicas are placed on it")
            self.cluster.stop(self.number)
            self.is_stopped = True
        self.client.admin.command({"psdbNode": 1, "remove": f"n{self.number}"})

    def progress_state(self):
        return self.client.admin.command({"psdbNode": 1, "progress": f"n{self.number}"})["state"]


def patient(cluster, numbers=None):
    """A client whose requests end after a while in any case."""
    return connect(cluster.uri(numbers), socketTimeoutMS=REQUEST_S * 1000, connectTimeoutMS=2000, retryReads=True)


KINDS = (Split, Merge, Move, Add, Drain)
