#!/usr/bin/env python3
"""Whether the prefix tree stays within its bound: endless unique prompts of 200 KB, and what they leave behind.

    tools/prefix_memory.py http://127.0.0.1:30000 PID METRICS_URL [--prompts 10000] [--kb 200]

Sends unique chat prompts one after the other over one connection to a running gateway (PID is its process) and prints
resident memory and the tree's own account as it goes. Memory must stop growing once --prefix-memory is reached.
"""
import argparse, http.client, json, os, random, re, time, urllib.parse, urllib.request


def resident_mib(pid):
    return int(open(f"/proc/{pid}/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def metric(url, name):
    page = urllib.request.urlopen(url, timeout=10).read().decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.M))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("pid", type=int)
    parser.add_argument("metrics", help="such as http://127.0.0.1:29000/metrics")
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--kb", type=int, default=200)
    parser.add_argument("--model", default="sim")
    args = parser.parse_args()
    at = urllib.parse.urlsplit(args.url)
    connection = http.client.HTTPConnection(at.hostname, at.port, timeout=60)
    draws = random.Random(1)
    began = time.time()
    print(f"{'prompts':>8} {'rss MiB':>8} {'tree MiB':>9} {'blocks':>9} {'evicted':>10} {'s':>6}")
    for number in range(args.prompts + 1):
        if number % max(args.prompts // 10, 1) == 0:
            tree, blocks, evicted = (metric(args.metrics, f"smg_prefix_tree_{name}") for name in
                                     ("bytes", "blocks", "evicted_blocks_total"))
            print(f"{number:8} {resident_mib(args.pid):8.1f} {tree / 2**20:9.1f} {blocks:9.0f} {evicted:10.0f} "
                  f"{time.time() - began:6.1f}", flush=True)
        # Hexadecimal digits of random bytes: no two prompts share a block.
        text = draws.randbytes(args.kb * 500).hex()
        body = json.dumps({"model": args.model, "messages": [{"role": "user", "content": text}], "max_tokens": 1})
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"status {answer.status}")


if __name__ == "__main__":
    main()
