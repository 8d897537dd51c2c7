"""The traces: which prompts are sent in which order, made from a seed or from a file.

A trace is made anew for every cell with the cell's salt in front of each prompt. Two cells so have prompts of the
same shape and nearly the same length in tokens, and neither finds anything of the other in an engine's cache.
"""

import json
import random

WORDS = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were her all she there would their we him been has when who will more no if out so said what up its "
    "about into than them can only other new some could time these two may then do first any my now such like our "
    "over man me even most made after also did many before must through back years where much your way well down "
    "should because each just those people how too little state good very make world still own see men work long "
    "get here between both life being under never day same another know while last might us great old year off come "
    "since against go came right used take three"
).split()
NAMES = ("multi_turn", "shared_prefix", "hot_prefix")
# Tokens a hash id stands for in a Mooncake trace.
MOONCAKE_BLOCK = 512
# Grain of the oracle, in characters.
GRAIN = 64


class Request:
    """One chat completion to send."""

    def __init__(self, messages, after=None, at=None, max_tokens=None, session=None):
        self.session = session  # name of the conversation or group, for routers that go by a key
        self.messages = messages  # (role, text) pairs; equal texts are shared, so a trace takes little memory
        self.after = after  # index of the request whose answer must be there first
        self.at = at  # seconds from the start, for a file replayed by its clock
        self.max_tokens = max_tokens

    def text(self):
        return "".join(f"{role}\n{text}\n" for role, text in self.messages)


def make(name, options, salt):
    """The requests of the trace `name`."""
    # The rng depends on the seed alone: every cell has the same order and the same words.
    rng = random.Random(f"{options.seed} {name}")
    maker = {"multi_turn": multi_turn, "shared_prefix": shared_prefix, "hot_prefix": hot_prefix}.get(name)
    # Decimal digits, because tokenizers split them the same way whatever their value.
    stamp = f"{salt:08d}"
    return maker(options, rng, stamp) if maker else mooncake(name, options, stamp)


def words(rng, count):
    return " ".join(rng.choice(WORDS) for _ in range(count))


def multi_turn(options, rng, stamp):
    """Conversations that take turns: each turn sends all that was said so far.

    The answers in the history are made up, not those of the engines, so that every router gets the same prompts.
    All conversations have their turn before any has its next one: a prefix comes back only after the whole working
    set was used, which is what a cache smaller than it cannot keep.
    """
    count = max(1, options.requests // options.turns)
    histories = [[("system", f"{stamp} {index:04d} {words(rng, options.prefix_words)}")] for index in range(count)]
    latest = [None] * count
    requests = []
    for _ in range(options.turns):
        for index in rng.sample(range(count), count):
            history = histories[index]
            history.append(("user", words(rng, options.turn_words)))
            requests.append(Request(list(history), after=latest[index], session=f"{stamp} {index}"))
            latest[index] = len(requests) - 1
            history.append(("assistant", words(rng, options.answer_words)))
    return requests


def shared_prefix(options, rng, stamp):
    """Groups of requests that share a long system prompt; every question is unique, the order is shuffled."""
    prefixes = [f"{stamp} {group:04d} {words(rng, options.prefix_words)}" for group in range(options.groups)]
    order = [index % options.groups for index in range(options.requests)]
    rng.shuffle(order)
    return [
        Request([("system", prefixes[group]), ("user", words(rng, options.question_words))], session=f"{stamp} {group}")
        for group in order
    ]


def hot_prefix(options, rng, stamp):
    """One group holds `--hot-share` of the requests, all others are unique prompts of the same length."""
    hot = f"{stamp} 0000 {words(rng, options.prefix_words)}"
    count = round(options.requests * options.hot_share)
    order = [True] * count + [False] * (options.requests - count)
    rng.shuffle(order)
    requests = []
    for index, is_hot in enumerate(order):
        prefix = hot if is_hot else f"{stamp} {index + 1:04d} {words(rng, options.prefix_words)}"
        session = f"{stamp} {0 if is_hot else index + 1}"
        requests.append(Request([("system", prefix), ("user", words(rng, options.question_words))], session=session))
    return requests


def mooncake(path, options, stamp):
    """A trace file in Mooncake's form: equal hash ids become equal text, `--block-words` for each."""
    texts = {}
    requests = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            if len(requests) == options.requests:
                break
            if not line.strip():
                continue
            row = json.loads(line)
            length = min(options.prompt_words_max, round(row["input_length"] * options.block_words / MOONCAKE_BLOCK))
            parts = [stamp]
            for hash_id in row["hash_ids"]:
                if length <= 0:
                    break
                if hash_id not in texts:
                    rng = random.Random(f"{options.seed} {hash_id}")
                    texts[hash_id] = [rng.choice(WORDS) for _ in range(options.block_words)]
                parts += texts[hash_id][:length]
                length -= options.block_words
            requests.append(
                Request(
                    [("user", " ".join(parts))],
                    at=row["timestamp"] / 1000 / options.speed if options.speed else None,
                    max_tokens=max(1, min(options.max_tokens, round(row["output_length"]))),
                )
            )
    start = min((request.at for request in requests if request.at is not None), default=0)
    for request in requests:
        request.at = None if request.at is None else request.at - start
    return requests


class Oracle:
    """What one endless cache that sees every prompt in order would know of a trace, in characters."""

    def __init__(self, requests):
        seen = set()
        self.chars = self.known = 0
        for request in requests:
            text = request.text()
            self.chars += len(text)
            # A block counts only with all that stands before it, as in an engine's prefix cache.
            chain, is_known = 0, True
            for at in range(0, len(text) - GRAIN + 1, GRAIN):
                chain = hash((chain, text[at : at + GRAIN]))
                is_known = is_known and chain in seen
                self.known += GRAIN * is_known
                seen.add(chain)
        self.distinct = len(seen) * GRAIN
        self.hit_rate = self.known / self.chars if self.chars else 0.0
