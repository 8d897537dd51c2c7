#!/usr/bin/env python3
"""What a request costs the gateway in front of fleets of different sizes: CPU per request, memory, time until ready.

    cargo build --release && tools/fleet_scale.py [--workers 10 1000 10000] [--policies cache_aware ...] [--rounds 3]

Four simulated engines answer on every address of 127.0.0.0/8, so each worker is an address of its own; the fleet is
registered through POST /workers. The gateway is pinned to CPU 0, engine and load share the last CPU. Figures are the
gateway's own user and system time (from /proc) over the requests that were answered, medians over interleaved rounds.
Needs Linux, the release build of this repository, and about 1 GiB.
"""
import argparse, json, os, signal, socket, statistics, subprocess, tempfile, time, urllib.request
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target")) + "/release/"
TICK = os.sysconf("SC_CLK_TCK")
PORTS = {"gateway": 19341, "metrics": 19342}
# Several, because each connection takes two descriptors of an engine.
ENGINE_PORTS = range(19343, 19347)


def get(path, data=None, timeout=60):
    request = urllib.request.Request(f"http://127.0.0.1:{PORTS['gateway']}{path}", data)
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mib(pid):
    return int(open(f"/proc/{pid}/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def wait_for(port):
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing listens on port {port}")


def worker_url(index):
    return f"http://127.{1 + index // 62500}.{index // 250 % 250}.{1 + index % 250}:{ENGINE_PORTS[index % 4]}"


class Fleet:
    """A gateway with so many workers."""

    def __init__(self, args, policy, count):
        command = [TARGET + "ringway", "--host", "127.0.0.1", "--port", str(PORTS["gateway"]), "--shards", "1",
                   "--cpu-affinity", "0", "--prometheus-host", "127.0.0.1", "--prometheus-port", str(PORTS["metrics"]),
                   "--log-level", "warn", "--health-check-interval-secs", "3600", "--load-monitor-interval", "0",
                   "--policy", policy]
        if policy == "session":
            command += ["--session-key", "user"]
        if policy == "power_of_two":
            command += ["--worker-urls", worker_url(0), worker_url(1)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for(PORTS["gateway"])
        began = time.time()
        first = 2 if policy == "power_of_two" else 0
        with ThreadPoolExecutor(16) as pool:
            bodies = [json.dumps({"url": worker_url(index)}).encode() for index in range(first, count)]
            list(pool.map(lambda body: get("/workers", body), bodies))
        while get("/get_server_info")["workers_count"] < count or ready_workers() < count:
            if time.time() - began > 600:
                raise SystemExit("the fleet does not become ready")
            time.sleep(0.1)
        self.ready_s = time.time() - began

    def measure(self, args, seed):
        before = cpu_seconds(self.process.pid)
        out = tempfile.NamedTemporaryFile(suffix=".json")
        subprocess.run([TARGET + "ringway-bench", "run", "--shape", args.shape, "--connections", "32", "--seconds",
                        str(args.seconds), "--model", "sim", "--max-tokens", "4", "--seed", str(seed), "--json", out.name,
                        f"http://127.0.0.1:{PORTS['gateway']}"], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        requests = count_of(json.load(open(out.name)))
        return (cpu_seconds(self.process.pid) - before) * 1e6 / requests

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def ready_workers():
    try:
        return get("/readiness").get("healthy_workers", 0)
    except urllib.error.HTTPError:
        return 0


def count_of(report):
    """Completed requests of a report, wherever it keeps them."""
    for key in ("completed", "requests", "answered"):
        if isinstance(report.get(key), (int, float)) and report[key] > 0:
            return report[key]
    for value in report.values():
        if isinstance(value, dict):
            found = count_of(value)
            if found:
                return found
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 1000, 10000])
    parser.add_argument("--policies", nargs="+", default=["cache_aware", "round_robin", "least_load"])
    parser.add_argument("--shape", default="short-chat", help="shape of ringway-bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    args = parser.parse_args()
    last = str(os.cpu_count() - 1)
    engines = [subprocess.Popen(["taskset", "-c", last, TARGET + "ringway", "engine-sim", "--host", "0.0.0.0", "--port",
                                 str(port), "--model", "sim", "--concurrency", "1000000", "--prefill-tokens-per-s", "0",
                                 "--decode-tokens-per-s", "0"], stdout=subprocess.DEVNULL) for port in ENGINE_PORTS]
    try:
        for port in ENGINE_PORTS:
            wait_for(port)
        print(f"{'policy':20} {'workers':>8} {'cpu us/request':>15} {'to the first':>13} {'rss MiB':>8} {'ready s':>8}")
        for policy in args.policies:
            figures = {count: [] for count in args.workers}
            about = {}
            for number in range(args.rounds):
                for count in args.workers:
                    fleet = Fleet(args, policy, count)
                    try:
                        fleet.measure(args, 1000 + number)  # opens the connections
                        figures[count].append(fleet.measure(args, number))
                        about[count] = (resident_mib(fleet.process.pid), fleet.ready_s)
                    finally:
                        fleet.stop()
            first = statistics.median(figures[args.workers[0]])
            for count in args.workers:
                cost = statistics.median(figures[count])
                rss, ready = about[count]
                print(f"{policy:20} {count:8} {cost:15.1f} {cost / first:13.2f} {rss:8.0f} {ready:8.1f}", flush=True)
    finally:
        for engine in engines:
            engine.terminate()
            engine.wait()


if __name__ == "__main__":
    main()
