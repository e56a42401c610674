"""Network namespaces, one for each node and one for the clients, on a bridge of their own.

Used by the faults. A fault of the network is a rule of iptables in the namespace of the node that shall not hear: it drops
what comes from another, so that one direction can be cut alone. Always holds: everything that was made is removed at the end,
and nothing outside these namespaces is touched.
"""

import subprocess

from system import need, run, unavailable

PREFIX = "10.213.7."
CLIENTS = 100


class Network:
    """Namespaces for nodes 1 to `count`, and one for the clients."""

    def __init__(self, count, tag):
        need(("ip", "iptables"), "iproute2 and iptables")
        self.tag = tag
        self.members = list(range(1, count + 1)) + [CLIENTS]
        try:
            self.build()
        except subprocess.CalledProcessError as error:
            self.remove()
            raise unavailable(error) from error

    def namespace(self, member):
        return f"psdb-{self.tag}-{member}"

    def address(self, member):
        return f"{PREFIX}{member}"

    def build(self):
        hub = f"psdb-{self.tag}-hub"
        run("ip", "netns", "add", hub)
        self.inside(hub, "ip", "link", "add", "hub", "type", "bridge")
        self.inside(hub, "ip", "link", "set", "hub", "up")
        for member in self.members:
            space = self.namespace(member)
            run("ip", "netns", "add", space)
            self.inside(hub, "ip", "link", "add", f"to{member}", "type", "veth", "peer", "name", "eth0", "netns", space)
            self.inside(hub, "ip", "link", "set", f"to{member}", "master", "hub", "up")
            self.inside(space, "ip", "addr", "add", f"{self.address(member)}/24", "dev", "eth0")
            self.inside(space, "ip", "link", "set", "eth0", "up")
            self.inside(space, "ip", "link", "set", "lo", "up")

    def inside(self, space, *words):
        return run("ip", "netns", "exec", space, *words)

    def command(self, member, words):
        """The words that run a command in a member's namespace."""
        return ["ip", "netns", "exec", self.namespace(member), *words]

    def deafen(self, member, speaker):
        """`member` hears nothing of `speaker` any more."""
        self.inside(self.namespace(member), "iptables", "-A", "INPUT", "-s", self.address(speaker), "-j", "DROP")

    def heal(self):
        for member in self.members:
            self.inside(self.namespace(member), "iptables", "-F", "INPUT")

    def remove(self):
        for member in self.members:
            run("ip", "netns", "del", self.namespace(member), check=False)
        run("ip", "netns", "del", f"psdb-{self.tag}-hub", check=False)
