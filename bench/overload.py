#!/usr/bin/env python3
"""What the gateway does when there is too much to do: goodput, latency of who is admitted, time to a refusal, shares.

    cargo build --release && bench/overload.py [flood] [tenants] [cpu] [--seconds 15] [--times 5]

flood    open-loop Poisson arrivals at a multiple of what the engines can do: goodput over capacity, p99 of admitted
         requests over that of a gateway with little to do, p99 of the time until a refusal.
tenants  two tenants, one with a hundred times the arrivals of the other: Jain's index of the tokens each was served,
         prompts and answers, as the engines count them.
cpu      the gateway's own CPU time per request without a limit, with one that nobody waits at, and with one at which
         most wait.

Two simulated engines, whose capacity follows from their settings and is measured as well, behind the release binary on
CPU 0; engines and load share the last CPU. Needs Linux and Python 3.9. Exit code 1 when a target is missed.
"""
import argparse, asyncio, json, os, random, re, signal, socket, statistics, subprocess, sys, tempfile, time, urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target")) + "/release/"
TICK = os.sysconf("SC_CLK_TCK")
TOTAL = re.compile(rb'"total_tokens": ?(\d+)')
LAST_CPU = str(os.cpu_count() - 1)
HOST = "127.0.0.1"


def free_port():
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


