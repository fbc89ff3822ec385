"""Bytes that leave an interface, beside the bytes of the frames that parties made, as their meters count them.

Server and client train in two processes over mutual TLS, in a network of their own where nothing else speaks; the
loopback interface's counters are read before they start and after they have ended, so handshakes, the words between
parties and host, signs of life, TLS, HTTP/2, TCP and IP are all in it. Frames of workload W (66 KB up, 65 KB down), of
1 MB and of 2 KB. Loopback carries packets of up to 64 KB; on Ethernet with its packets of 1,500 bytes TCP and IP add
52 bytes to every 1,448 that anybody sends, 3.6 %, which is not cutlayer's to spare.

Needs Linux and root (or `unshare` allowed to users), for the network of its own.

Ends with 1 if more than 1 % is over the frames of workload W.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import measuring
import network_pair

MAX_OVER = 0.01
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
HEADERS = 14 + 52  # of a packet on loopback: IPv4, TCP with time stamps, and the room for an Ethernet header


def loopback_up() -> None:
    """Switch the loopback interface of this network on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING))


def sent() -> tuple[int, int]:
    """Return bytes and packets that left the loopback interface."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8]), int(numbers.split()[9])
    raise SystemExit("no loopback interface")


def compare(work: str, epochs: int) -> measuring.Figures:
    """Train, and return the bytes of frames and of the interface."""
    with network_pair.keys() as keys:
        before = sent()
        told = network_pair.two_parties(work, keys, epochs)
        after = sent()
    traffic = [line for one in told.values() for line in one.all("frame_bytes")]
    # A party counts the frames that it makes itself.
    framed = sum(line["frame_bytes"] for line in traffic)
    frames = sum(line["calls"] for one in told.values() for line in one.all("op") if line["op"] == "send")
    tensors = sum(line["tensor_bytes"] for line in traffic)
    on_wire, packets = after[0] - before[0], after[1] - before[1]
    return {
        "frames": frames,
        "frame_bytes": framed,
        "tensor_bytes": tensors,
        "interface_bytes": on_wire,
        "packets": packets,
        "over_frames": on_wire / framed - 1,
        "over_frames_without_tcp_ip": (on_wire - HEADERS * packets) / framed - 1,
    }


def inside(quick: bool) -> None:
    """Measure in this network and print the figures."""
    loopback_up()
    figures = {}
    for work, epochs in ({"w": 2} if quick else {"w": 8, "wide": 4, "thin": 8}).items():
        found = figures[work] = compare(work, epochs)
        print(
            f"{work:6}{found['frame_bytes'] / found['frames']:9.0f} bytes a frame: "
            f"{100 * found['over_frames']:5.2f} % over, "
            f"{100 * found['over_frames_without_tcp_ip']:5.2f} % without TCP and IP",
            flush=True,
        )
    print(json.dumps(figures))


def failures(figures: measuring.Figures) -> measuring.Failures:
    """Return what is beyond its bar, in words."""
    over = figures["works"]["w"]["over_frames"]
    beyond = over > MAX_OVER and not figures["quick"]
    return [f"{100 * over:.2f} % over the frames, at most {100 * MAX_OVER:g} % is wanted"] if beyond else []


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = measuring.parser(__doc__)
    parser.add_argument(
        "--inside", action="store_true", help="measure in this network, which nobody else uses"
    )
    arguments = parser.parse_args()
    if arguments.inside:
        inside(arguments.quick)
        return 0
    if shutil.which("unshare") is None:
        return measuring.finish(
            "network_bytes", {"quick": arguments.quick}, ["unshare (util-linux) is needed"]
        )
    command = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    command += [sys.executable, __file__, "--inside", *(["--quick"] if arguments.quick else [])]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(last, end="", flush=True)
            last = line
    if process.returncode:
        return measuring.finish("network_bytes", {"quick": arguments.quick}, ["it could not be measured"])
    figures = json.loads(last)
    told = {"works": figures, "max_over_frames": MAX_OVER, "quick": arguments.quick}
    return measuring.finish("network_bytes", told, failures(told))


if __name__ == "__main__":
    sys.exit(main())
