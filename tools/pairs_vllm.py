#!/usr/bin/env python3
"""Tries prefill and decode on two real vLLM servers: every answer through the gateway must be the one that the decode
server gives alone, and prompts must have been handed over, by the servers' own counters.

Start the servers first, for example on one machine without a GPU:

    VLLM_NIXL_SIDE_CHANNEL_PORT=5601 vllm serve MODEL --port 8101 --kv-transfer-config \\
        '{"kv_connector":"NixlConnector","kv_role":"kv_both","kv_buffer_device":"cpu"}'
    VLLM_NIXL_SIDE_CHANNEL_PORT=5602 vllm serve MODEL --port 8102 --kv-transfer-config (the same)
    ROUTER_BIN=target/release/ringway tools/pairs_vllm.py http://127.0.0.1:8101 http://127.0.0.1:8102
"""

import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.request

PORT, METRICS_PORT, REQUESTS = 18990, 18991, 40
BASE = f"http://127.0.0.1:{PORT}"


def call(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.read()


def transfers(url):
    """Prompts that a server has fetched from another, by its own counter."""
    found = re.findall(r"^vllm:nixl_xfer_time_seconds_count\{[^}]*\} (\S+)", call(f"{url}/metrics").decode(), re.M)
    return sum(float(value) for value in found)


def ask(base, model, text):
    body = {"model": model, "prompt": text, "max_tokens": 24, "temperature": 0}
    return json.loads(call(f"{base}/v1/completions", body))["choices"][0]["text"]


def streamed(model, text):
    body = {"model": model, "prompt": text, "max_tokens": 24, "temperature": 0, "stream": True}
    lines = call(f"{BASE}/v1/completions", body).decode().splitlines()
    events = [line[6:] for line in lines if line.startswith("data: ")]
    assert events[-1] == "[DONE]", events
    return "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])


def main():
    prefill, decode = sys.argv[1:3]
    model = json.loads(call(f"{decode}/v1/models"))["data"][0]["id"]
    flags = ["--host", "127.0.0.1", "--port", str(PORT), "--prometheus-port", str(METRICS_PORT), "--log-level", "warn"]
    pair = ["--pd-disaggregation", "--prefill", prefill, "--decode", decode]
    gateway = subprocess.Popen([os.environ["ROUTER_BIN"], *flags, *pair])
    try:
        for _ in range(100):
            try:
                call(f"{BASE}/readiness")
                break
            except OSError:
                time.sleep(0.1)
        before, rng, differing = transfers(decode), random.Random(1), 0
        for number in range(REQUESTS):
            text = " ".join(str(rng.randrange(100)) for _ in range(150))
            got = streamed(model, text) if number % 2 else ask(BASE, model, text)
            differing += got != ask(decode, model, text)
        handed_over = transfers(decode) - before
        print(f"{REQUESTS} requests, {differing} answers that differ, {handed_over:.0f} prompts handed over")
        return 0 if differing == 0 and handed_over >= REQUESTS * 0.9 else 1
    finally:
        gateway.terminate()
        gateway.wait()


sys.exit(main())
