#!/usr/bin/env python3
"""CPU time per request of the production-stack front end, and of the original if there is one.

One core has the router, another wrk and an nginx with a fixed answer; the router's CPU time comes from /proc. Rounds
alternate between the routers, so that whatever else the machine does hits all of them.

    tools/stack_cost.py target/release/ringway
    tools/stack_cost.py target/release/ringway --original 'venv/bin/python -m vllm_router.app'

Needs wrk and nginx (Debian's will do), and haproxy if it is to be measured as well.
"""

import argparse
import json
import os
import pathlib
import shlex
import shutil
import socket
import subprocess
import tempfile
import time

ANSWER = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
})
ENGINE, ROUTER = 29101, 29102
WORKS = {
    # Connections, and the characters of the prompt.
    "short chat": (32, 60),
    "211 KB chat": (16, 210_600),
}
NGINX = """
worker_processes 1; daemon off; pid %(dir)s/pid; error_log /dev/null;
events { worker_connections 1024; }
http { access_log off; client_max_body_size 10m; client_body_buffer_size 1m; keepalive_requests 100000000;
  client_body_temp_path %(dir)s; proxy_temp_path %(dir)s; fastcgi_temp_path %(dir)s; uwsgi_temp_path %(dir)s;
  scgi_temp_path %(dir)s;
  server { listen 127.0.0.1:%(port)d; location / { default_type application/json; return 200 '%(answer)s'; } } }
"""
HAPROXY = """
global
  nbthread 1
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
listen all
  bind 127.0.0.1:%d
  http-reuse always
  server engine 127.0.0.1:%d
"""


def routers(args, folder):
    stack = ["--host", "127.0.0.1", "--port", ROUTER, "--service-discovery", "static", "--static-models", "m",
             "--static-backends", f"http://127.0.0.1:{ENGINE}"]
    for logic in ("roundrobin", "prefixaware"):
        flags = [*stack, "--routing-logic", logic]
        yield f"ringway {logic}", [args.binary, *flags, "--shards", 1, "--cpu-affinity", args.cpu]
        if args.original:
            yield f"original {logic}", [*shlex.split(args.original), *flags]
    if shutil.which("haproxy"):
        config = folder / "haproxy.cfg"
        config.write_text(HAPROXY % (ROUTER, ENGINE))
        yield "haproxy", ["haproxy", "-db", "-f", config]


def start(command, cpu, port, folder):
    words = ["taskset", "-c", str(cpu), *(str(word) for word in command)]
    log = open(folder / "log", "wb")
    process = subprocess.Popen(words, stdout=log, stderr=log)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return process
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.05)
    process.kill()
    raise SystemExit(f"{words}: {(folder / 'log').read_text()[-500:]}")


def cpu_s(process):
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(process, connections, script, seconds, cpu):
    before = cpu_s(process)
    words = ["taskset", "-c", str(cpu), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script),
             f"http://127.0.0.1:{ROUTER}/v1/chat/completions"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    requests = int(next(line for line in said.splitlines() if "requests in" in line).split()[0])
    bad = [line.strip() for line in said.splitlines() if "Non-2xx" in line or "Socket errors" in line]
    return (cpu_s(process) - before) / requests * 1e6, requests / seconds, bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--original", help="command that starts the original, without flags")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--cpu", type=int, default=1, help="the router's; everything else has CPU 0")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "nginx.conf").write_text(NGINX % {"dir": folder, "port": ENGINE, "answer": ANSWER})
        scripts = {}
        for work, (connections, characters) in WORKS.items():
            text = ("The quick brown fox jumps over the lazy dog. " * (characters // 45 + 1))[:characters]
            body = folder / f"{characters}.json"
            body.write_text(json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}))
            scripts[work] = folder / f"{characters}.lua"
            scripts[work].write_text(f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
                                     f'wrk.body = io.open("{body}"):read("*a")\n')
        engine = start(["nginx", "-c", folder / "nginx.conf"], 0, ENGINE, folder)
        try:
            for number in range(args.rounds):
                for name, command in routers(args, folder):
                    router = start(command, args.cpu, ROUTER, folder)
                    try:
                        time.sleep(1)
                        for work, (connections, _) in WORKS.items():
                            measure(router, connections, scripts[work], 1, 0)
                            us, rate, bad = measure(router, connections, scripts[work], args.seconds, 0)
                            print(f"{number + 1}  {name:22} {work:12} {us:8.1f} us  {rate:9,.0f}/s  {' '.join(bad)}"
                                  f"  load {os.getloadavg()[0]:.1f}", flush=True)
                    finally:
                        router.terminate()
                        router.wait(30)
        finally:
            engine.terminate()
            engine.wait(30)


if __name__ == "__main__":
    main()
