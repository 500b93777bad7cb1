"""A judge in Python, from the published schemas alone: takes the `judge.groups` tasks of a run, in the place of its Judge.

usage: python judge.py nats://HOST:PORT RUN [worker.creds]          needs nats-py, and nkeys for a closed run
"""

import asyncio
import datetime
import json
import secrets
import sys

import nats
from nats.js.api import ConsumerConfig
from nats.js.errors import APIError, NotFoundError

NAME, VERSION = "python-judge", "1"
ME = f"judge.python-{secrets.token_hex(4)}"


def envelope(schema, data, trace=None):
    trace = trace or f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    return json.dumps({"schema": schema, "version": 2, "traceparent": trace, "at": now, "by": ME, "data": data}).encode()


async def hold(kv, key):
    """Claims the role and says so every two seconds: a claim that is silent for eight is void."""
    holder = {"instance": ME, "name": NAME, "version": VERSION}
    beat = 0
    while True:
        beat += 1
        await kv.put(key, envelope("document", {"holder": holder, "beat": beat}))
        await asyncio.sleep(2)


async def record(js, stream, subject):
    """Waits for an event of the log."""
    while True:
        try:
            message = await js.get_last_msg(stream, subject)
            return json.loads(message.data)["data"]
        except NotFoundError:
            await asyncio.sleep(0.02)


def judge(question, answers):
    if question["malformed"] is not None:
        return {"questioner": {"reward": -1, "parts": {}}, "reasoner": None}
    said = [a.strip().lower() if a is not None else None for a in answers]
    known = [a for a in said if a is not None]
    majority = max(known, key=known.count) if known else None
    share = known.count(majority) / len(said) if known else 0
    agreement = said.count(question["silver"].strip().lower()) / len(said)
    reasoner = {
        "rewards": [1 if a is not None and a == majority else 0 for a in said],
        "keep": True,
        "dropped": None,
        "agreement": agreement,
        "majority": majority,
        "share": share,
    }
    return {"questioner": {"reward": min(share, 1 - share), "parts": {"share": share}}, "reasoner": reasoner}


async def verdict(js, run, step, item, trace):
    log = f"VISPLAY_{run}_LOG"
    group = item["group"]
    asked = await record(js, log, f"visplay.{run}.log.questions.{item['questions']}")
    question = next(q for q in asked["questions"] if q["group"] == group)
    answers = []
    if item["answers"] is not None:
        answers = (await record(js, log, f"visplay.{run}.log.answers.{item['answers']}"))["parsed"]
    who = {"judge": {"name": NAME, "version": VERSION}, "recipe": NAME}
    body = envelope("verdict", {"step": step, "group": group, **who, **judge(question, answers)}, trace)
    headers = {"Nats-Msg-Id": f"verdict.{group}", "Nats-Expected-Last-Subject-Sequence": "0"}
    try:
        await js.publish(f"visplay.{run}.log.verdict.{group}", body, headers=headers)
    except APIError as error:
        if error.err_code != 10071:  # There is a verdict already: that one counts.
            raise


async def work(js, run, task, message):
    data = task["data"]
    for item in data["groups"]:
        await verdict(js, run, data["step"], item, task["traceparent"])
    await message.ack()  # Only now: a task that is acknowledged has its results in the log.


def identity(creds):
    """Of a file `role:seed`; answers come to an inbox of the role, where nobody else may listen."""
    if creds is None:
        return {}
    with open(creds) as file:
        role, seed = file.read().strip().split(":")
    return {"nkeys_seed_str": seed, "inbox_prefix": f"_INBOX.{role}"}


async def main(url, run, creds=None):
    client = await nats.connect(url, **identity(creds))
    js = client.jetstream()
    kv = await js.key_value(f"VISPLAY_{run}")
    holding = asyncio.create_task(hold(kv, "claim.judge.groups"))
    tasks = await js.pull_subscribe_bind("judge_groups", f"VISPLAY_{run}_TASKS")
    print(f"{NAME} {VERSION} judges in run {run}", flush=True)
    while not holding.done():
        try:
            for message in await tasks.fetch(64, timeout=1):
                await work(js, run, json.loads(message.data), message)
        except nats.errors.TimeoutError:
            pass
    await holding


asyncio.run(main(*sys.argv[1:4]))
