"""A switch in user space: forwards Ethernet frames between the ends of veth pairs, and loses some on request.

For kernels without netem or netfilter. Run it inside the switch's own network namespace; each line on stdin is a rule:
{"port": 1, "from": 0.3, "to": 1.0} loses 30 % of what host 1 sends and all that it should get.

PACKET_VNET_HDR carries checksum and segmentation offload through, so that frames are large and the sums are right.
"""

import contextlib
import json
import os
import random
import selectors
import socket
import sys

_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING, _ALL_PROTOCOLS = 263, 15, 23, 0x0003
_HEADER = 10
_BURST = 64


def open_port(name: str) -> socket.socket:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    port.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    port.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
    port.bind((name, _ALL_PROTOCOLS))
    port.setblocking(False)
    return port


def main(names: list[str]) -> None:
    ports = [open_port(name) for name in names]
    lost = [{"from": 0.0, "to": 0.0} for _ in ports]
    places: dict[bytes, int] = {}
    chance = random.Random(0)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
    for index, port in enumerate(ports):
        selector.register(port, selectors.EVENT_READ, index)

    def send(frame: bytes, target: int) -> None:
        if chance.random() < lost[target]["to"]:
            return
        with contextlib.suppress(OSError):  # the buffer is full or the other end is gone: lost, as on any network
            ports[target].send(frame)

    def forward(source: int) -> None:
        for _ in range(_BURST):
            try:
                frame = ports[source].recv(1 << 17)
            except OSError:
                return
            destination, origin = frame[_HEADER : _HEADER + 6], frame[_HEADER + 6 : _HEADER + 12]
            places[origin] = source
            if chance.random() < lost[source]["from"]:
                continue
            if destination in places:
                send(frame, places[destination])
            else:
                for target in range(len(ports)):
                    if target != source:
                        send(frame, target)

    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                forward(key.data)
                continue
            lines = os.read(key.fd, 1 << 16)
            if not lines:
                return
            for line in lines.splitlines():
                rule = json.loads(line)
                lost[rule["port"]] = {"from": rule["from"], "to": rule["to"]}
            print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
