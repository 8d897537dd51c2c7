#!/usr/bin/env python3
"""CPU per request of a proxy's client edge: plain HTTP/1.1, HTTP/2 with prior knowledge, and both over TLS.

    tools/edge_cost.py [--rounds 3] [--seconds 3] [--modes h1,h2c,tls-h1,tls-h2] [ours nginx haproxy]

Each proxy runs pinned to core 0 with one worker thread; h2load and the backend, an nginx that answers a short JSON,
share core 1. Rounds are interleaved; figures are medians. `cpu us/req` is the proxy's own user and system time for
each request: it does not depend on how busy the other core is. Connections are kept, so handshakes do not count.
Over HTTP/2 eight connections carry eight streams each; over HTTP/1.1 there are 64 connections.

Needs nginx, haproxy and h2load (Debian: nginx-light haproxy nghttp2-client) and openssl. Our binary is $ROUTER_BIN
(default target/release/ringway). Everything listens on 127.0.0.1 only.
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

PORT, BACKEND, METRICS = 18900, 18911, 18990
OURS = os.environ.get("ROUTER_BIN", "target/release/ringway")
TMP = tempfile.mkdtemp(prefix="edge-cost-")
BODY = ('{"model":"m","messages":[{"role":"user","content":"' + "The quick brown fox jumps over it. " * 16 + '"}]}')
ANSWER = ('{"id":"x","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant",'
          '"content":"' + "word " * 40 + '"},"finish_reason":"stop"}]}')
MODES = ("h1", "h2c", "tls-h1", "tls-h2")


def write(name, text):
    path = os.path.join(TMP, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def certificate():
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", f"{TMP}/key.pem", "-out", f"{TMP}/cert.pem", "-subj", "/CN=localhost"],
        check=True, stderr=subprocess.DEVNULL)
    write("both.pem", open(f"{TMP}/cert.pem").read() + open(f"{TMP}/key.pem").read())


def nginx_paths(name):
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"{kind}_temp_path {TMP}/{name}-{kind};" for kind in kinds)


def backend():
    conf = write("backend.conf", f"""daemon off; master_process off; worker_processes 1;
error_log {TMP}/backend.err; pid {TMP}/backend.pid; events {{ worker_connections 4096; }}
http {{ access_log off; {nginx_paths('backend')} keepalive_requests 1000000000; keepalive_timeout 600;
server {{ listen 127.0.0.1:{BACKEND}; location / {{ default_type application/json; return 200 '{ANSWER}'; }} }} }}""")
    return ["nginx", "-c", conf, "-p", TMP]


def nginx(mode):
    listen = {"h1": "", "h2c": "http2", "tls-h1": "ssl", "tls-h2": "ssl http2"}[mode]
    tls = f"ssl_certificate {TMP}/cert.pem; ssl_certificate_key {TMP}/key.pem;" if "tls" in mode else ""
    conf = write("nginx.conf", f"""daemon off; master_process off; worker_processes 1;
error_log {TMP}/nginx.err; pid {TMP}/nginx.pid; events {{ worker_connections 4096; }}
http {{ access_log off; {nginx_paths('nginx')} keepalive_requests 1000000000; client_body_buffer_size 64k;
upstream b {{ server 127.0.0.1:{BACKEND}; keepalive 256; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{PORT} {listen}; {tls} location / {{ proxy_pass http://b; proxy_http_version 1.1;
proxy_set_header Connection ""; proxy_buffering off; }} }} }}""")
    return ["nginx", "-c", conf, "-p", TMP]


def haproxy(mode):
    tls = f" ssl crt {TMP}/both.pem alpn h2,http/1.1" if "tls" in mode else ""
    conf = write("haproxy.cfg", f"""global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  http-reuse always
frontend f
  bind 127.0.0.1:{PORT}{tls}
  default_backend b
backend b
  server s 127.0.0.1:{BACKEND}
""")
    return ["haproxy", "-f", conf, "-db"]


def ours(mode):
    tls = ["--tls-cert-path", f"{TMP}/cert.pem", "--tls-key-path", f"{TMP}/key.pem"] if "tls" in mode else []
    return [OURS, "--host", "127.0.0.1", "--port", str(PORT), "--prometheus-host", "127.0.0.1", "--prometheus-port",
            str(METRICS), "--worker-urls", f"http://127.0.0.1:{BACKEND}", "--shards", "1", "--log-level", "warn", *tls]


PROXIES = {"ours": ours, "nginx": nginx, "haproxy": haproxy}


def start(core, command, name):
    log = open(f"{TMP}/{name}.log", "ab")
    return subprocess.Popen(["taskset", "-c", str(core), *command], stdout=log, stderr=log)


def stop(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_port(port):
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}; logs in {TMP}")


def load(mode, seconds):
    scheme = "https" if "tls" in mode else "http"
    shape = ["-c", "64", "--h1"] if mode.endswith("h1") else ["-c", "8", "-m", "8"]
    command = ["taskset", "-c", "1", "h2load", "-t", "1", "-D", str(seconds), *shape, "-d", f"{TMP}/body.json",
               "-H", "content-type: application/json", f"{scheme}://127.0.0.1:{PORT}/v1/chat/completions"]
    output = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60).stdout
    done = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", output)
    codes = re.search(r"status codes: (\d+) 2xx", output)
    if not done or not codes:
        raise SystemExit(f"h2load said:\n{output}")
    return int(codes.group(1)), int(done.group(2))


def measure(name, mode, seconds):
    process = start(0, PROXIES[name](mode), name)
    try:
        wait_port(PORT)
        time.sleep(0.7)
        load(mode, 1)
        before = cpu_s(process.pid)
        requests, failed = load(mode, seconds)
        used = cpu_s(process.pid) - before
    finally:
        stop(process)
    if not requests:
        return None
    return {"cpu_us": used * 1e6 / requests, "rps": requests / seconds, "failed": failed}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("proxies", nargs="*", default=list(PROXIES))
    options = parser.parse_args()
    if "ours" in options.proxies and not os.access(OURS, os.X_OK):
        raise SystemExit(f"no binary at {OURS}: cargo build --release, or set ROUTER_BIN")
    certificate()
    write("body.json", BODY)
    modes = options.modes.split(",")
    rows = {(mode, name): [] for mode in modes for name in options.proxies}
    process = start(1, backend(), "backend")
    try:
        wait_port(BACKEND)
        for _ in range(options.rounds):
            for mode in modes:
                for name in options.proxies:
                    row = measure(name, mode, options.seconds)
                    if row:
                        rows[mode, name].append(row)
    finally:
        stop(process)
    print(f"{options.rounds} rounds of {options.seconds} s, medians; request {len(BODY)} B, answer {len(ANSWER)} B")
    print(f"{'mode':8s}{'proxy':10s}{'cpu us/req':>12s}{'req/s':>10s}{'failed':>8s}")
    for (mode, name), found in rows.items():
        if not found:
            print(f"{mode:8s}{name:10s}{'-':>12s}  no answers of 200; logs in {TMP}")
            continue
        median = {key: statistics.median(row[key] for row in found) for key in found[0]}
        print(f"{mode:8s}{name:10s}{median['cpu_us']:12.1f}{median['rps']:10.0f}{median['failed']:8.0f}")


if __name__ == "__main__":
    sys.exit(main())
