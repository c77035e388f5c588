# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces with one cable between them, and what can happen to it, by nft."""

import os

from lab import Skip


class Network:
    """net.names[0] has net.addresses[0]; what side 0 sends, side 1 may not hear (`deafen`)."""

    def __init__(self, lab):
        self.lab = lab
        tag = f"{os.getpid():x}"
        self.names = [f"hf{tag}a", f"hf{tag}b"]
        self.addresses = ["10.93.7.1", "10.93.7.2"]
        links = [f"hf{tag}x", f"hf{tag}y"]
        if os.geteuid() != 0:
            raise Skip("network namespaces need root")
        for name in self.names:
            if lab.run("ip", "netns", "add", name, ok=None).returncode != 0:
                raise Skip("network namespaces cannot be made here")
            lab.later(lab.run, "ip", "netns", "del", name)
        lab.run("ip", "link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for side in range(2):
            lab.run("ip", "link", "set", links[side], "netns", self.names[side])
            self.inside(side, "ip", "address", "add", f"{self.addresses[side]}/30", "dev", links[side])
            self.inside(side, "ip", "link", "set", links[side], "up")
            self.inside(side, "ip", "link", "set", "lo", "up")
            self.inside(side, "nft", "add", "table", "inet", "hf")
            done = self.inside(
                side, "nft", "add chain inet hf in { type filter hook input priority 0; policy accept; }", ok=None
            )
            if done.returncode != 0:
                raise Skip(f"nft does not work here: {done.stderr.strip()}")

    def prefix(self, side):
        return ["ip", "netns", "exec", self.names[side]]

    def inside(self, side, *command, ok=(0,)):
        return self.lab.run(*self.prefix(side), *command, ok=ok)

    def deafen(self, side):
        """Nothing from the other side arrives any more; nothing says so."""
        self.inside(side, "nft", "add", "rule", "inet", "hf", "in", "ip", "saddr",
                    self.addresses[1 - side], "drop")

    def cut(self):
        self.deafen(0)
        self.deafen(1)

    def heal(self):
        for side in range(2):
            self.inside(side, "nft", "flush", "chain", "inet", "hf", "in")
