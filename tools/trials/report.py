"""From answers and counters to a cell's figures, and from the cells of all rounds to the table."""

import collections
import statistics


def figures(answers, seconds, before, after, samples):
    """One cell: what the clients saw, and what the engines' counters say of the same time."""
    sent = [answer for answer in answers if answer is not None]
    good = [answer for answer in sent if answer.error is None]
    ttfts = sorted(answer.ttft * 1000 for answer in good)
    totals = sorted(answer.total * 1000 for answer in good)
    spent = [
        [None if now is None else now - (then or 0) for now, then in zip(*pair)] for pair in zip(after, before)
    ]
    tokens = sum(engine[0] or 0 for engine in spent)
    cached = sum(engine[1] or 0 for engine in spent)
    # An engine that does not count its requests is given the share of them that it has of the prompt tokens.
    requests = [
        len(good) * (engine[0] or 0) / max(1, tokens) if engine[2] is None else engine[2] for engine in spent
    ]
    # Little's law: the time that requests spent in an engine, a second, is how many of them were there.
    # Its gauges are only as fresh as its last step, so they come second.
    means = [
        mean if engine[4] is None else engine[4] / seconds for (_, mean), engine in zip(samples, spent)
    ]
    return {
        "req_per_s": len(good) / seconds,
        "seconds": seconds,
        "hit_rate": cached / tokens if tokens else 0.0,
        "prompt_tokens": tokens,
        "ttft_ms": [percentile(ttfts, share) for share in (0.5, 0.95, 0.99)],
        "total_ms": [percentile(totals, share) for share in (0.5, 0.95, 0.99)],
        "errors": dict(collections.Counter(answer.error for answer in sent if answer.error is not None)),
        "failed": len(sent) - len(good),
        "unsent": len(answers) - len(sent),
        "requests_per_engine": requests,
        "requests_counted": all(engine[2] is not None for engine in spent),
        "in_flight_max": [highest for highest, _ in samples],
        "in_flight_mean": means,
    }


def percentile(ordered, share):
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def medians(cells):
    """One row for all rounds of a cell: medians, but the sum of what went wrong."""
    row = {}
    for name in cells[0]["figures"]:
        values = [cell["figures"][name] for cell in cells]
        if name in ("failed", "unsent"):
            row[name] = sum(values)
        elif name == "errors":
            row[name] = dict(sum((collections.Counter(value) for value in values), collections.Counter()))
        elif isinstance(values[0], list):
            row[name] = [statistics.median(column) for column in zip(*values)]
        elif isinstance(values[0], bool):
            row[name] = all(values)
        else:
            row[name] = statistics.median(values)
    row["rounds"] = len(cells)
    return row


def rows(cells, baseline):
    """A row for each trace, load and router, in the order in which they were first measured."""
    groups = {}
    for cell in cells:
        groups.setdefault((cell["trace"], cell["concurrency"], cell["router"]), []).append(cell)
    table = []
    for (trace, concurrency, router), members in groups.items():
        about = {"trace": trace, "concurrency": concurrency, "router": router, "ideal": members[0]["ideal"]}
        chars = members[0]["chars"]
        row = medians(members)
        about["working_set_tokens"] = members[0]["distinct"] * row["prompt_tokens"] / max(1, chars)
        table.append({**about, **row})
    for row in table:
        base = [
            other["req_per_s"]
            for other in table
            if other["router"] == baseline and (other["trace"], other["concurrency"]) == (row["trace"], row["concurrency"])
        ]
        row["times_baseline"] = row["req_per_s"] / base[0] if base and base[0] else None
    return table


def text(table, baseline, routers):
    """The table for people."""
    lines = []
    width = max([len(row["router"]) for row in table] + [6])
    groups = {}
    for row in table:
        groups.setdefault((row["trace"], row["concurrency"]), []).append(row)
    head = (
        f"{'router':{width}}  req/s  x base   hit %  {'TTFT p50/p95/p99 ms':>20}  total p50  "
        f"{'requests/engine':>15}  {'in flight max (mean) / engine':>30}  errors"
    )
    for (trace, concurrency), members in groups.items():
        working_set = statistics.median(row["working_set_tokens"] for row in members)
        lines.append(
            f"\n{trace}, {concurrency} at a time: best possible hit rate {members[0]['ideal']:.1%}, "
            f"working set {working_set:,.0f} tokens, x base is req/s over {baseline}'s"
        )
        lines.append(head)
        for row in sorted(members, key=lambda row: routers.index(row["router"])):
            ratio = f"{row['times_baseline']:.2f}" if row["times_baseline"] else "-"
            about = "" if row["requests_counted"] else "~"
            shares = "/".join(f"{about}{count:.0f}" for count in row["requests_per_engine"])
            flights = " ".join(
                f"{highest:.0f} ({mean:.1f})" for highest, mean in zip(row["in_flight_max"], row["in_flight_mean"])
            )
            wrong = ", ".join(f"{count} {name}" for name, count in row["errors"].items())
            wrong += f" {row['unsent']} unsent" if row["unsent"] else ""
            ttft = "/".join(f"{value:.0f}" for value in row["ttft_ms"])
            lines.append(
                f"{row['router']:{width}}  {row['req_per_s']:5.1f}  {ratio:>6}  {row['hit_rate']:6.1%}  {ttft:>20}  "
                f"{row['total_ms'][0]:9.0f}  {shares:>15}  {flights:>30}  {wrong.strip() or 0}"
            )
    return "\n".join(lines).lstrip("\n")
