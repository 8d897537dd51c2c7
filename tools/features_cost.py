#!/usr/bin/env python3
"""CPU per request with everything that guards an edge switched on, beside the same with it switched off.

    tools/features_cost.py [--rounds 7] [--seconds 3]

Off: no retries, breakers, limits, keys, traces. On: retries, breakers, --stream-resume, stall timeouts, an admission
limit with priorities, an API key, a limit of connections per address, spans exported to a collector that takes them.
The gateway runs one shard pinned to core 0 and logs warnings only; wrk and the backend, an nginx that answers a short
JSON, share core 1 and send the same requests to both. Rounds are interleaved; figures are medians of user and system
time of the whole process per request.

Needs wrk and nginx (Debian: wrk nginx-light). Our binaries are
$ROUTER_BIN (default target/release/ringway) and $TOOLS_BIN (default target/release/tools). Everything
listens on 127.0.0.1 only.
"""
import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

PORT, BACKEND, METRICS, COLLECTOR = 18920, 18921, 18922, 18923
OURS = os.environ.get("ROUTER_BIN", "target/release/ringway")
TOOLS = os.environ.get("TOOLS_BIN", "target/release/tools")
TMP = tempfile.mkdtemp(prefix="features-cost-")
ANSWER = ('{"id":"x","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant",'
          '"content":"' + "word " * 40 + '"},"finish_reason":"stop"}]}')
OFF = ["--disable-retries", "--disable-circuit-breaker", "--inter-token-timeout-secs", "0"]
ON = ["--stream-resume", "--first-token-timeout-secs", "60", "--max-concurrent-requests", "1000",
      "--priority-scheduler-enabled", "--api-key", "sk-features", "--max-connections-per-address", "1000",
      "--enable-trace", "--otlp-traces-endpoint", f"127.0.0.1:{COLLECTOR}"]
PROMPTS = {"short chat": 512, "64 KiB prompt": 64 * 1024}


def write(name, text):
    path = os.path.join(TMP, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def pinned(core, command):
    return subprocess.Popen(["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL,
                            stderr=open(f"{TMP}/stderr", "ab"))


def backend():
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {TMP}/{kind};" for kind in kinds)
    conf = write("backend.conf", f"""daemon off; master_process off; worker_processes 1;
error_log {TMP}/backend.err; pid {TMP}/backend.pid; events {{ worker_connections 4096; }}
http {{ access_log off; {paths} keepalive_requests 1000000000; keepalive_timeout 600;
client_max_body_size 1m; client_body_buffer_size 256k;
server {{ listen 127.0.0.1:{BACKEND}; location / {{ default_type application/json; return 200 '{ANSWER}'; }} }} }}""")
    return ["nginx", "-c", conf, "-p", TMP]


def wait_port(port):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nobody listens on port {port}; see {TMP}/stderr")


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def round_us(flags, script, seconds):
    """CPU microseconds per request of one gateway, started for this round."""
    gateway = pinned(0, [OURS, "--host", "127.0.0.1", "--port", str(PORT), "--prometheus-host", "127.0.0.1",
                         "--prometheus-port", str(METRICS), "--shards", "1", "--log-level", "warn",
                         "--policy", "cache_aware", "--disable-health-check",
                         "--worker-urls", f"http://127.0.0.1:{BACKEND}", f"http://localhost:{BACKEND}", *flags])
    try:
        wait_port(PORT)
        wrk = ["taskset", "-c", "1", "wrk", "-t1", "-c32", "-s", script, f"http://127.0.0.1:{PORT}/v1/chat/completions"]
        subprocess.run([*wrk[:4], "-t1", "-c32", "-d1", *wrk[6:]], capture_output=True, check=True)
        before = cpu_s(gateway.pid)
        out = subprocess.run([*wrk[:4], "-t1", "-c32", f"-d{seconds}", *wrk[6:]], capture_output=True, text=True, check=True)
        spent = cpu_s(gateway.pid) - before
        if "Non-2xx" in out.stdout or "Socket errors" in out.stdout:
            sys.exit(f"requests failed with {flags}:\n{out.stdout}")
        return spent * 1e6 / int(re.search(r"(\d+) requests in", out.stdout)[1])
    finally:
        gateway.send_signal(signal.SIGKILL)
        gateway.wait()
        time.sleep(0.8)  # The kernel takes the ring apart, and its ports with it.


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--seconds", type=int, default=3)
    options.add_argument("--on", help="other flags to compare with, as one string")
    options = options.parse_args()
    on_flags = ON if options.on is None else options.on.split()
    others = [pinned(1, backend()), pinned(1, [TOOLS, "collector", "--port", str(COLLECTOR)])]
    try:
        wait_port(BACKEND)
        wait_port(COLLECTOR)
        for name, size in PROMPTS.items():
            prompt = "The quick brown fox jumps over it. " * (size // 35)
            script = write("post.lua", f"""wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer sk-features"
wrk.body = '{{"model":"m","messages":[{{"role":"user","content":"{prompt}"}}]}}'""")
            figures = {"off": [], "on": []}
            for at in range(options.rounds):
                for which in ("off", "on") if at % 2 == 0 else ("on", "off"):
                    figures[which].append(round_us(OFF if which == "off" else on_flags, script, options.seconds))
            off, on = (statistics.median(figures[which]) for which in ("off", "on"))
            print(f"{name}: off {off:.2f} us, on {on:.2f} us, ratio {on / off:.3f}   "
                  f"(off {min(figures['off']):.2f}..{max(figures['off']):.2f}, "
                  f"on {min(figures['on']):.2f}..{max(figures['on']):.2f})", flush=True)
    finally:
        for process in others:
            process.send_signal(signal.SIGKILL)
            process.wait()


main()
