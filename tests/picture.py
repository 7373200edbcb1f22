"""Draws .assets/first-run.svg, the README's picture of a first run, from what
stigmer really prints on a terminal. Usage: python3 tests/picture.py STIGMER MIRROR"""

import functools
import html
import http.server
import os
import pathlib
import pty
import re
import select
import signal
import socket
import sys
import tempfile
import threading
import time

COLOURS = {"31": "#f47067", "32": "#57ab5a", "33": "#c69026", "36": "#39c5cf"}
LINE_HEIGHT, MARGIN, WIDTH = 22, 24, 760
LIMIT_SECONDS = 120
# As it is where the default ports are free.
PORT, UI_PORT = 7233, 8233


def record(stigmer: str, mirror: str) -> str:
    """Runs `stigmer local start` in an empty home until it is ready, then stops it."""
    with tempfile.TemporaryDirectory() as home:
        port, ui_port = free_ports()
        environment = {"HOME": home, "PATH": os.defpath, "TERM": "xterm", "LANG": "C.UTF-8",
                       "STIGMER_TEMPORAL_MIRROR": mirror, "STIGMER_TEMPORAL_PORT": port,
                       "STIGMER_TEMPORAL_UI_PORT": ui_port}
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(stigmer, ["stigmer", "local", "start"], environment)
        output, deadline, asked = b"", time.monotonic() + LIMIT_SECONDS, False
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 1)[0]:
                try:
                    chunk = os.read(terminal, 4096)
                except OSError:  # the other side is closed: it has ended
                    break
                if not chunk:
                    break
                output += chunk
            if not asked and b"Daemon Ready" in output:
                os.kill(pid, signal.SIGINT)
                asked = True
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status != 0 or not asked:
            sys.exit(f"picture: stigmer exited {status}:\n{output.decode(errors='replace')}")
        return output.decode().replace(f":{ui_port}", f":{UI_PORT}").replace(f":{port}", f":{PORT}")


class Releases(http.server.SimpleHTTPRequestHandler):
    """The mirror's directory over HTTP: a first run downloads."""

    def log_message(self, *_):
        pass


def served(mirror: str) -> str:
    """The address at which the directory is served until this process ends."""
    handler = functools.partial(Releases, directory=mirror)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def free_ports() -> list[str]:
    with socket.socket() as first, socket.socket() as second:
        sockets = [first, second]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]


def screen(output: str) -> list[str]:
    """The lines that remain, without what was redrawn in place. The PID is always
    the same, so that the picture changes only when the words do."""
    lines = [re.split(r"\r\x1b\[K|\r", line.rstrip("\r"))[-1] for line in output.split("\n")]
    return [re.sub(r"PID: \d+", "PID: 19918", line) for line in lines if line]


def draw(lines: list[str]) -> str:
    height = 2 * MARGIN + LINE_HEIGHT * (len(lines) + 1)
    rows = ['<tspan fill="#768390">$ </tspan>stigmer local start']
    for line in lines:
        row = ""
        for index, part in enumerate(re.split(r"\x1b\[(\d+)m", line)):
            if index % 2 == 0:
                row += html.escape(part)
            elif part in COLOURS:
                row += f'<tspan fill="{COLOURS[part]}">'
            else:
                row += "</tspan>"
        rows.append(row)
    text = "\n".join(f'<text x="{MARGIN}" y="{MARGIN + LINE_HEIGHT * (number + 1) - 6}">{row}</text>'
                     for number, row in enumerate(rows))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" role="img" '
            f'aria-label="A first run of stigmer local start">\n'
            f'<rect width="100%" height="100%" rx="8" fill="#1c2128"/>\n'
            f'<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" fill="#adbac7" '
            f'xml:space="preserve">\n{text}\n</g>\n</svg>\n')


if __name__ == "__main__":
    target = pathlib.Path(__file__).resolve().parent.parent / ".assets" / "first-run.svg"
    target.write_text(draw(screen(record(os.path.abspath(sys.argv[1]), served(os.path.abspath(sys.argv[2]))))))
    print(f"{target.name}: {target.stat().st_size} bytes")