class Engines:
    """Two engines that each compute so many requests at a time."""

    def __init__(self, places, decode_tokens_per_s):
        self.ports = [free_port() for _ in range(2)]
        self.processes = [
            subprocess.Popen(["taskset", "-c", LAST_CPU, TARGET + "ringway", "engine-sim", "--port", str(port), "--model",
                              "sim", "--concurrency", str(places // 2), "--prefill-tokens-per-s", "0",
                              "--decode-tokens-per-s", str(decode_tokens_per_s)], stdout=subprocess.DEVNULL)
            for port in self.ports]
        for port in self.ports:
            wait_for(port)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


class Gateway:
    """The release binary in front of the engines."""

    def __init__(self, engines, *flags):
        self.port, self.metrics_port = free_port(), free_port()
        urls = [f"http://{HOST}:{port}" for port in engines.ports]
        self.process = subprocess.Popen(
            ["taskset", "-c", "0-" + LAST_CPU, TARGET + "ringway", "--host", HOST, "--port", str(self.port), "--prometheus-host", HOST, "--prometheus-port",
             str(self.metrics_port), "--shards", "1", "--cpu-affinity", "0", "--policy", "least_load",
             "--load-monitor-interval", "0", "--log-level", "warn", *flags, "--worker-urls", *urls],
            stdout=subprocess.DEVNULL)
        wait_for(self.port)
        for _ in range(500):
            try:
                if json.load(urllib.request.urlopen(f"http://{HOST}:{self.port}/readiness"))["healthy_workers"] == 2:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise SystemExit("the engines do not become ready")

    def cpu_seconds(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Connection(asyncio.Protocol):
    """A kept connection: one request at a time, answered with a status and a body of known length."""

    def __init__(self):
        self.buffer, self.waiter, self.transport = b"", None, None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        at = head.lower().find(b"content-length: ")
        length = int(head[at + 16:].split(b"\r\n", 1)[0])
        if len(body) >= length and self.waiter and not self.waiter.done():
            self.buffer = b""
            used = TOTAL.search(body)
            self.waiter.set_result((int(head[9:12]), time.perf_counter(), int(used.group(1)) if used else 0))

    def connection_lost(self, error):
        self.transport = None
        if self.waiter and not self.waiter.done():
            self.waiter.set_exception(ConnectionError("closed"))

    async def ask(self, request):
        self.waiter = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self.transport.write(request)
        status, ended, tokens = await self.waiter
        return status, began, ended, tokens


class Load:
    """Requests over kept connections; what came of each."""

    def __init__(self, port):
        self.port, self.idle = port, []
        self.results = []  # (name, status, began, ended, tokens)

    async def ask(self, name, request):
        connection = self.idle.pop() if self.idle else None
        if connection is None or connection.transport is None:
            _, connection = await asyncio.get_running_loop().create_connection(Connection, HOST, self.port)
        try:
            answer = await connection.ask(request)
        except ConnectionError:
            answer = (0, 0.0, 0.0, 0)
        else:
            self.idle.append(connection)
        self.results.append((name, *answer))

    async def poisson(self, name, request, rate, seconds, rng):
        """Arrivals at their own times, whatever the answers."""
        loop, tasks = asyncio.get_running_loop(), set()
        due, end = loop.time(), loop.time() + seconds
        while due < end:
            due += rng.expovariate(rate)
            pause = due - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            task = asyncio.ensure_future(self.ask(name, request))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)

    async def closed(self, name, request, connections, seconds):
        """So many at a time, each as soon as the last is answered."""
        end = time.perf_counter() + seconds

        async def one():
            while time.perf_counter() < end:
                await self.ask(name, request)
        await asyncio.gather(*(one() for _ in range(connections)))


def chat(tokens, tenant="one"):
    body = json.dumps({"model": "sim", "max_tokens": tokens, "messages": [
        {"role": "user", "content": f"A question of {tenant} about the weather, to be answered at some length."}]}).encode()
    head = (f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
            f"x-smg-tenant-id: {tenant}\r\ncontent-length: {len(body)}\r\n\r\n")
    return head.encode() + body


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def report(ok, text):
    print(f"{'ok    ' if ok else 'MISSED'} {text}", flush=True)
    return ok


def flood(args):
    """Much more than the engines can do."""
    places, tokens, per_s = args.places, 16, 100
    request, rng = chat(tokens), random.Random(1)
    engines = Engines(places, per_s)
    try:
        gateway = Gateway(engines)
        try:
            load = Load(gateway.port)
            asyncio.run(load.closed("full", request, places, args.seconds))
        finally:
            gateway.stop()
        capacity = rate_of(load.results, "full", args.seconds)
        gateway = Gateway(engines, "--max-concurrent-requests", str(places), "--queue-size", str(args.queue))
        try:
            load = Load(gateway.port)
            asyncio.run(load.poisson("little", request, capacity * 0.2, args.seconds, rng))
            asyncio.run(flooding(load, request, capacity * args.times, args.seconds, rng))
        finally:
            gateway.stop()
    finally:
        engines.stop()
    took = lambda name, status: [(end - begin) * 1e3 for who, what, begin, end, _ in load.results
                                 if who == name and what == status]
    little, served, refused = took("little", 200), took("flood", 200), took("flood", 429)
    others = sum(1 for who, what, *_ in load.results if who == "flood" and what not in (200, 429))
    goodput = rate_of(load.results, "flood", args.seconds)
    base, p99, refusal = percentile(little, 0.99), percentile(served, 0.99), percentile(refused, 0.99)
    print(f"capacity {capacity:.1f}/s; offered {(len(served) + len(refused)) / args.seconds:.0f}/s, "
          f"served {len(served)}, refused {len(refused)}, others {others}")
    print(f"unloaded p50 {percentile(little, 0.5):.1f} ms, p99 {base:.1f} ms; under flood p50 "
          f"{percentile(served, 0.5):.1f} ms, p99 {p99:.1f} ms; refusal p50 {percentile(refused, 0.5):.2f} ms")
    return [report(goodput >= 0.95 * capacity, f"goodput {goodput / capacity:.1%} of capacity (target 95 %)"),
            report(p99 <= 2 * base, f"p99 of admitted {p99 / base:.2f} times unloaded (target 2)"),
            report(refusal <= 5, f"p99 of refusals {refusal:.2f} ms (target 5)"),
            report(others == 0, f"{others} answers other than 200 and 429")]


async def flooding(load, request, rate, seconds, rng):
    load.idle.clear()
    await load.poisson("flood", request, rate, seconds, rng)


def rate_of(results, name, seconds, of=lambda tokens: 1):
    """Answers, or their tokens, per second; the first second left out: then everything has started."""
    begin = min(begin for who, status, begin, *_ in results if who == name and status) + 1
    served = [of(tokens) for who, status, _, end, tokens in results
              if who == name and status == 200 and begin <= end < begin + seconds - 1]
    return sum(served) / (seconds - 1)


def tenants(args):
    """One tenant floods, the other asks for more than its half."""
    places, per_s = 4, 100
    big, small = ("flood", 16), ("modest", 24)
    engines = Engines(places, per_s)
    try:
        gateway = Gateway(engines, "--max-concurrent-requests", str(places), "--queue-size", "40",
                          "--trust-tenant-header")
        try:
            load = Load(gateway.port)
            capacity = places * per_s  # tokens a second
            rate = 0.8 * capacity / small[1]
            asyncio.run(both(load, [(big, 100 * rate), (small, rate)], args.seconds))
        finally:
            gateway.stop()
    finally:
        engines.stop()
    shares, lines = [], []
    for name, tokens in (big, small):
        mine = [result for result in load.results if result[0] == name]
        shares.append(rate_of(load.results, name, args.seconds, lambda used: used))
        lines.append(f"{name}: {len(mine) / args.seconds:.1f} arrivals/s for {tokens} tokens each, served "
                     f"{rate_of(load.results, name, args.seconds):.1f}/s, {shares[-1]:.0f} tokens/s with prompts, {sum(1 for one in mine if one[1] == 429)} refused")
    jain = sum(shares) ** 2 / (len(shares) * sum(share ** 2 for share in shares))
    print("; ".join(lines))
    return [report(jain >= 0.95, f"Jain's index of tokens served {jain:.3f} (target 0.95)")]


async def both(load, wanted, seconds):
    await asyncio.gather(*(load.poisson(name, chat(tokens, name), rate, seconds, random.Random(at))
                           for at, ((name, tokens), rate) in enumerate(wanted)))


def cpu(args):
    """What admission costs the gateway."""
    # Fewer requests in flight are fewer that one turn of the loop serves: what waiting costs shows against a row with
    # as many in flight. Of 13 places 5 are kept for higher classes.
    ways = {"no limit, 32 in flight": ([], 32),
            "a limit nobody waits at": (["--max-concurrent-requests", "1000"], 32),
            "no limit, 8 in flight": ([], 8),
            "a limit of 8, 24 wait": (["--max-concurrent-requests", "8"], 32),
            "the same with classes": (["--max-concurrent-requests", "13", "--priority-scheduler-enabled"], 32)}
    engines = Engines(2_000_000, 0)
    figures = {way: [] for way in ways}
    try:
        for number in range(args.rounds):
            for way, (flags, connections) in ways.items():
                gateway = Gateway(engines, *flags)
                try:
                    bench(gateway, connections, 1000 + number)  # opens the connections
                    before = gateway.cpu_seconds()
                    requests = bench(gateway, connections, number)
                    figures[way].append((gateway.cpu_seconds() - before) * 1e6 / requests)
                finally:
                    gateway.stop()
    finally:
        engines.stop()
    for way, costs in figures.items():
        cost = statistics.median(costs)
        base = cost if way.startswith("no limit") else base
        print(f"{way:26} {cost:6.2f} us of CPU a request, {cost / base:5.3f} times the row without ({min(costs):.2f} to {max(costs):.2f})")
    return []


def bench(gateway, connections, seed):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        subprocess.run([TARGET + "ringway-bench", "run", "--shape", "short-chat", "--connections", str(connections), "--seconds", "3",
                        "--model", "sim", "--max-tokens", "4", "--seed", str(seed), "--json", out.name,
                        f"http://{HOST}:{gateway.port}"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return completed(json.load(open(out.name)))


def completed(value):
    """Completed requests of a report, wherever it keeps them."""
    for key in ("completed", "requests", "answered"):
        if isinstance(value.get(key), (int, float)) and value[key] > 0:
            return value[key]
    return next((found for part in value.values() if isinstance(part, dict) and (found := completed(part))), 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[[], "flood", "tenants", "cpu"], default=[])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--times", type=float, default=5, help="arrivals over capacity, for flood")
    parser.add_argument("--places", type=int, default=16, help="requests that the engines compute at a time, for flood")
    parser.add_argument("--queue", type=int, default=8, help="--queue-size, for flood")
    parser.add_argument("--rounds", type=int, default=3, help="for cpu")
    args = parser.parse_args()
    os.sched_setaffinity(0, {os.cpu_count() - 1})
    results = []
    for name, measure in (("flood", flood), ("tenants", tenants), ("cpu", cpu)):
        if not args.what or name in args.what:
            print(f"== {name}: {measure.__doc__}", flush=True)
            results += measure(args)
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
